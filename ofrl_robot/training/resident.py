"""Hold all transitions on the training device, so that drawing a batch moves no frame.

A million frames of 48x48 pixels take 6.9 GB, which fits on a card. Everything but observations is
computed once for every transition, by the function that the sampler uses for each batch.
"""

from __future__ import annotations

import warnings
from typing import Dict, Iterator, List, Sequence, Tuple, Union

import numpy as np
import torch

from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.data.replay.buffer import FRAMES, NEXT_FRAMES, ReplayBuffer
from ofrl_robot.data.replay.transition_store import TransitionStore
from ofrl_robot.training.staging import Staging, StreamedData

_BLOCK = 4096  # rows uploaded at a time
_GIB = 1 << 30


class ResidentData:
    """Transitions of a replay buffer on a device, numbered on from store to store.

    Only frames of the chosen episodes are uploaded, each straight to its final place.

    Args:
        buffer: what to upload.
        device: where to.

    Attributes:
        device: where they are.

    Raises:
        torch.cuda.OutOfMemoryError: the device has no room for them.
    """

    def __init__(self, buffer: ReplayBuffer, device: torch.device) -> None:
        self.device = device
        self._index = Staging(device)
        self._starts = np.cumsum([0] + [len(store) for store in buffer.stores])
        self._observations = {name: _upload(buffer, name, device) for name in buffer.shapes}
        done = 0
        parts = []
        for store in buffer.stores:
            part = buffer.columns(store, np.arange(len(store)))
            moved = _moved(store) + done
            for name in (FRAMES, NEXT_FRAMES):
                part[name] = part[name] + moved
            parts.append(part)
            done += _frame_count(store)
        self._columns: Dict[str, torch.Tensor] = {}
        for name in parts[0]:
            column = np.concatenate([part[name] for part in parts])
            self._columns[name] = torch.from_numpy(column).to(device)

    def stage(self, draws: Sequence[np.ndarray]) -> None:
        """Choose what :meth:`batch` returns: the transitions int64 (B_k,) of each store."""
        numbers = [start + draw for start, draw in zip(self._starts, draws)]
        self._index.fill([np.concatenate(numbers)])

    def batch(self) -> Batch:
        """Return the transitions that were staged last, without using the host."""
        (index,) = self._index.tensors
        rows = {name: column.index_select(0, index) for name, column in self._columns.items()}
        frames, next_frames = rows.pop(FRAMES), rows.pop(NEXT_FRAMES)
        observations, next_observations = {}, {}
        for name, values in self._observations.items():
            observations[name] = values.index_select(0, frames)
            next_observations[name] = values.index_select(0, next_frames)
        return Batch(observations=observations, next_observations=next_observations, **rows)


def device_data(buffer: ReplayBuffer, device: torch.device) -> Union[ResidentData, StreamedData]:
    """Return the buffer on a GPU if it has room, else a stream of batches, with a warning."""
    reason = "is more than half of the device's free memory"
    if fits(buffer, device):
        try:
            return ResidentData(buffer, device)
        except torch.cuda.OutOfMemoryError:  # something else took memory meanwhile
            torch.cuda.empty_cache()
            reason = "does not fit on the device"
    warnings.warn(
        f"the data ({resident_bytes(buffer) / _GIB:.2f} GiB) {reason}: "
        "batches are copied to it one by one",
        stacklevel=2,
    )
    return StreamedData(buffer, device)


def resident_bytes(buffer: ReplayBuffer) -> int:
    """Return the device memory that :class:`ResidentData` takes (bytes)."""
    per_row = 8 + 8 + 4 * 4  # two frames; reward, bootstrap, has_next_action, return
    total = 0
    for store in buffer.stores:
        frame = sum(file.nbytes // len(file) for file in store.observations.values())
        total += _frame_count(store) * frame
        total += len(store) * per_row + 2 * store.actions.nbytes
    return total


def fits(buffer: ReplayBuffer, device: torch.device) -> bool:
    """Return whether a GPU has room for the buffer in half of its free memory.

    The other half is for the networks.
    """
    free, _ = torch.cuda.mem_get_info(device)
    return resident_bytes(buffer) <= free // 2


def _frame_count(store: TransitionStore) -> int:
    """Return the number of frames of the chosen episodes."""
    return len(store) + len(store.first_frames)


def _moved(store: TransitionStore) -> np.ndarray:
    """Return by how much the frames of each transition move, int64 (N,), when all others go."""
    lengths = np.diff(store.starts)
    first = store.starts[:-1] + np.arange(len(lengths))
    return np.repeat(first - store.first_frames, lengths)


def _upload(buffer: ReplayBuffer, name: str, device: torch.device) -> torch.Tensor:
    """Return the frames of the chosen episodes of all stores, joined, on the device."""
    files = [store.observations[name] for store in buffer.stores]
    dtype = torch.from_numpy(np.empty(0, files[0].dtype)).dtype
    shape = (sum(map(_frame_count, buffer.stores)),) + tuple(files[0].shape[1:])
    rows = torch.empty(shape, dtype=dtype, device=device)
    done = 0
    for store, file in zip(buffer.stores, files):
        for start, stop in _blocks(store.frame_spans):
            rows[done : done + stop - start] = torch.from_numpy(file.block(start, stop)).to(device)
            done += stop - start
    return rows


def _blocks(spans: List[Tuple[int, int]]) -> Iterator[Tuple[int, int]]:
    """Join spans [first, stop) that touch, and cut them into blocks."""
    joined: List[List[int]] = []
    for start, stop in spans:
        if joined and joined[-1][1] == start:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    for start, stop in joined:
        for first in range(start, stop, _BLOCK):
            yield first, min(first + _BLOCK, stop)
