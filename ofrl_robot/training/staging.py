"""Move arrays to the training device at every step without making the host wait for the device.

A copy from ordinary memory to a GPU waits until the GPU has done all that was asked of it before.
A copy from pinned memory does not, but then its source must not change before it is done. So there
are two pinned copies, used in turn: while one is on its way the host fills the other.
"""

from __future__ import annotations

from typing import List, Optional, Sequence

import numpy as np
import torch

from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.data.replay.buffer import ReplayBuffer

_COPIES = 2


class Staging:
    """Device tensors that are filled from arrays of always the same shapes and dtypes.

    On a GPU their addresses never change, so that a CUDA graph can read them. On the CPU they are
    the arrays themselves.

    Args:
        device: where the tensors are.

    Attributes:
        tensors: one per array; empty before the first :meth:`fill`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._slots: List[_Slot] = []
        self._turn = 0
        self.tensors: List[torch.Tensor] = []

    def fill(self, arrays: Sequence[np.ndarray]) -> None:
        """Copy ``arrays`` into :attr:`tensors`, in the order of the device's work."""
        sources = [torch.from_numpy(array) for array in arrays]
        if self._device.type != "cuda":
            self.tensors = sources
            return
        if not self.tensors:
            self.tensors = [torch.empty_like(each, device=self._device) for each in sources]
            self._slots = [_Slot(sources) for _ in range(_COPIES)]
        self._slots[self._turn].send(sources, self.tensors)
        self._turn = (self._turn + 1) % _COPIES


class _Slot:
    """One pinned copy, and the event after which it may be filled again."""

    def __init__(self, like: Sequence[torch.Tensor]) -> None:
        self._pinned = [torch.empty_like(each).pin_memory() for each in like]
        self._sent: Optional[torch.cuda.Event] = None

    def send(self, sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> None:
        if self._sent is None:
            self._sent = torch.cuda.Event()
        else:
            self._sent.synchronize()
        for source, pinned, target in zip(sources, self._pinned, targets):
            pinned.copy_(source)
            target.copy_(pinned, non_blocking=True)
        self._sent.record()


class StreamedData:
    """Transitions of a replay buffer that stay on the host; every batch is copied to the device.

    Args:
        buffer: where they are.
        device: where batches go.

    Attributes:
        device: as given.
    """

    def __init__(self, buffer: ReplayBuffer, device: torch.device) -> None:
        self.device = device
        self._buffer = buffer
        self._staging = Staging(device)
        self._staged: Optional[Batch] = None

    def stage(self, draws: Sequence[np.ndarray]) -> None:
        """Choose what :meth:`batch` returns: the transitions int64 (B_k,) of each store."""
        self._staged = self._buffer.gather(draws)
        arrays: List[np.ndarray] = []
        self._staged.map(arrays.append)
        self._staging.fill(arrays)

    def batch(self) -> Batch:
        """Return the transitions that were staged last, on the device."""
        assert self._staged is not None, "nothing was staged"
        tensors = iter(self._staging.tensors)
        return self._staged.map(lambda array: next(tensors))
