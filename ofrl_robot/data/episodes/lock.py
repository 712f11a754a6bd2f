"""Let one recorder at a time write into a dataset folder. Reading needs no lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Iterator

from ofrl_robot.errors import DatasetError, OutputError
from ofrl_robot.files import make_folder, output_error

LOCK_NAME = ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder`` inside the block. The folder is made unless it exists.

    The kernel releases the lock with the process, however that ends; the file that a killed
    process leaves is no obstacle.

    Raises:
        DatasetError: another recorder holds the folder; names its process.
        OutputError: the folder cannot be written or locked.
    """
    make_folder(folder)
    path = folder / LOCK_NAME
    handle = _acquire(path)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):  # the whole folder was removed
            path.unlink()
        os.close(handle)


def _acquire(path: Path) -> int:
    """Return an open file descriptor that holds the lock."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise output_error(error, path) from error
        try:
            _lock(handle, path)
            if _is_at(handle, path):
                _write_holder(handle, path)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the holder before us removed the file between open and lock


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
        raise DatasetError(
            f"another recorder is at work in it (process {holder or 'unknown'})",
            "let it finish, or record into another folder",
            path.parent,
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot be locked ({error.strerror or error})",
            "record to a disk of this computer",
            path.parent,
        ) from error


def _write_holder(handle: int, path: Path) -> None:
    """Write the number of this process into the lock file, for the message of others."""
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        # The lock holds without it, and deleting episodes must be possible on a full disk.
        if error.errno not in _FULL:
            raise output_error(error, path) from error


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
