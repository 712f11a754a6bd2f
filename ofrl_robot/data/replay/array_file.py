"""Read rows of one size from one flat file: mapped if they fit in memory, else with ``preadv``.

A mapped row counts as resident memory of the process once it has been touched (the kernel maps
64 KiB around it as well), so a map is bounded by nothing but its size. Hence the simple rule: a
file within the bound is mapped; a larger one is read with ``preadv`` straight into the batch and
only the kernel's page cache holds what was read. Measured with 48x48 frames in a warm page cache,
one core, batches/s of 256 pairs: 2270 mapped, 1015 read, 402 mapped and unmapped after each batch.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Tuple

import numpy as np

from ofrl_robot.errors import DatasetError


class ArrayFile:
    """Read-only rows of one shape and dtype, e.g. frames or state vectors.

    Args:
        path: the file; row i starts at byte i * bytes of one row.
        shape: (F, ...), F rows.
        dtype: of each entry, in the byte order of this machine.
        mapped: map the whole file; otherwise read rows when they are asked for.

    Raises:
        OSError: the file cannot be opened, or is a symbolic link.
        ValueError: its length does not match ``shape`` and ``dtype``.
    """

    def __init__(
        self, path: Path, shape: Tuple[int, ...], mapped: bool, dtype: type = np.uint8
    ) -> None:
        self.shape = shape
        self.mapped = mapped
        self.dtype = np.dtype(dtype)
        self._path = path
        self._row_bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
        # a link in a dataset's cache could show any file of this machine as frames
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        weakref.finalize(self, os.close, descriptor)
        if os.fstat(descriptor).st_size != self.nbytes:
            raise ValueError(f"{shape[0]} rows of {self._row_bytes} bytes expected")
        if mapped:
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                self._map = np.asarray(np.memmap(file, self.dtype, "r", shape=shape))
        else:
            self._descriptor = descriptor
            # else the kernel reads 128 KiB ahead of each row
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes."""
        return self.shape[0] * self._row_bytes

    def read(self, first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
        """Copy two rows of each of B transitions.

        Args:
            first, second: int64 (B,), row numbers; one system call if ``second`` is ``first`` + 1.
            out: (2, B, ...) of this dtype to fill; ``out[0]`` and ``out[1]`` contiguous.

        Raises:
            DatasetError: the file became shorter.
        """
        if self.mapped:
            # with mode="raise" numpy would go through a buffer of its own
            np.take(self._map, first, 0, out[0], mode="clip")
            np.take(self._map, second, 0, out[1], mode="clip")
            return
        size = self._row_bytes
        descriptor = self._descriptor
        offsets = (first * size).tolist(), (second * size).tolist()
        for a, b, at_a, at_b in zip(out[0], out[1], *offsets):
            if at_b == at_a + size:
                count = os.preadv(descriptor, (a, b), at_a)
            else:
                count = os.preadv(descriptor, (a,), at_a) + os.preadv(descriptor, (b,), at_b)
            if count != 2 * size:
                raise DatasetError("replay cache ends early", "delete its folder", self._path)

    def block(self, start: int, stop: int) -> np.ndarray:
        """Return the rows ``start`` .. ``stop - 1``, a copy, (stop - start, ...)."""
        rows = np.arange(start, stop)
        out = np.empty((2, len(rows) // 2 + len(rows) % 2) + self.shape[1:], self.dtype)
        second = np.minimum(rows[::2] + 1, stop - 1)
        self.read(rows[::2], second, out)
        return out.swapaxes(0, 1).reshape((-1,) + self.shape[1:])[: len(rows)]

    def prefetch(self, first: np.ndarray, second: np.ndarray) -> None:
        """Ask the kernel to fetch what :meth:`read` will need, without waiting.

        From a cold disk the rows of a batch then come all at once instead of one by one, and
        while the caller computes: 3 ms instead of 9 for 64 pairs of 128x128 frames after a step
        of 100 ms. Nothing to do for a mapped file.
        """
        if self.mapped:
            return
        size = self._row_bytes
        will_need = os.POSIX_FADV_WILLNEED
        for at_a, at_b in zip((first * size).tolist(), (second * size).tolist()):
            if at_b == at_a + size:
                os.posix_fadvise(self._descriptor, at_a, 2 * size, will_need)
            else:
                os.posix_fadvise(self._descriptor, at_a, size, will_need)
                os.posix_fadvise(self._descriptor, at_b, size, will_need)
