"""Build the values that a pickle may contain, with no more trust than needed.

Only numbers, text, bytes and numpy arrays and scalars can be built. No declared size is believed:
data must fill its declared shape exactly before numpy allocates anything. ``ADMITTED`` is the list
of names that a pickle may use, ``CALLABLE`` the list of functions that it may call.
"""

from __future__ import annotations

import math
import re
from typing import Any, Callable, Dict, Tuple

import numpy as np

_DTYPE_CODE = re.compile(r"b1|[iu][1248]|f[248]|c(8|16)|O8?|[SU]\d{1,6}")
_SCALARS = (
    "bool_",
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)
_MAX_DIMENSIONS = 32
MAX_LENGTH = 2**31 - 1  # of one axis, and of one bytearray


class Refusal(Exception):
    """A request of a pickle that is refused; the text completes the sentence "the pickle ..."."""


class DtypeState:
    """A dtype under construction: pickles name its code first and its byte order later.

    It stands for ``np.dtype``, whose ``__setstate__`` takes flags from the file, with which raw
    bytes can be declared to be object pointers.
    """

    __slots__ = ("_dtype",)

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not (type(code) is str and _DTYPE_CODE.fullmatch(code)):
            raise Refusal(f"asks for dtype {_shown(code)}")
        self._dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        """Set the byte order. Raise Refusal for structured and unusual dtypes."""
        version, order, subdtype, names, fields = state[:5]
        if version not in (3, 4) or order not in ("<", ">", "|", "="):
            raise Refusal("asks for an unusual dtype")
        if not (subdtype is None and names is None and fields is None):
            raise Refusal("asks for a structured dtype")
        if order in ("<", ">"):
            self._dtype = self._dtype.newbyteorder(order)

    @staticmethod
    def of(value: Any) -> np.dtype:
        """Return the finished dtype. Raise Refusal if ``value`` is something else."""
        if type(value) is not DtypeState:
            raise Refusal(f"passes a {type(value).__name__} for a dtype")
        return value._dtype


def _shown(value: Any) -> str:
    """Return text for a message; only the type of a container, whose text may be endless."""
    return ascii(value[:40]) if type(value) is str else f"of type {type(value).__name__}"


def _count(shape: Any) -> int:
    """Return the number of elements of a declared shape. Raise ValueError if it is not one."""
    if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("not a shape")
    if not all(type(n) is int and 0 <= n <= MAX_LENGTH for n in shape):
        raise ValueError("not a shape")
    return math.prod(shape)


def _check_data(dtype: np.dtype, shape: Any, data: Any) -> None:
    """Raise ValueError unless data fills ``shape`` exactly, before numpy allocates anything."""
    kinds = (list,) if dtype.hasobject else (bytes, bytearray)
    length = _count(shape) * (1 if dtype.hasobject else dtype.itemsize)
    if type(data) not in kinds or len(data) != length:
        raise ValueError("array data does not fill its declared shape")


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> np.ndarray:
    if subtype is not np.ndarray:  # a subclass could run its own code
        raise Refusal("asks for an array subclass")
    return np.empty(0, np.int8)


def set_array_state(array: np.ndarray, state: Any) -> None:
    """Fill an array that ``_reconstruct`` made. Raise ValueError if it does not fit or is full."""
    _, shape, dtype_state, fortran, data = state if len(state) == 5 else (1,) + state
    dtype = DtypeState.of(dtype_state)
    _check_data(dtype, shape, data)
    if array.shape != (0,) or array.dtype != np.int8:
        raise ValueError("array set twice")
    # the stubs ask for numpy's bool; numpy itself takes Python's
    array.__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]


def _scalar(dtype_state: Any, data: Any) -> Any:
    dtype = DtypeState.of(dtype_state)
    if dtype.hasobject:
        raise Refusal("asks for an object scalar")
    _check_data(dtype, (1,), data)
    return np.frombuffer(data, dtype)[0]


def _from_buffer(data: Any, dtype_state: Any, shape: Any, order: Any) -> np.ndarray:
    """Build an array; protocol 5 uses this instead of ``_reconstruct``."""
    dtype = DtypeState.of(dtype_state)
    if dtype.hasobject or order not in ("C", "F"):
        raise Refusal("asks for an unusual array")
    _check_data(dtype, shape, data)
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes from text, as protocol 2 stores them; other codecs might run code."""
    if type(text) is not str or encoding != "latin1":
        raise Refusal(f"asks for codec {_shown(encoding)}")
    return text.encode("latin-1")


def _empty_bytes() -> bytes:
    return b""


# What a pickle may name. Only the functions can be called; the types are inert values.
ADMITTED: Dict[Tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): DtypeState,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2
    ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    ADMITTED[f"{_core}.multiarray", "scalar"] = _scalar
    ADMITTED[f"{_core}.numeric", "_frombuffer"] = _from_buffer
ADMITTED.update({("numpy", name): np.dtype(name.rstrip("_")).type for name in _SCALARS})
SCALAR_TYPES = frozenset(ADMITTED["numpy", name] for name in _SCALARS)
CALLABLE: Tuple[Callable[..., Any], ...] = (
    DtypeState,
    _reconstruct,
    _scalar,
    _from_buffer,
    _encode,
    _empty_bytes,
)
