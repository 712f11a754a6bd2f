"""Hold all transitions on the training device, so that drawing a batch moves no frame.

A million frames of 48x48 pixels take 6.9 GB, which fits on a card. Everything but observations is
computed once for every transition, by the function that the sampler uses for each batch.
"""

from __future__ import annotations

from typing import Dict, Sequence

import numpy as np
import torch

from ofrl_robot.data.replay.array_file import ArrayFile
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.data.replay.buffer import FRAMES, NEXT_FRAMES, ReplayBuffer

_BLOCK = 4096  # rows uploaded at a time


class ResidentData:
    """Transitions of a replay buffer on a device, numbered on from store to store.

    Args:
        buffer: what to upload.
        device: where to.

    Attributes:
        device: where they are.
    """

    def __init__(self, buffer: ReplayBuffer, device: torch.device) -> None:
        self.device = device
        self._starts = np.cumsum([0] + [len(store) for store in buffer.stores])
        self._observations = {}
        for name in buffer.shapes:
            files = [store.observations[name] for store in buffer.stores]
            self._observations[name] = torch.cat([_upload(file, device) for file in files])
        first_frame = 0
        parts = []
        for store in buffer.stores:
            part = buffer.columns(store, np.arange(len(store)))
            for name in (FRAMES, NEXT_FRAMES):
                part[name] = part[name] + first_frame
            parts.append(part)
            first_frame += len(next(iter(store.observations.values())))
        self._columns: Dict[str, torch.Tensor] = {}
        for name in parts[0]:
            column = np.concatenate([part[name] for part in parts])
            self._columns[name] = torch.from_numpy(column).to(device)

    def number(self, draws: Sequence[np.ndarray]) -> np.ndarray:
        """Turn transitions int64 (B_k,) of each store into their numbers here, int64 (B,)."""
        return np.concatenate([start + draw for start, draw in zip(self._starts, draws)])

    def batch(self, index: torch.Tensor) -> Batch:
        """Return the transitions ``index``, int64 (B,) on the device, without using the host."""
        rows = {name: column.index_select(0, index) for name, column in self._columns.items()}
        frames, next_frames = rows.pop(FRAMES), rows.pop(NEXT_FRAMES)
        observations, next_observations = {}, {}
        for name, values in self._observations.items():
            observations[name] = values.index_select(0, frames)
            next_observations[name] = values.index_select(0, next_frames)
        return Batch(observations=observations, next_observations=next_observations, **rows)


def resident_bytes(buffer: ReplayBuffer) -> int:
    """Return the device memory that :class:`ResidentData` takes (bytes)."""
    per_row = 8 + 8 + 4 * 4  # two frames; reward, bootstrap, has_next_action, return
    total = 0
    for store in buffer.stores:
        total += sum(file.nbytes for file in store.observations.values())
        total += len(store) * per_row + 2 * store.actions.nbytes
    return total


def fits(buffer: ReplayBuffer, device: torch.device) -> bool:
    """Return whether a device is a GPU with room for the buffer in half of its free memory.

    The other half is for the networks.
    """
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return resident_bytes(buffer) <= free // 2


def _upload(file: ArrayFile, device: torch.device) -> torch.Tensor:
    """Return all rows of ``file`` on the device, copied a block at a time."""
    dtype = torch.from_numpy(np.empty(0, file.dtype)).dtype
    rows = torch.empty(file.shape, dtype=dtype, device=device)
    for start in range(0, len(file), _BLOCK):
        stop = min(start + _BLOCK, len(file))
        rows[start:stop] = torch.from_numpy(file.block(start, stop)).to(device)
    return rows
