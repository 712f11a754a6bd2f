"""Provide the file below HDF5: a process killed at any time leaves it as of the last commit."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

_MAGIC = b"ofrl-log"
_CHANGE = struct.Struct("<QQ")  # position, number of bytes; the bytes follow
_TRAILER = struct.Struct("<8sQL")  # magic, bytes of all changes, their CRC


class JournaledFile(io.FileIO):
    """A file that changes in whole commits.

    HDF5 changes its index in place with many small writes: 299 of them follow the first flush of
    a 200-step episode. Without this class, a kill after 59 of them left a file that could not be
    read, and after 18 others a file with black frames (measured). Therefore:

    - Bytes after the committed end are written at once, since nothing refers to them yet.
    - Changes before the committed end wait for :meth:`commit`, which first writes all of them
      after the end, as a journal, and then in place.
    - Opening a file that ends in a whole journal applies it. Half a journal is ignored.

    The first write error is kept in ``error`` and not raised: HDF5 cannot close a file after a
    failed write, the next call crashes the whole process (h5py 3.16, HDF5 2.0, full disk). Look
    at ``error`` after each commit.

    This protects against the death of the process. After a power cut, the order of writes is up
    to the file system.

    Attributes:
        error: first write error, or None.

    Raises:
        BlockingIOError: another process has the file open.
    """

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        fcntl.flock(self, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.error: Optional[OSError] = None
        self._waiting: Dict[Tuple[int, int], bytes] = {}  # by (start, size), in writing order
        self._committed = self._end()
        if self._committed:
            self._replay()

    def write(self, data: Any) -> int:
        """Write at the current position; what is committed there changes with :meth:`commit`."""
        view = memoryview(data).cast("B")
        start = self.tell()
        early = min(max(self._committed - start, 0), len(view))
        if early:
            self._waiting.pop((start, early), None)  # the later one goes to the end
            self._waiting[start, early] = bytes(view[:early])
        self._put(start + early, view[early:])
        self.seek(start + len(view))
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read at the current position, waiting changes included."""
        start, size = self.tell(), super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for (at, length), data in self._waiting.items():
            low, high = max(at, start), min(at + length, start + len(view))
            if low < high:
                view[low - start : high - start] = data[low - at : high - at]
        return size

    def truncate(self, size: Optional[int] = None) -> int:
        """Cut the file, but never what is committed: HDF5 accepts bytes after its end."""
        size = self.tell() if size is None else size
        try:
            os.ftruncate(self.fileno(), max(size, self._committed))
        except OSError as error:
            self.error = self.error or error
        return size

    def commit(self) -> None:
        """Make everything that was written so far survive a crash of the process."""
        end = self._end()
        if self._waiting:
            changes = [_CHANGE.pack(at, n) + data for (at, n), data in self._waiting.items()]
            body = b"".join(changes)
            self._put(end, body + _TRAILER.pack(_MAGIC, len(body), zlib.crc32(body)))
            self._carry_out(end)
        if self.error is None:
            self._committed = end

    def _carry_out(self, end: int) -> None:
        """Write the waiting changes in place, then cut off the journal, which starts at ``end``."""
        for (start, _), data in self._waiting.items():
            self._put(start, data)
        if self.error is None:
            self._waiting.clear()
            os.ftruncate(self.fileno(), end)

    def _replay(self) -> None:
        trailer_at = self._committed - _TRAILER.size
        if trailer_at < 0:
            return
        magic, size, crc = _TRAILER.unpack(os.pread(self.fileno(), _TRAILER.size, trailer_at))
        if magic != _MAGIC or size > trailer_at:
            return
        body = os.pread(self.fileno(), size, trailer_at - size)
        if zlib.crc32(body) != crc:
            return
        at = 0
        while at < size:
            start, length = _CHANGE.unpack_from(body, at)
            at += _CHANGE.size
            self._waiting[start, length] = body[at : at + length]
            at += length
        self._carry_out(trailer_at - size)
        self._committed = self._end()

    def _end(self) -> int:
        return os.fstat(self.fileno()).st_size

    def _put(self, start: int, data: Any) -> None:
        view = memoryview(data)
        while len(view) and self.error is None:
            try:
                written = os.pwrite(self.fileno(), view, start)
            except OSError as error:
                self.error = error
            else:
                start, view = start + written, view[written:]
