"""Pickled features, read without running them.

What a pickle may ask for by name is answered by the stand-ins below. They take bytes and a type of number and give
numbers; no function of numpy or of anyone else is ever called because a pickle says so.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.features import Floats
from pfstore.sources.encodings.values import Undecodable, as_bytes, check_shape, numbers

_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


class Pickle:
    """A pickled numpy array of shape [D] or [1, D], or a list of numbers; everything else is refused."""

    def decode(self, value: Any) -> Floats:
        """Return the numbers [D] of one value. Raises Undecodable, without having run any of it."""
        stream = io.BytesIO(as_bytes(value))
        try:
            found = _Unpickler(stream, encoding="latin1").load()
            if isinstance(found, _Array):
                return numbers(found.numbers())
        except Undecodable:
            raise
        except Exception as error:  # a damaged pickle may raise anything at all
            raise Undecodable(f"not a pickle of numbers ({type(error).__name__})") from None
        if isinstance(found, list | tuple):
            return numbers(found)
        raise Undecodable(f"a pickled {type(found).__name__} instead of numbers")


class _Dtype:
    """Stands in for numpy.dtype: a type of number and, from its state, the byte order."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in _NUMBERS:
            raise Undecodable("a pickled array of something else than numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


class _Array:
    """Stands in for numpy.ndarray: a shape and the bytes of its numbers."""

    def __init__(self) -> None:
        self._content: tuple[Any, _Dtype, Any] | None = None

    def __setstate__(self, state: tuple[Any, Any, _Dtype, Any, Any]) -> None:
        _, shape, dtype, _, data = state
        self._content = shape, dtype, data

    def numbers(self) -> NDArray[Any]:
        """Return the array [D]. Raises Undecodable where it has another shape."""
        if self._content is None:
            raise Undecodable("a pickled array without content")
        shape, dtype, data = self._content
        shape = (shape,) if isinstance(shape, int) else shape
        check_shape(shape)
        # Python 2 pickled bytes as text.
        content = data.encode("latin1") if isinstance(data, str) else data
        array = np.frombuffer(content, dtype=dtype.dtype)
        if array.size != math.prod(shape):
            raise Undecodable(f"{array.size} pickled numbers for the shape {shape}")
        return array


def _new_array(*_: object) -> _Array:
    return _Array()


def _array_from_buffer(data: Any, dtype: _Dtype, shape: Any, *_: object) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, False, data))
    return array


def _scalar(dtype: _Dtype, data: Any) -> float:
    content = data.encode("latin1") if isinstance(data, str) else data
    return float(np.frombuffer(content, dtype=dtype.dtype, count=1)[0])


def _to_bytes(text: str, _: str = "latin1") -> bytes:
    # How protocols before 3 write bytes: _codecs.encode(text, "latin1").
    return text.encode("latin1")


def _not_called(*_: object) -> None:
    raise Undecodable("a pickle of something else than numbers")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _not_called,
    ("_codecs", "encode"): _to_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _new_array
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _array_from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise Undecodable(f"a pickle that asks for {module}.{name}"[:100])
        # A pickle can set attributes of what it finds: a partial is a fresh object, so nothing of ours changes.
        return partial(_ALLOWED[module, name])
