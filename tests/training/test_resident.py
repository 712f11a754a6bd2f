"""Transitions on the device are those of the buffer, and take the memory that is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofrl_robot.data.replay.array_file import ArrayFile
from ofrl_robot.training import resident
from ofrl_robot.training.resident import ResidentData, device_data, fits, resident_bytes
from ofrl_robot.training.staging import StreamedData
from tests.training.small_buffer import make_buffer, same_batch

CPU = torch.device("cpu")


@pytest.mark.parametrize("chosen", [None, [0, 1], [1, 3]], ids=str)
@pytest.mark.parametrize("block", [2, 6, 4096])
def test_batches_are_those_of_the_buffer(tmp_path, block, chosen, monkeypatch):
    monkeypatch.setattr(resident, "_BLOCK", block)
    buffer = make_buffer(tmp_path, True, chosen)
    data = ResidentData(buffer, CPU)
    draws = [np.arange(len(store))[::-1].copy() for store in buffer.stores]
    data.stage(draws)
    assert same_batch(data.batch(), buffer.gather(draws).map(torch.from_numpy))


@pytest.mark.parametrize("chosen", [None, [2]], ids=str)
def test_the_memory_is_what_is_said_and_of_chosen_episodes_only(tmp_path, chosen):
    buffer = make_buffer(tmp_path, True, chosen)
    data = ResidentData(buffer, CPU)
    tensors = [*data._observations.values(), *data._columns.values()]
    assert resident_bytes(buffer) == sum(tensor.nbytes for tensor in tensors)
    frames = 8 if chosen else 5 + 1 + 7 + 4 + 4
    assert len(data._observations["image"]) == frames + 4 + 6 + 2


def test_frames_are_uploaded_once(buffer, monkeypatch):
    """A second copy of all frames on the device would need twice the memory for a moment."""
    read, block = [], ArrayFile.block
    joined = monkeypatch.setattr(torch, "cat", None)
    monkeypatch.setattr(ArrayFile, "block", lambda *a: read.append(a[1:]) or block(*a))
    ResidentData(buffer, CPU)
    assert joined is None and read == [(0, 21), (0, 12)] * 2  # image and state of each store


@pytest.mark.parametrize(("free", "enough"), [(2, True), (1.9, False)])
def test_half_of_the_free_memory_may_be_taken(buffer, free, enough, monkeypatch):
    said = int(free * resident_bytes(buffer)), 10**12
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: said)
    assert fits(buffer, torch.device("cuda")) == enough
    if not enough:
        with pytest.warns(UserWarning, match="more than half of the device's free memory: batches"):
            assert isinstance(device_data(buffer, CPU), StreamedData)


def test_what_does_not_fit_after_all_is_streamed(buffer, monkeypatch):
    def full(*args):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(resident, "fits", lambda *args: True)
    assert isinstance(device_data(buffer, CPU), ResidentData)
    monkeypatch.setattr(resident, "_upload", full)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with pytest.warns(UserWarning, match="does not fit on the device"):
        assert isinstance(device_data(buffer, CPU), StreamedData)
