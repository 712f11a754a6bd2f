"""Read and write named arrays in one file, .hdf5 or .npz, some rows at a time."""

from __future__ import annotations

import math
import shutil
import zipfile
from pathlib import Path
from typing import IO, Any, Dict, NamedTuple, Tuple, Union

import numpy as np

from ofrl_robot.data.convert.closing import close_on_error
from ofrl_robot.data.convert.hdf5 import ForeignFile, NewFile
from ofrl_robot.data.convert.trajectory import trajectory_error
from ofrl_robot.errors import DatasetError

NPZ = ".npz"
_MAX_GROWTH = 1100  # bytes read per byte of file; deflate reaches 1032
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Hdf5Table:
    """Arrays of an HDF5 file.

    Attributes:
        shapes: shape of each array by its name.
    """

    def __init__(self, path: Path) -> None:
        self._file = ForeignFile(path)
        with close_on_error(self._file):
            self._data = self._file.datasets(self._file.root)
        self.shapes = {name: data.shape or (1,) for name, data in self._data.items()}

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Return these rows of an array."""
        return self._file.read(self._data[name], rows)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Member(NamedTuple):
    """An array in an .npz that is being read."""

    dtype: np.dtype
    stream: IO[bytes]
    data_start: int  # position in the stream, after the header


class NpzTable:
    """Arrays of an .npz, read forwards as they are asked for; none is in memory whole.

    Attributes:
        shapes: shape of each array by its name.

    Raises:
        DatasetError: the file is not an .npz, or holds Python objects, which are pickles.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists() and not path.is_file():  # opening a FIFO would wait for ever
            raise DatasetError("is not a regular file", "check the path", path)
        try:
            self._archive = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise DatasetError("does not exist", "check the path", path) from error
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(f"is not an .npz file ({error})", "check the path", path) from error
        self.shapes: Dict[str, Tuple[int, ...]] = {}
        self._members: Dict[str, _Member] = {}
        with close_on_error(self):
            for info in self._archive.infolist():
                if info.filename.endswith(".npy"):
                    self._open(info)

    def _open(self, info: zipfile.ZipInfo) -> None:
        name = info.filename[: -len(".npy")]
        try:
            stream = self._archive.open(info)
            read_header = _HEADERS[np.lib.format.read_magic(stream)]
            shape, fortran_order, dtype = read_header(stream)
        except Exception as error:  # a damaged header makes numpy raise anything
            raise trajectory_error(f"{info.filename} cannot be read", self._path) from error
        if dtype.hasobject:
            raise DatasetError(
                f"{name} holds Python objects", "save it as a plain numpy array", self._path
            )
        if fortran_order and len(shape) > 1:
            raise DatasetError(
                f"{name} is in Fortran order", "save np.ascontiguousarray of it", self._path
            )
        size = dtype.itemsize * math.prod(shape)
        if size > info.file_size or info.file_size > _MAX_GROWTH * self._path.stat().st_size:
            raise trajectory_error(f"{name} declares more data than it can hold", self._path)
        self.shapes[name] = shape or (1,)
        self._members[name] = _Member(dtype, stream, stream.tell())

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Return these rows of an array."""
        member, shape = self._members[name], self.shapes[name]
        first, end, _ = rows.indices(shape[0])
        row_bytes = member.dtype.itemsize * math.prod(shape[1:])
        member.stream.seek(member.data_start + first * row_bytes)
        data = member.stream.read((end - first) * row_bytes)
        return np.frombuffer(data, member.dtype).reshape((end - first,) + shape[1:])

    def close(self) -> None:
        """Close the file."""
        for member in self._members.values():
            member.stream.close()
        self._archive.close()


class NewHdf5Table:
    """Arrays that grow by rows, in a new HDF5 file."""

    def __init__(self, path: Path) -> None:
        self._file = NewFile(path)

    def append(self, name: str, rows: np.ndarray) -> None:
        """Append rows to an array; the first call creates it."""
        root = self._file.root
        if name in root:
            data = root[name]
            data.resize(len(data) + len(rows), axis=0)
            data[-len(rows) :] = rows
            return
        shape = rows.shape[1:]
        chunks: Any = (1 if rows.ndim == 4 else 256,) + shape
        root.create_dataset(
            name, data=rows, maxshape=(None,) + shape, chunks=chunks if rows.size else True
        )

    def flush(self) -> None:
        """Write everything so far. Raise OSError when the disk refuses."""
        self._file.flush()

    def finish(self) -> None:
        """Do nothing: the arrays are already in the file."""

    def close(self) -> None:
        """Close the file. Raise OSError when the disk refused something."""
        self._file.close()


class _NewMember(NamedTuple):
    """An array that is being written to an .npz."""

    rows_file: IO[bytes]
    dtype: np.dtype
    row_shape: Tuple[int, ...]
    length: int


class NewNpzTable:
    """Arrays that grow by rows, in files beside ``path`` until :meth:`finish` joins them there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: Dict[str, _NewMember] = {}

    def append(self, name: str, rows: np.ndarray) -> None:
        """Append rows to an array; the first call creates it."""
        member = self._members.get(name)
        if member is None:
            file = self._path.parent / f"{len(self._members)}.rows"
            rows_file = open(file, "w+b")  # noqa: SIM115 (closed in close)
            member = _NewMember(rows_file, rows.dtype, rows.shape[1:], 0)
        member.rows_file.write(np.ascontiguousarray(rows).tobytes())
        self._members[name] = member._replace(length=member.length + len(rows))

    def flush(self) -> None:
        """Do nothing: a write that the disk refuses raises by itself."""

    def finish(self) -> None:
        """Join the arrays in one file."""
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED) as archive:
            for name, member in self._members.items():
                header = {
                    "descr": np.lib.format.dtype_to_descr(member.dtype),
                    "fortran_order": False,
                    "shape": (member.length,) + member.row_shape,
                }
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array_header_1_0(stream, header)
                    member.rows_file.seek(0)
                    shutil.copyfileobj(member.rows_file, stream, 2**20)

    def close(self) -> None:
        """Close the files of the rows."""
        for member in self._members.values():
            member.rows_file.close()


Table = Union[Hdf5Table, NpzTable]
NewTable = Union[NewHdf5Table, NewNpzTable]


def open_table(path: Path) -> Table:
    """Open the arrays in ``path``; the suffix says how. Raise DatasetError for other files."""
    return NpzTable(path) if path.suffix == NPZ else Hdf5Table(path)


def new_table(path: Path) -> NewTable:
    """Return a table to write to ``path``; the suffix says how."""
    return NewNpzTable(path) if path.suffix == NPZ else NewHdf5Table(path)
