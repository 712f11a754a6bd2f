"""Read pickled numpy arrays and plain containers without running anything that the file names.

numpy's own loader of object arrays runs whatever the file asks for. Here a pickle can build
numbers, text, bytes, lists, tuples, dicts and numpy arrays and scalars, and nothing else: no name
is imported, no callable of the file's choice is called, no declared size is believed. Memory and
time stay in proportion to the size of the file, here and in code that walks through the result.
"""

from __future__ import annotations

import mmap
import pickle
import struct
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterable, Tuple

import numpy as np

from ofrl_robot.data.convert.pickle_values import (
    ADMITTED,
    CALLABLE,
    MAX_LENGTH,
    SCALAR_TYPES,
    DtypeState,
    Refusal,
    set_array_state,
)
from ofrl_robot.errors import DatasetError, HostilePickleError

_NUMPY_MAGIC = b"\x93NUMPY"
_MAX_OBJECT_ARRAYS = 1000  # freeing arrays that hold arrays that hold ... uses the C stack
_MAX_GROWTH = 16  # built bytes per byte of file: a file can refer to one big value many times
_FREE = 2**20  # bytes that even the smallest file may build
_OVERHEAD = 48  # bytes that a container, a memo entry or a mark takes, at the least
_MAX_DEPTH = 100
_DATA = frozenset(
    (type(None), bool, int, float, str, bytes, bytearray, list, tuple, dict, np.ndarray)
)
_FIX = "nothing was executed; do not open this file with np.load or pickle"


def load_npy_objects(path: Path) -> Any:
    """Return the object stored in ``path``: an object array saved as .npy, or a plain pickle.

    Raises:
        HostilePickleError: the pickle asks for anything but numpy arrays and plain containers.
        DatasetError: the file is damaged, or is something else.
    """
    if path.exists() and not path.is_file():  # opening a FIFO would wait for ever
        raise DatasetError("is not a regular file", "check the path", path)
    try:
        with open(path, "rb") as file:
            head = file.read(len(_NUMPY_MAGIC))
            if head[:1] == b"\x80":
                return _load(file, 0, path)
            if head != _NUMPY_MAGIC:
                raise DatasetError(
                    "is neither an .npy file nor a binary pickle", "check the path", path
                )
            file.seek(0)
            shape = _header_shape(file, path)
            array = _load(file, file.tell(), path)
            if not (isinstance(array, np.ndarray) and array.shape == shape):
                raise DatasetError(
                    "has a header and data that disagree", "get the file again", path
                )
            return array
    except OSError as error:
        raise DatasetError(error.strerror or str(error), "check the path", path) from error


def _header_shape(file: BinaryIO, path: Path) -> Tuple[int, ...]:
    """Read a .npy header and return its shape. Raise DatasetError unless it declares objects."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    except Exception as error:  # numpy's parser of a damaged header raises anything
        raise DatasetError(
            f"has a damaged .npy header ({type(error).__name__})", "get the file again", path
        ) from error
    if dtype != np.dtype(object):
        raise DatasetError(
            f"holds a plain array of {dtype}, not pickled objects", "check the path", path
        )
    return shape


def _load(file: BinaryIO, offset: int, path: Path) -> Any:
    # A memory map cannot be read beyond its end, nor does reading allocate more than there is.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.seek(offset)
        try:
            value = _Unpickler(data).load()
            _require_small_tree(value, len(data))
            return value
        except Refusal as refusal:
            raise HostilePickleError(
                f"the pickle {refusal}; only numpy arrays and plain containers are allowed",
                _FIX,
                path,
            ) from None
        except Exception as error:  # a damaged pickle can fail in any way, memory included
            text = f"{type(error).__name__} {ascii(str(error)):.80}"
            raise DatasetError(
                f"is a truncated or damaged pickle ({text})", "get the file again", path
            ) from error


def _require_small_tree(value: Any, size: int) -> None:
    """Refuse a value that is small in memory but endless, or huge, for code that walks through it.

    Examples are a list that contains itself, and a list of ten times the same list of ten times
    the same list: nine levels of that are a billion entries. A value is refused as well if it
    contains names that only the pickle machine needs (functions, dtypes under construction).

    Args:
        value: the unpickled value.
        size: bytes of the file. Every entry that is stored once takes a byte or more.

    Raises:
        ValueError: the value is endless, huge, or nested too deep.
        Refusal: it contains something that is not data.
    """
    if not _is_container(value):
        _require_data(value)
        return
    entries: Dict[int, int] = {}  # finished containers: number of entries in all
    depths: Dict[int, int] = {}
    open_ones = set()
    path = [(value, False)]
    while path:
        container, inside_done = path.pop()
        key = id(container)
        if key in entries:
            continue
        children = [child for child in _children(container) if _is_container(child)]
        if not inside_done:
            for child in _children(container):
                _require_data(child)
            open_ones.add(key)
            path.append((container, True))
            if any(id(child) in open_ones for child in children):
                raise ValueError("a container holds itself")
            path.extend((child, False) for child in children if id(child) not in entries)
            continue
        open_ones.discard(key)
        entries[key] = len(container) + sum(entries[id(child)] for child in children)
        depths[key] = 1 + max((depths[id(child)] for child in children), default=0)
        if entries[key] > _MAX_GROWTH * size + _FREE or depths[key] > _MAX_DEPTH:
            raise ValueError("one value is referred to far too often, or nested too deep")


def _require_data(value: Any) -> None:
    kind = type(value)
    if kind in _DATA or isinstance(value, np.generic) or (kind is type and value in SCALAR_TYPES):
        return
    raise Refusal(f"holds a {kind.__name__}")


def _is_container(value: Any) -> bool:
    if type(value) is np.ndarray:
        return bool(value.dtype.hasobject)
    return type(value) in (list, tuple, dict)


def _children(container: Any) -> Iterable[Any]:
    if type(container) is dict:
        return container.values()
    if type(container) is np.ndarray:
        return container.flat if container.dtype.hasobject else ()
    return container if type(container) in (list, tuple) else ()


# Python's own unpickler in Python, not the one in C: the C one allocates a memo as long as the
# largest index that the file declares, and calls any callable on its stack. Here the opcodes are
# a table, so an opcode that is not in it cannot run. About 1 s for 30 MB.
class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
    def __init__(self, data: mmap.mmap) -> None:
        super().__init__(data)
        self._budget = _MAX_GROWTH * len(data) + _FREE
        self._object_arrays = 0

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise Refusal(f"names {ascii(f'{module}.{name}')[1:-1]:.80}") from None

    def _refuse(self) -> None:
        raise Refusal("uses an opcode for objects, extensions or text forms of values")

    def _inst(self) -> None:
        module, name = self.readline()[:-1], self.readline()[:-1]
        self.find_class(module.decode("ascii"), name.decode("ascii"))
        self._refuse()

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not any(function is admitted for admitted in CALLABLE):
            raise Refusal(f"calls a {type(function).__name__}")
        self.stack[-1] = function(*arguments)
        self._spend(self.stack[-1])

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is DtypeState:
            target.set_state(state)
        elif type(target) is np.ndarray:
            set_array_state(target, state)
            self._spend(target)
        else:
            raise Refusal(f"sets the state of a {type(target).__name__}")

    def _spend(self, made: Any) -> None:
        self._object_arrays += type(made) is np.ndarray and made.dtype.hasobject
        if self._object_arrays > _MAX_OBJECT_ARRAYS:
            raise ValueError("too many arrays of objects")
        self._pay(len(made) if type(made) is bytes else getattr(made, "nbytes", 0))

    def _pay(self, size: int = 0) -> None:
        self._budget -= _OVERHEAD + size
        if self._budget < 0:
            raise ValueError("far more data than the file can hold")

    def _extend(self, items: Any) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError(f"append to a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self.pop_mark())

    def _update(self, items: Any) -> None:
        target, keys = self.stack[-1], items[::2]
        # only plain keys: hashing a tuple nested a million deep overflows the C stack
        if type(target) is not dict or not all(type(key) in (str, int, bool) for key in keys):
            raise ValueError("not a dict with plain keys")
        self._pay(_OVERHEAD * len(keys))
        target.update(zip(keys, items[1::2]))

    def _set_item(self) -> None:
        value = self.stack.pop()
        self._update([self.stack.pop(), value])

    def _set_items(self) -> None:
        self._update(self.pop_mark())

    def _bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(min(length, MAX_LENGTH))))


_Load = Callable[[_Unpickler], None]


def _paid(load: _Load) -> _Load:
    """Return ``load`` that pays: its opcode of a byte or two makes an object of 50 bytes."""

    def paid(unpickler: _Unpickler) -> None:
        unpickler._pay()
        load(unpickler)

    return paid


_TABLE = pickle._Unpickler.dispatch  # type: ignore[attr-defined]
_HARMLESS = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.POP, pickle.POP_MARK,
    pickle.BINGET, pickle.LONG_BINGET, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.NONE,
    pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2,
    pickle.LONG1, pickle.LONG4, pickle.BINFLOAT, pickle.SHORT_BINBYTES, pickle.BINBYTES,
    pickle.BINBYTES8, pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8,
    pickle.EMPTY_TUPLE,
)  # fmt: skip
_COSTLY = (
    pickle.MARK, pickle.MEMOIZE, pickle.BINPUT, pickle.LONG_BINPUT, pickle.EMPTY_LIST,
    pickle.EMPTY_DICT, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
)  # fmt: skip
_Unpickler.dispatch = {
    **dict.fromkeys(_TABLE, _Unpickler._refuse),
    **{code[0]: _TABLE[code[0]] for code in _HARMLESS},
    **{code[0]: _paid(_TABLE[code[0]]) for code in _COSTLY},
    pickle.INST[0]: _Unpickler._inst,
    pickle.REDUCE[0]: _Unpickler._reduce,
    pickle.BUILD[0]: _Unpickler._build,
    pickle.APPEND[0]: _Unpickler._append,
    pickle.APPENDS[0]: _Unpickler._appends,
    pickle.SETITEM[0]: _Unpickler._set_item,
    pickle.SETITEMS[0]: _Unpickler._set_items,
    pickle.BYTEARRAY8[0]: _paid(_Unpickler._bytearray8),
}
