"""Puts a file on disk safely: exclusive number, errors that do not crash HDF5, fsync, rename."""

from __future__ import annotations

import contextlib
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


def open_partial(folder: Path) -> Tuple[Path, PatientFile]:
    """Create ``episode_N.h5.partial`` with the next free number; never opens an existing one."""
    try:
        index = next_index(folder)
        while True:
            path = folder / (schema.episode_name(index) + ".partial")
            try:
                return path, PatientFile(str(path), "x+")
            except FileExistsError:  # another recorder took the number between look and open
                index += 1
    except OSError as error:
        raise disk_error(error, folder) from error


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


def publish(partial: Path) -> Path:
    """Sync a finished partial and give it its final name; never replaces an existing file."""
    folder = partial.parent
    try:
        _fsync(partial)
        final = _rename(partial, folder)
    except OSError as error:
        raise disk_error(error, partial) from error
    with contextlib.suppress(OSError):  # not every network file system can sync a folder
        _fsync(folder)
    return final


def _rename(partial: Path, folder: Path) -> Path:
    final = folder / partial.name[: -len(".partial")]
    while True:
        try:
            os.link(str(partial), str(final))
        except FileExistsError:
            final = folder / schema.episode_name(next_index(folder))
            continue
        except OSError:  # file systems without hard links (exFAT sticks)
            if final.exists():
                final = folder / schema.episode_name(next_index(folder))
                continue
            os.rename(str(partial), str(final))
            return final
        partial.unlink()
        return final


def _fsync(path: Path) -> None:
    handle = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
