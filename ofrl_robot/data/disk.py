"""Puts a file on disk safely: exclusive number, errors that do not crash HDF5, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
from pathlib import Path
from typing import Any, Optional, Tuple

from ofrl_robot.data import schema
from ofrl_robot.errors import DatasetError


class PatientFile(io.FileIO):
    """A file that keeps its first write error in ``error`` instead of raising it.

    HDF5 cannot close a file after a failed write: the next call crashes the whole process
    (h5py 3.16, HDF5 2.0, full disk). So HDF5 never hears of it; look here after each flush.
    """

    error: Optional[OSError] = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while len(view) and self.error is None:
            try:
                view = view[super().write(view) :]
            except OSError as error:
                self.error = error
        return size

    def truncate(self, size: Optional[int] = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


def partial_path(folder: Path, index: int) -> Path:
    """Where episode number ``index`` lies while it is being written."""
    return folder / (schema.episode_name(index) + ".partial")


def open_partial(folder: Path, index: Optional[int] = None) -> Tuple[Path, PatientFile]:
    """Create ``episode_N.h5.partial``; never opens an existing one.

    Args:
        index: its number; None for the next free one.

    Raises DatasetError when ``index`` is taken, finished or partial, or the disk refuses.
    """
    try:
        number = next_index(folder) if index is None else index
        while True:
            try:
                return _claim(folder, number)
            except FileExistsError as error:
                if index is not None:
                    raise _taken(folder / schema.episode_name(number)) from error
                number += 1  # another recorder took it between look and open
    except OSError as error:
        raise disk_error(error, folder) from error


def _claim(folder: Path, index: int) -> Tuple[Path, PatientFile]:
    final, partial = folder / schema.episode_name(index), partial_path(folder, index)
    if final.exists():
        raise _exists(final)
    return partial, PatientFile(str(partial), "x+")


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _taken(final: Path) -> DatasetError:
    return DatasetError(
        "its number is taken, so another recorder is at work in this folder",
        "let one at a time add to it",
        final,
    )


def disk_error(error: OSError, path: Path) -> DatasetError:
    return DatasetError(
        "the episode cannot be written ({})".format(error.strerror or error),
        "free space or choose another folder",
        path,
    )


def next_index(folder: Path) -> int:
    """One past the highest number in the folder, finished or partial: the disk is the counter."""
    numbers = (re.match(r"episode_(\d+)\.h5", p.name) for p in folder.iterdir())
    return max((int(n.group(1)) for n in numbers if n), default=-1) + 1


def publish(partial: Path, renumber: bool) -> Path:
    """Sync a finished partial and give it its final name; never replaces an existing file.

    Args:
        renumber: where the name is taken, use the next free number; otherwise raise DatasetError.
    """
    folder = partial.parent
    final = folder / partial.name[: -len(".partial")]
    try:
        _fsync(partial)
        while True:
            try:
                _move(partial, final)
                break
            except FileExistsError as error:
                if not renumber:
                    raise _taken(final) from error
                final = folder / schema.episode_name(next_index(folder))
    except OSError as error:
        raise disk_error(error, partial) from error
    with contextlib.suppress(OSError):  # not every network file system can sync a folder
        _fsync(folder)
    return final


def _move(partial: Path, final: Path) -> None:
    """Rename, but raise FileExistsError where ``final`` exists."""
    try:
        os.link(str(partial), str(final))
    except FileExistsError:
        raise
    except OSError:  # file systems without hard links (exFAT sticks)
        if final.exists():
            raise _exists(final) from None
        os.rename(str(partial), str(final))
    else:
        partial.unlink()


def _fsync(path: Path) -> None:
    handle = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
