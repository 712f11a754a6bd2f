"""Read HDF5 files of unknown origin, and write new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import h5py
import numpy as np

from ofrl_robot.data.convert.closing import close_on_error
from ofrl_robot.data.episodes.hdf5_safety import require_own_data, require_own_links
from ofrl_robot.data.episodes.journal import JournaledFile
from ofrl_robot.errors import DatasetError

_MAX_GROWTH = 1100  # bytes read per byte of file; gzip reaches 1032
_FREE = 2**26  # bytes that may be read of even the smallest file
_LINK_BYTES = 64
_FIX = "do not trust this file"


class ForeignFile:
    """An HDF5 file of unknown origin, open for reading.

    Nothing outside the file is read: links, external storage and virtual datasets can name any
    file of this computer. No more is read than the file can hold: a few bytes can declare
    terabytes.

    Raises:
        DatasetError: the file cannot be opened, or is refused for one of these reasons.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_file():  # opening a FIFO would wait for ever
            raise DatasetError("is not a regular file", "check the path", path)
        try:
            self.root = h5py.File(path, "r")
            self._budget = _FREE + _MAX_GROWTH * path.stat().st_size
        except OSError as error:
            what = "truncated, or not an HDF5 file" if path.is_file() else "no such file"
            if isinstance(error, PermissionError):
                what = "not readable"
            raise DatasetError(what, "check the path", path) from error
        with close_on_error(self):
            require_own_links(self.root, self.path)

    def close(self) -> None:
        """Close the file."""
        self.root.close()

    def group(self, name: str) -> h5py.Group:
        """Return a group by its path. Raise DatasetError if there is none."""
        found = self.root.get(name)
        if not isinstance(found, h5py.Group):
            raise DatasetError(f"no group {name}", "check the path", self.path)
        return found

    def datasets(self, group: h5py.Group, prefix: str = "") -> Dict[str, h5py.Dataset]:
        """Return all datasets below ``group`` by their path in it."""
        found: Dict[str, h5py.Dataset] = {}
        for name, item in group.items():
            self.pay(_LINK_BYTES)  # groups that contain each other would take for ever
            if isinstance(item, h5py.Dataset):
                found[prefix + name] = item
            elif isinstance(item, h5py.Group):
                found.update(self.datasets(item, f"{prefix}{name}/"))
        return found

    def read(self, data: h5py.Dataset, rows: slice = slice(None)) -> np.ndarray:
        """Return ``data[rows]``; a scalar as an array of one row."""
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
        """Count ``size`` bytes read from the file. Raise DatasetError beyond its limit."""
        self._budget -= size
        if self._budget < 0:
            raise DatasetError("declares more data than it can hold", _FIX, self.path)


class NewFile:
    """A new HDF5 file. A full disk raises OSError instead of crashing HDF5."""

    def __init__(self, path: Path) -> None:
        self._disk = JournaledFile(path, "x+")
        self.root = h5py.File(self._disk, "w")

    def flush(self) -> None:
        """Write everything so far. Raise OSError when the disk refuses."""
        self.root.flush()
        self._require_written()

    def close(self) -> None:
        """Close the file. Raise OSError when the disk refused something."""
        self.root.close()
        self._disk.close()
        self._require_written()

    def _require_written(self) -> None:
        error = self._disk.error
        if error is not None:
            raise error


def store(group: h5py.Group, name: str, rows: np.ndarray) -> h5py.Dataset:
    """Store rows as a dataset; images (4 dimensions) with one frame per chunk.

    With one frame per chunk 200 random reads of frames took 9 ms. With gzip and automatic chunks,
    as robomimic's own tools write, they took 3.7 s (measured, docs/data_format.md).
    """
    chunks: Any = (1,) + rows.shape[1:] if rows.ndim == 4 and rows.size else None
    return group.create_dataset(name, data=rows, chunks=chunks)
