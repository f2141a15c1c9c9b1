"""What stands in for numpy: it takes bytes and a type of values, and gives arrays of numbers, text or objects."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.sources.pickled.standins import Damaged, Refused, Standin, not_made, shown

_KINDS = re.compile(r"f[248]|[iu][1248]|b1|[US]\d{1,9}|O\d?")
_DATES = re.compile(r"[mM]8")


class Dtype(Standin):
    """Stands in for numpy.dtype: a type of value and, from its state, the byte order. Dates are whole numbers."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any = None, *_: object) -> None:
        name = name.decode("latin1") if isinstance(name, bytes) else name
        if not isinstance(name, str) or not (_KINDS.fullmatch(name) or _DATES.fullmatch(name)):
            raise Refused(f"holds an array of something else than numbers, text and objects ({shown(name)})")
        name = "O" if name[0] == "O" else name
        self.dtype: np.dtype[Any] = np.dtype("i8" if _DATES.fullmatch(name) else name)

    def build(self, state: Any, /) -> Dtype:
        """Return the same type in the state's byte order."""
        # The one in the memo may be built again.
        self.dtype = self.dtype.newbyteorder(">" if state[1] in (">", b">") else "<")
        return self


class Array(Standin):
    """Stands in for a numpy.ndarray that has no content yet."""

    __slots__ = ()

    def __init__(self, *_: object) -> None:
        pass

    def build(self, state: Any, /) -> NDArray[Any]:
        """Return the array of a state: version, shape, dtype, whether in Fortran's order, and the values."""
        shape, dtype, fortran, data = state[-4:]
        return _array(shape, dtype, "F" if fortran is True or fortran == 1 else "C", data)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C", *_: object) -> NDArray[Any]:
    return _array(shape, dtype, order, data)


def _array(shape: Any, dtype: Any, order: Any, data: Any) -> NDArray[Any]:
    shape = (shape,) if isinstance(shape, int) else shape
    if not isinstance(dtype, Dtype) or order not in ("C", "F") or not _is_shape(shape):
        raise Damaged("holds a damaged array")
    if dtype.dtype.kind == "O":
        flat, order = _objects(data), "C"  # also those of Fortran's order are listed so
    else:
        flat = np.frombuffer(_content(data), dtype.dtype)
    if flat.dtype.kind == "U" and (flat.view(np.dtype("u4").newbyteorder(flat.dtype.byteorder)) > sys.maxunicode).any():
        raise Damaged("holds damaged text")
    if flat.size != math.prod(shape):
        raise Damaged(f"holds an array with {flat.size:,} values for the shape {shape!s:.60}")
    return flat.reshape(shape, order=order)


def _objects(values: Any) -> NDArray[Any]:
    if not isinstance(values, list):
        raise Damaged("holds a damaged array")
    # numpy frees one inside of the other by recursion, without an end to it.
    if any(isinstance(one, np.ndarray) and one.dtype.hasobject for one in values):
        raise Refused("holds an array of objects in another one")
    return np.fromiter(values, dtype=object, count=len(values))


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= 64
        and all(isinstance(one, int) and 0 <= one < 2**48 for one in shape)
    )


def _content(data: Any) -> bytes:
    if isinstance(data, str):
        # Python 2 pickled bytes as text.
        return data.encode("latin1")
    if not isinstance(data, bytes):
        raise Damaged("holds a damaged array")
    return data


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, Dtype) or dtype.dtype.kind == "O":
        raise Refused("holds an object as a scalar")
    return np.frombuffer(_content(data), dtype.dtype, count=1)[0].item()


def _to_bytes(text: Any, encoding: Any = "latin1") -> bytes:
    # How protocols before 3 write bytes: _codecs.encode(text, "latin1").
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"encodes text as {shown(encoding)}")
    return _content(text)


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    return _to_bytes(text, encoding)


NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): Dtype,
    ("numpy", "ndarray"): not_made,
    ("_codecs", "encode"): _to_bytes,
}
for _builtins in ("builtins", "__builtin__"):
    NAMES[_builtins, "bytes"] = NAMES[_builtins, "bytearray"] = _bytes
for _core in ("numpy.core", "numpy._core"):
    NAMES[f"{_core}.multiarray", "_reconstruct"] = Array
    NAMES[f"{_core}.multiarray", "scalar"] = _scalar
    NAMES[f"{_core}.numeric", "_frombuffer"] = _from_buffer
