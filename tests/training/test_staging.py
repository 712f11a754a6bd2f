"""Batches that are copied to a device step by step: pinned, in turns, at fixed addresses.

No GPU is needed: the device's part is played by tensors of the CPU, whose copies happen at once.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofrl_robot.training.staging import Staging, StreamedData
from tests.training.small_buffer import same_batch

CPU = torch.device("cpu")


def test_streamed_batches_are_those_of_the_buffer(buffer):
    data = StreamedData(buffer, CPU)
    for first in (0, 2):
        draws = [np.arange(first, first + 3) for _ in buffer.stores]
        data.stage(draws)
        assert same_batch(data.batch(), buffer.gather(draws).map(torch.from_numpy))


class Event:
    """Stands for a CUDA event; ``log`` says what was done in which order."""

    log: list = []

    def __init__(self):
        self.number = sum(word == "new" for word, _ in self.log)
        self.log.append(("new", self.number))

    def record(self):
        self.log.append(("record", self.number))

    def synchronize(self):
        self.log.append(("wait", self.number))


@pytest.fixture
def staging(monkeypatch):
    """A staging that does what it would do on a GPU, with tensors of the CPU."""
    real = torch.empty_like

    def empty_like(tensor, device=None):
        return real(tensor)

    monkeypatch.setattr(torch, "empty_like", empty_like)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Event, "log", [])
    return Staging(torch.device("cuda"))


def test_on_a_card_addresses_stay_and_the_host_waits_for_the_last_but_one_copy(staging):
    arrays = [np.arange(3), np.ones((2, 2), np.float32)]
    staging.fill(arrays)
    tensors = list(staging.tensors)
    places = [tensor.data_ptr() for tensor in tensors]
    for number in range(1, 5):
        staging.fill([array + number for array in arrays])
        for tensor, array in zip(staging.tensors, arrays):
            assert np.array_equal(tensor.numpy(), array + number)
    assert [tensor.data_ptr() for tensor in staging.tensors] == places
    turns = [("wait", 0), ("record", 0), ("wait", 1), ("record", 1), ("wait", 0), ("record", 0)]
    assert Event.log == [("new", 0), ("record", 0), ("new", 1), ("record", 1), *turns]


def test_a_pinned_copy_is_not_overwritten_while_it_is_on_its_way(staging):
    """The two copies are different memory, and neither is the array that was given."""
    array = np.arange(3)
    staging.fill([array])
    staging.fill([array])
    first, second = (slot._pinned[0] for slot in staging._slots)
    places = {first.data_ptr(), second.data_ptr(), torch.from_numpy(array).data_ptr()}
    assert len(places) == 3
