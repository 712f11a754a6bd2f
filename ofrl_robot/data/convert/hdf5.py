"""Somebody else's HDF5 file: read with suspicion, and one for somebody else: written with care."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import h5py
import numpy as np

from ofrl_robot.data.episodes.hdf5_safety import require_own_data, require_own_links
from ofrl_robot.data.episodes.journal import JournaledFile
from ofrl_robot.errors import DatasetError

_MAX_GROWTH = 1100  # bytes read per byte of file; gzip reaches 1032
_FREE = 2**26  # bytes that may be read of even the smallest file
_LINK_BYTES = 64
_FIX = "do not trust this file"


class ForeignFile:
    """An HDF5 file of unknown origin, open for reading.

    Nothing outside the file is read (links, external storage and virtual datasets can name any
    file of this computer), and no more than it can hold: a few bytes can declare terabytes.

    Raises DatasetError where it cannot be opened, or is refused for one of these reasons.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.root = h5py.File(str(path), "r")
            self._budget = _FREE + _MAX_GROWTH * path.stat().st_size
        except OSError as error:
            what = "truncated, or not an HDF5 file" if path.is_file() else "no such file"
            if isinstance(error, PermissionError):
                what = "not readable"
            raise DatasetError(what, "check the path", path) from error
        try:
            require_own_links(self.root, self.path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.root.close()

    def group(self, name: str) -> h5py.Group:
        found = self.root.get(name)
        if not isinstance(found, h5py.Group):
            raise DatasetError(f"no group {name}", "check the path", self.path)
        return found

    def datasets(self, group: h5py.Group, prefix: str = "") -> Dict[str, h5py.Dataset]:
        """All datasets below ``group`` by their path in it."""
        found: Dict[str, h5py.Dataset] = {}
        for name, item in group.items():
            self.pay(_LINK_BYTES)  # groups that lie in one another would take for ever
            if isinstance(item, h5py.Dataset):
                found[prefix + name] = item
            elif isinstance(item, h5py.Group):
                found.update(self.datasets(item, f"{prefix}{name}/"))
        return found

    def read(self, data: h5py.Dataset, rows: slice = slice(None)) -> np.ndarray:
        """``data[rows]``; a scalar as an array of one row."""
        require_own_data(data, self.path)
        if data.shape is None:
            raise DatasetError(f"{data.name} is empty", "get the file again", self.path)
        if not data.shape:
            self.pay(data.dtype.itemsize)
            return np.asarray(data[()]).reshape(1)
        count = len(range(*rows.indices(len(data))))
        self.pay(count * int(np.prod(data.shape[1:], dtype=object)) * data.dtype.itemsize)
        return data[rows]

    def pay(self, size: int) -> None:
        """Count ``size`` bytes that were taken from the file; raises DatasetError at its limit."""
        self._budget -= size
        if self._budget < 0:
            raise DatasetError("declares more data than it can hold", _FIX, self.path)


class NewFile:
    """An HDF5 file to write. A full disk raises DatasetError instead of crashing HDF5."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._disk = JournaledFile(path, "x+")
        self.root = h5py.File(self._disk, "w")

    def flush(self) -> None:
        """Write everything so far; raises DatasetError where the disk refuses."""
        self.root.flush()
        self._require_written()

    def close(self) -> None:
        """Close it; raises DatasetError where the disk refused something."""
        self.root.close()
        self._disk.close()
        self._require_written()

    def _require_written(self) -> None:
        error = self._disk.error
        if error is not None:
            raise DatasetError(
                f"cannot be written ({error.strerror or error})",
                "free space or choose another place",
                self._path,
            ) from error


def store(group: h5py.Group, name: str, rows: np.ndarray) -> h5py.Dataset:
    """Store rows; images (4 dimensions) with one frame per chunk.

    200 random reads of frames took 9 ms so, and 3.7 s with gzip and automatic chunks, which is
    what robomimic's own tools write (measured, docs/data_format.md).
    """
    chunks: Any = (1,) + rows.shape[1:] if rows.ndim == 4 and rows.size else None
    return group.create_dataset(name, data=rows, chunks=chunks)
