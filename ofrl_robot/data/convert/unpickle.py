"""Reads pickled numpy arrays and plain containers without giving the file any power.

numpy's own loader of object arrays runs whatever the file asks for. Here a pickle can build
numbers, text, bytes, lists, tuples, dicts and numpy arrays and scalars, and nothing else: no name
is imported, no callable of the file's choice is called, no declared size is believed. Memory and
time stay in proportion to the size of the file, here and in whoever walks through what was read.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterable, Tuple

import numpy as np

from ofrl_robot.errors import DatasetError, HostilePickleError

_NUMPY_MAGIC = b"\x93NUMPY"
_DTYPE_CODE = re.compile(r"b1|[iu][1248]|f[248]|c(8|16)|O8?|[SU]\d{1,6}")
_SCALARS = ("bool_", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
            "uint64", "float16", "float32", "float64", "complex64", "complex128")  # fmt: skip
_MAX_DIMENSIONS, _MAX_LENGTH = 32, 2**31 - 1
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
    """The object stored in ``path``: an object array saved as .npy, or a plain pickle.

    Raises HostilePickleError naming what the pickle asks for when that is anything but numpy
    arrays and plain containers, DatasetError when the file is damaged or something else.
    """
    try:
        with open(str(path), "rb") as file:
            head = file.read(len(_NUMPY_MAGIC))
            if head[:1] == b"\x80":
                return _load(file, 0, path)
            if head != _NUMPY_MAGIC:
                raise DatasetError("no .npy file and no binary pickle", "check the path", path)
            file.seek(0)
            shape = _header_shape(file, path)
            array = _load(file, file.tell(), path)
            if not (isinstance(array, np.ndarray) and array.shape == shape):
                raise DatasetError("its header and its data disagree", "get the file again", path)
            return array
    except OSError as error:
        raise DatasetError(error.strerror or str(error), "check the path", path) from error


def _header_shape(file: BinaryIO, path: Path) -> Tuple[int, ...]:
    """Read a .npy header; returns the shape it declares. Refuses all but object arrays."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    except Exception as error:  # numpy's parser of a damaged header raises nearly anything
        raise DatasetError(
            f"damaged .npy header ({type(error).__name__})", "get the file again", path
        ) from error
    if dtype != np.dtype(object):
        raise DatasetError(
            f"holds a plain array of {dtype}, not pickled objects", "check the path", path
        )
    return shape


def _load(file: BinaryIO, offset: int, path: Path) -> Any:
    # A map, because reading from it can neither pass the end nor allocate what is not there.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.seek(offset)
        try:
            value = _Unpickler(data).load()
            _require_small_tree(value, len(data))
            return value
        except _Refusal as refusal:
            raise HostilePickleError(
                f"the pickle {refusal}, which is no numpy array or plain container",
                _FIX,
                path,
            ) from None
        except Exception as error:  # a damaged pickle can fail in any way, memory included
            raise DatasetError(
                f"truncated or damaged pickle ({type(error).__name__} {ascii(str(error)):.80})",
                "get the file again",
                path,
            ) from error


def _require_small_tree(value: Any, size: int) -> None:
    """Refuse what is small in memory but without end, or far too much, to whoever walks through it.

    Such is a list that holds itself, and a list of ten times the same list of ten times the same
    list: nine levels of that are a billion entries. Raises ValueError.

    Names that the pickle machine needs (functions, dtypes under construction) are no data: a
    pickle that leaves one in its value is refused, too.

    Args:
        size: of the file; in one that refers to nothing twice every entry takes a byte or more.
    """
    if not _is_container(value):
        _require_data(value)
        return
    entries: Dict[int, int] = {}  # containers that are done: how many entries in all
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
    if kind in _DATA or isinstance(value, np.generic) or (kind is type and value in _SCALAR_TYPES):
        return
    raise _Refusal(f"holds a {kind.__name__}")


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


class _Refusal(Exception):
    """The pickle asks for something that is not admitted; text says what."""


class _DtypeState:
    """A dtype under construction: pickles name its code first and its byte order later.

    Not ``np.dtype`` itself: its ``__setstate__`` takes flags from the file, with which raw bytes
    can be passed off as object pointers.
    """

    __slots__ = ("_dtype",)

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not (type(code) is str and _DTYPE_CODE.fullmatch(code)):
            raise _Refusal(f"asks for dtype {_shown(code)}")
        self._dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        version, order, subdtype, names, fields = state[:5]
        if version not in (3, 4) or order not in ("<", ">", "|", "="):
            raise _Refusal("asks for an unusual dtype")
        if not (subdtype is None and names is None and fields is None):
            raise _Refusal("asks for a structured dtype")
        if order in ("<", ">"):
            self._dtype = self._dtype.newbyteorder(order)

    @staticmethod
    def of(value: Any) -> np.dtype:
        if type(value) is not _DtypeState:
            raise _Refusal(f"passes a {type(value).__name__} for a dtype")
        return value._dtype


def _shown(value: Any) -> str:
    """Text for a message; of a container the type only, since its text may be without end."""
    return ascii(value[:40]) if type(value) is str else f"of type {type(value).__name__}"


def _count(shape: Any) -> int:
    """Number of elements of a declared shape, which may be nonsense."""
    if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("not a shape")
    if not all(type(n) is int and 0 <= n <= _MAX_LENGTH for n in shape):
        raise ValueError("not a shape")
    return math.prod(shape)


def _check_data(dtype: np.dtype, shape: Any, data: Any) -> None:
    """Refuse data that does not fill ``shape`` exactly, before numpy allocates anything."""
    kinds = (list,) if dtype.hasobject else (bytes, bytearray)
    length = _count(shape) * (1 if dtype.hasobject else dtype.itemsize)
    if type(data) not in kinds or len(data) != length:
        raise ValueError("array data does not fill its declared shape")


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> np.ndarray:
    if subtype is not np.ndarray:  # a subclass could run its own code
        raise _Refusal("asks for an array subclass")
    return np.empty(0, np.int8)


def _set_array_state(array: np.ndarray, state: Any) -> None:
    _, shape, dtype_state, fortran, data = state if len(state) == 5 else (1,) + state
    dtype = _DtypeState.of(dtype_state)
    _check_data(dtype, shape, data)
    if array.shape != (0,) or array.dtype != np.int8:
        raise ValueError("array set twice")
    array.__setstate__((1, shape, dtype, bool(fortran), data))


def _scalar(dtype_state: Any, data: Any) -> Any:
    dtype = _DtypeState.of(dtype_state)
    if dtype.hasobject:
        raise _Refusal("asks for an object scalar")
    _check_data(dtype, (1,), data)
    return np.frombuffer(data, dtype)[0]


def _from_buffer(data: Any, dtype_state: Any, shape: Any, order: Any) -> np.ndarray:
    """What protocol 5 uses instead of ``_reconstruct``."""
    dtype = _DtypeState.of(dtype_state)
    if dtype.hasobject or order not in ("C", "F"):
        raise _Refusal("asks for an unusual array")
    _check_data(dtype, shape, data)
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes; any other codec might do more than encode."""
    if type(text) is not str or encoding != "latin1":
        raise _Refusal(f"asks for codec {_shown(encoding)}")
    return text.encode("latin-1")


def _empty_bytes() -> bytes:
    return b""


# What a pickle may name. Only the functions can be called; the types are inert values.
_ADMITTED: Dict[Tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _DtypeState,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _scalar
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _from_buffer
_ADMITTED.update({("numpy", name): np.dtype(name.rstrip("_")).type for name in _SCALARS})
_SCALAR_TYPES = frozenset(_ADMITTED["numpy", name] for name in _SCALARS)
_CALLABLE: Tuple[Callable[..., Any], ...] = (
    _DtypeState, _reconstruct, _scalar, _from_buffer, _encode, _empty_bytes,
)  # fmt: skip


# The unpickler written in Python, not the C one: that one allocates a memo as long as the
# largest index the file declares, and calls any callable that comes to lie on its stack. Here
# the opcodes are a table, so what is not in it cannot happen. About 1 s for 30 MB.
class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
    def __init__(self, data: mmap.mmap) -> None:
        super().__init__(data)
        self._budget = _MAX_GROWTH * len(data) + _FREE
        self._object_arrays = 0

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _Refusal(f"names {ascii(f'{module}.{name}')[1:-1]:.80}") from None

    def _refuse(self) -> None:
        raise _Refusal("uses an opcode for objects, extensions or text forms of values")

    def _inst(self) -> None:
        module, name = self.readline()[:-1], self.readline()[:-1]
        self.find_class(module.decode("ascii"), name.decode("ascii"))
        self._refuse()

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not any(function is admitted for admitted in _CALLABLE):
            raise _Refusal(f"calls a {type(function).__name__}")
        self.stack[-1] = function(*arguments)
        self._spend(self.stack[-1])

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is _DtypeState:
            target.set_state(state)
        elif type(target) is np.ndarray:
            _set_array_state(target, state)
            self._spend(target)
        else:
            raise _Refusal(f"sets the state of a {type(target).__name__}")

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
        self.append(bytearray(self.read(min(length, _MAX_LENGTH))))


_Load = Callable[[_Unpickler], None]


def _paid(load: _Load) -> _Load:
    """``load`` of an opcode of a byte or two that makes an object of 50 bytes or more."""

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
