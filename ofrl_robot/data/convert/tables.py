"""Named arrays in one file, .hdf5 or .npz alike: read in parts, written by appending rows."""

from __future__ import annotations

import math
import shutil
import zipfile
from pathlib import Path
from typing import Any, Dict, Union

import numpy as np

from ofrl_robot.data.convert.hdf5 import ForeignFile, NewFile
from ofrl_robot.data.convert.trajectory import bad
from ofrl_robot.errors import DatasetError

NPZ = ".npz"
_MAX_GROWTH = 1100  # bytes read per byte of file; deflate reaches 1032


class Hdf5Table:
    """Arrays of an HDF5 file by name. ``shapes``: their shapes."""

    def __init__(self, path: Path) -> None:
        self._file = ForeignFile(path)
        try:
            self._data = self._file.datasets(self._file.root)
        except BaseException:
            self._file.close()
            raise
        self.shapes = {name: data.shape or (1,) for name, data in self._data.items()}

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        return self._file.read(self._data[name], rows)

    def close(self) -> None:
        self._file.close()


class NpzTable:
    """Arrays of an .npz by name, read forwards as they are asked for: none lies in memory whole.

    Raises DatasetError where it is no .npz, or holds Python objects, which would be pickled.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(str(path))
        except FileNotFoundError as error:
            raise DatasetError("no such file", "check the path", path) from error
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(f"no .npz file ({error})", "check the path", path) from error
        self.shapes = {}
        self._members: Dict[str, Any] = {}  # by name: dtype, stream, where its data start
        try:
            for info in self._archive.infolist():
                if info.filename.endswith(".npy"):
                    self._open(info)
        except BaseException:
            self.close()
            raise

    def _open(self, info: zipfile.ZipInfo) -> None:
        name = info.filename[: -len(".npy")]
        try:
            stream = self._archive.open(info)
            version = np.lib.format.read_magic(stream)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, by_columns, dtype = header(stream)
        except Exception as error:  # a damaged header makes numpy raise nearly anything
            raise bad(f"{info.filename} is unreadable", self._path) from error
        if dtype.hasobject:
            raise DatasetError(
                f"{name} holds Python objects", "only plain arrays are read", self._path
            )
        if by_columns and len(shape) > 1:
            raise DatasetError(
                f"{name} is stored by columns", "save np.ascontiguousarray of it",
                self._path,
            )  # fmt: skip
        size = dtype.itemsize * math.prod(shape)
        if size > info.file_size or info.file_size > _MAX_GROWTH * self._path.stat().st_size:
            raise bad(f"{name} declares more data than it can hold", self._path)
        self.shapes[name] = shape or (1,)
        self._members[name] = dtype, stream, stream.tell()

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        dtype, stream, start = self._members[name]
        shape = self.shapes[name]
        first, end, _ = rows.indices(shape[0])
        row_bytes = dtype.itemsize * math.prod(shape[1:])
        stream.seek(start + first * row_bytes)
        data = stream.read((end - first) * row_bytes)
        return np.frombuffer(data, dtype).reshape((end - first,) + shape[1:])

    def close(self) -> None:
        for _, stream, _ in self._members.values():
            stream.close()
        self._archive.close()


class NewHdf5Table:
    """Arrays that grow by rows, in an HDF5 file."""

    def __init__(self, path: Path) -> None:
        self._file = NewFile(path)

    def append(self, name: str, rows: np.ndarray) -> None:
        root = self._file.root
        if name in root:
            data = root[name]
            data.resize(len(data) + len(rows), axis=0)
            data[-len(rows) :] = rows
            return
        chunks: Any = (1 if rows.ndim == 4 else 256,) + rows.shape[1:]
        root.create_dataset(
            name, data=rows, maxshape=(None,) + rows.shape[1:],
            chunks=chunks if rows.size else True,
        )  # fmt: skip

    def flush(self) -> None:
        self._file.flush()

    def finish(self) -> None:
        """Nothing to do: the arrays are in their place."""

    def close(self) -> None:
        self._file.close()


class NewNpzTable:
    """Arrays that grow by rows, in files beside ``path`` until they are put together there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._arrays: Dict[str, Any] = {}  # by name: file, dtype, shape of a row, rows

    def append(self, name: str, rows: np.ndarray) -> None:
        file, dtype, shape, count = self._arrays.get(name, (None, rows.dtype, rows.shape[1:], 0))
        if file is None:
            scratch = self._path.parent / f"{len(self._arrays)}.rows"
            file = open(str(scratch), "w+b")  # noqa: SIM115 (closed in close)
        file.write(np.ascontiguousarray(rows).tobytes())
        self._arrays[name] = file, dtype, shape, count + len(rows)

    def flush(self) -> None:
        """Nothing to do: what the disk refuses is raised by the write itself."""

    def finish(self) -> None:
        """Put the arrays together."""
        with zipfile.ZipFile(str(self._path), "w", zipfile.ZIP_STORED) as archive:
            for name, (file, dtype, shape, count) in self._arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    header = {
                        "descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False,
                        "shape": (count,) + shape,
                    }  # fmt: skip
                    np.lib.format.write_array_header_1_0(member, header)
                    file.seek(0)
                    shutil.copyfileobj(file, member, 2**20)

    def close(self) -> None:
        for file, _, _, _ in self._arrays.values():
            file.close()


Table = Union[Hdf5Table, NpzTable]
NewTable = Union[NewHdf5Table, NewNpzTable]


def open_table(path: Path) -> Table:
    """The arrays in ``path``, by its suffix. Raises DatasetError where it is no such file."""
    return NpzTable(path) if path.suffix == NPZ else Hdf5Table(path)


def new_table(path: Path) -> NewTable:
    """Arrays to write to ``path``, by its suffix."""
    return NewNpzTable(path) if path.suffix == NPZ else NewHdf5Table(path)
