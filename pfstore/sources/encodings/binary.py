"""Features inside of binary containers: numpy's .npy and protobuf messages."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pfstore.features import Floats
from pfstore.sources.arrays import npy_header
from pfstore.sources.base import Reason
from pfstore.sources.encodings.values import MAX_VALUES, Undecodable, as_bytes, check_shape, to_float32

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Npy:
    """One feature as numpy.save writes it: numbers of shape [D] or [1, D]. No object in it is ever unpickled."""

    def decode(self, value: Any) -> Floats:
        """Return the numbers [D] of one value. Raises Undecodable."""
        stream = io.BytesIO(as_bytes(value))
        shape, dtype = _npy_header(stream)
        if dtype.kind not in "fiu":
            raise Undecodable(f"an array of {dtype} instead of numbers")
        check_shape(shape)
        # The length decides, not the header: memory is taken for what is there.
        data = stream.read()
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise Undecodable(f"{len(data)} bytes of numbers for the shape {shape}")
        return to_float32(np.frombuffer(data, dtype=dtype))


@dataclass(frozen=True)
class Protobuf:
    """The repeated double or float field of a message, packed or not. dtype: "<f8" or "<f4"."""

    field: int
    dtype: np.dtype[Any]

    def decode(self, value: Any) -> Floats:
        """Return the numbers [D] of one value. Raises Undecodable."""
        single = _FIXED64 if self.dtype.itemsize == 8 else _FIXED32
        parts = []
        for field, wire, payload in _fields(as_bytes(value)):
            if field != self.field:
                continue
            if wire not in (single, _BYTES) or len(payload) % self.dtype.itemsize:
                raise Undecodable(f"field {field} is not of type {'double' if single == _FIXED64 else 'float'}")
            parts.append(payload)
        data = b"".join(parts)
        if not data:
            raise Undecodable(f"no values in field {self.field}", Reason.EMPTY)
        if len(data) // self.dtype.itemsize > MAX_VALUES:
            raise Undecodable(f"{len(data) // self.dtype.itemsize} values, more than {MAX_VALUES}")
        return to_float32(np.frombuffer(data, dtype=self.dtype))


def _npy_header(stream: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        shape, _, dtype = npy_header(stream)
    except ValueError:
        raise Undecodable("not an .npy file") from None
    return shape, dtype


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the number, wire type and payload of each field of a protobuf message."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, end = _varint(data, position)
        elif wire == _BYTES:
            length, position = _varint(data, position)
            end = position + length
        elif wire in (_FIXED64, _FIXED32):
            end = position + (8 if wire == _FIXED64 else 4)
        else:
            raise Undecodable("not a protobuf message")
        if field == 0 or end > len(data):
            raise Undecodable("not a protobuf message, or cut off")
        yield field, wire, data[position:end]
        position = end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the variable-length integer at a position (at most 10 bytes) and the position after it."""
    value = 0
    for shift, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, position + shift + 1
    raise Undecodable("not a protobuf message, or cut off")
