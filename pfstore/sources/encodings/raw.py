"""Raw numbers in bytes, decoded at the speed of memory where all values have the same length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pfstore.features import Floats
from pfstore.sources.base import Reason
from pfstore.sources.encodings.values import MAX_VALUES, BlockLeaf, Undecodable, as_bytes, to_float32

_PLAIN = {
    f"float{bits}-{order}": f"{sign}f{bits // 8}" for bits in (16, 32, 64) for order, sign in (("le", "<"), ("be", ">"))
}
NAMES = tuple(_PLAIN)
"""float16-le … float64-be."""


@dataclass(frozen=True)
class Raw:
    """Numbers of a numpy type one after the other, after `offset` bytes that mean nothing here."""

    dtype: np.dtype[Any]
    offset: int = 0

    def decode(self, value: Any) -> Floats:
        """Return the numbers [D] of one value. Raises Undecodable."""
        data = as_bytes(value)
        _check_length(len(data), self.offset, self.dtype.itemsize)
        return to_float32(np.frombuffer(data, dtype=self.dtype, offset=self.offset))

    def decode_block(self, values: Sequence[bytes]) -> Floats | None:
        """Return [n, D] for n values of one length, None where that length is not right."""
        try:
            _check_length(len(values[0]), self.offset, self.dtype.itemsize)
        except Undecodable:
            return None
        table = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), -1)
        return to_float32(table[:, self.offset :].view(self.dtype))


_ARRAY_HEADER = 20  # int32: dimensions, whether it has NULLs, type of the elements, length, lower bound


@dataclass(frozen=True)
class SentArray:
    """What PostgreSQL's array_send gives for float4[] and float8[]: a header, then each number after its length.

    dtype: of one entry: "length" and "value", big-endian.
    """

    dtype: np.dtype[Any]

    def decode(self, value: Any) -> Floats:
        """Return the numbers [D] of one value. Raises Undecodable."""
        data = as_bytes(value)
        self._check_header(data)
        _check_length(len(data), _ARRAY_HEADER, self.dtype.itemsize)
        return to_float32(np.frombuffer(data, dtype=self.dtype, offset=_ARRAY_HEADER)["value"])

    def decode_block(self, values: Sequence[bytes]) -> Floats | None:
        """Return [n, D] for n values of one length, None where their headers differ or are not as they should."""
        try:
            self._check_header(values[0])
            _check_length(len(values[0]), _ARRAY_HEADER, self.dtype.itemsize)
        except Undecodable:
            return None
        table = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), -1)
        if (table[:, :_ARRAY_HEADER] != table[0, :_ARRAY_HEADER]).any():
            return None
        return to_float32(table[:, _ARRAY_HEADER:].view(self.dtype)["value"])

    def _check_header(self, data: bytes) -> None:
        dimensions = int.from_bytes(data[:4], "big")
        if dimensions == 0:
            raise Undecodable("no values", Reason.EMPTY)
        if dimensions != 1:
            raise Undecodable(f"{dimensions} dimensions instead of a list of numbers")
        if int.from_bytes(data[4:8], "big"):
            raise Undecodable("NULL among the values")


def raw(name: str, offset: int = 0) -> Raw:
    """Return the leaf of a name in NAMES."""
    return Raw(np.dtype(_PLAIN[name]), offset)


def sent(type_name: str) -> BlockLeaf:
    """Return what decodes the sent form of PostgreSQL's vector, halfvec, _float4 or _float8 (the arrays)."""
    # vector_send and halfvec_send: int16 count, int16 zero, the numbers.
    if type_name in ("vector", "halfvec"):
        return raw("float32-be" if type_name == "vector" else "float16-be", 4)
    number = {"_float4": ">f4", "_float8": ">f8"}[type_name]
    return SentArray(np.dtype([("length", ">i4"), ("value", number)]))


def _check_length(length: int, offset: int, item: int) -> None:
    if length == offset:
        raise Undecodable("no values", Reason.EMPTY)
    if length < offset:
        raise Undecodable(f"{length} bytes, shorter than its offset of {offset}")
    if (length - offset) % item:
        raise Undecodable(f"{length - offset} bytes are no multiple of {item}: cut off, or another encoding")
    if (length - offset) // item > MAX_VALUES:
        raise Undecodable(f"{(length - offset) // item} values, more than {MAX_VALUES}")
