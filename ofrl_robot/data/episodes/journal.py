"""The file below HDF5. A process killed at any instant leaves it as it was at the last commit."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

_MAGIC = b"ofrl-log"
_CHANGE = struct.Struct("<QQ")  # where, how many bytes; the bytes follow
_TRAILER = struct.Struct("<8sQL")  # magic, bytes of all changes, their CRC


class JournaledFile(io.FileIO):
    """A file that changes in whole commits, and keeps its first write error in ``error``.

    HDF5 alters its index in place with many small writes. A 200-step episode makes 299 of them
    after its first flush; without this the end of the process after 59 of them left a file that
    could not be read, after 18 one with black frames (measured). So bytes behind the committed
    end, which nothing refers to yet, are written at once, but changes before it wait for
    :meth:`commit`. That first writes all of them behind the end, as a journal, and then in place.
    Opening a file that ends in a whole journal carries it out; half a journal is nothing.

    Errors are kept since HDF5 cannot close a file after a failed write: the next call crashes
    the whole process (h5py 3.16, HDF5 2.0, full disk). Look at ``error`` after each commit.

    It withstands the death of the process. After a power cut the order of writes is up to the
    file system.

    Locked while it is open; raises BlockingIOError while another process has it open.
    """

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(str(path), mode)
        fcntl.flock(self, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.error: Optional[OSError] = None
        self._waiting: Dict[Tuple[int, int], bytes] = {}  # by (start, size), in order of writing
        self._committed = self._end()
        if self._committed:
            self._replay()

    def write(self, data: Any) -> int:
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
        start, size = self.tell(), super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for (at, length), data in self._waiting.items():
            low, high = max(at, start), min(at + length, start + len(view))
            if low < high:
                view[low - start : high - start] = data[low - at : high - at]
        return size

    def truncate(self, size: Optional[int] = None) -> int:
        """Cut the file, but nothing that is committed: HDF5 does not mind bytes behind its end."""
        size = self.tell() if size is None else size
        try:
            os.ftruncate(self.fileno(), max(size, self._committed))
        except OSError as error:
            self.error = self.error or error
        return size

    def commit(self) -> None:
        """Make everything that was written so far what is found after a crash."""
        end = self._end()
        if self._waiting:
            changes = [_CHANGE.pack(at, n) + data for (at, n), data in self._waiting.items()]
            body = b"".join(changes)
            self._put(end, body + _TRAILER.pack(_MAGIC, len(body), zlib.crc32(body)))
            self._carry_out(end)
        if self.error is None:
            self._committed = end

    def _carry_out(self, end: int) -> None:
        """Write the waiting changes in place and take the journal, which starts at ``end``, off."""
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
