"""What all encodings share: limits, the one exception, and single values as bytes, text or numbers."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import orjson
from numpy.typing import NDArray

from pfstore.features import Floats
from pfstore.sources.base import Reason

MAX_BYTES = 1 << 20
"""The largest encoded or unpacked value; 16,000 numbers fit in it in every encoding."""

MAX_VALUES = 16_000
"""The most numbers of one feature: what a pgvector column can have."""


class Undecodable(Exception):  # noqa: N818 - it says what the value is; nothing went wrong here
    """A value is no feature: the reason (EMPTY or UNDECODABLE) and what is wrong in a few words."""

    def __init__(self, detail: str, reason: Reason = Reason.UNDECODABLE) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Leaf(Protocol):
    """The innermost part of an encoding: gives the numbers of one value."""

    def decode(self, value: Any) -> Floats:
        """Return the numbers [D] of a value that is not empty. Raises Undecodable."""
        ...


@runtime_checkable
class BlockLeaf(Leaf, Protocol):
    """A leaf that decodes many values of the same length at once."""

    def decode_block(self, values: Sequence[bytes]) -> Floats | None:
        """Return [n, D] for n values of one length, None where they must be looked at one by one."""
        ...


def check_present(value: Any) -> None:
    """Raise Undecodable where a value is a placeholder or larger than any feature."""
    if value is None:
        raise Undecodable("NULL", Reason.EMPTY)
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        limit, unit = MAX_BYTES, "characters" if isinstance(value, str) else "bytes"
    elif isinstance(value, (list, tuple, dict, np.ndarray)):
        limit, unit = MAX_VALUES, "values"
    else:
        return
    if len(value) == 0:
        raise Undecodable("no values", Reason.EMPTY)
    if len(value) > limit:
        raise Undecodable(f"{len(value)} {unit}, more than {limit}")


def as_bytes(value: Any) -> bytes:
    """Return a binary value. Raises Undecodable where it is something else."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        raise Undecodable("text, not bytes: is it hex+ or base64+?")
    raise Undecodable(f"{type(value).__name__}, not bytes")


def as_text(value: Any) -> str:
    """Return a text or a binary value of UTF-8. Raises Undecodable where it is something else."""
    if isinstance(value, str):
        return value
    try:
        return as_bytes(value).decode()
    except UnicodeDecodeError:
        raise Undecodable("not UTF-8 text") from None


def numbers(values: Sequence[Any] | NDArray[Any]) -> Floats:
    """Return a list of numbers or numeric strings as [D] float32; too large ones become infinite.

    Raises Undecodable where something else is in it, or nothing, or too much.
    """
    if isinstance(values, (list, tuple)) and (plain := plain_numbers(values)) is not None:
        return plain
    check_present(values)
    if isinstance(values, list | tuple):
        # To numpy None is a number, "not a number".
        if any(value is None for value in values):
            raise Undecodable("null among the values")
        if set(map(type, values)) == {str}:
            written = written_numbers(",".join(values))
            if written is not None and written.size == len(values):
                return written
    try:
        array = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise Undecodable("not all values are numbers") from None
    if array.ndim != 1:
        raise Undecodable(f"{array.ndim} dimensions instead of a list of numbers")
    return to_float32(array)


def plain_numbers(values: Sequence[Any]) -> Floats | None:
    """Return Python numbers as [D] float32, as numbers does but faster; None where it has to look more closely."""
    if not 0 < len(values) <= MAX_VALUES:
        return None
    try:
        return np.frombuffer(_packer(len(values)).pack(*values), dtype=np.float32)
    except (struct.error, OverflowError):
        return None


@lru_cache
def _packer(count: int) -> struct.Struct:
    return struct.Struct(f"{count}f")


def written_numbers(text: str) -> Floats | None:
    """Return numbers with commas between them as [D] float32; None where JSON might read them in another way."""
    # A letter each of true and false, which are numbers to Python.
    if "u" in text or "s" in text:
        return None
    try:
        plain = plain_numbers(orjson.loads(f"[{text}]"))
    except orjson.JSONDecodeError:
        return None
    # What has become 0 may be written -0, from which JSON drops the sign.
    return plain if plain is not None and plain.all() else None


def check_shape(shape: Sequence[int]) -> None:
    """Raise Undecodable where an array of this shape is not one feature, [D] or [1, D]."""
    size = math.prod(shape)
    if size == 0:
        raise Undecodable("no values", Reason.EMPTY)
    if not (len(shape) == 1 or (len(shape) == 2 and shape[0] == 1)):
        raise Undecodable(f"an array of shape {tuple(shape)} instead of one feature")
    if size > MAX_VALUES:
        raise Undecodable(f"{size} values, more than {MAX_VALUES}")


def to_float32(array: NDArray[Any]) -> Floats:
    """Cast without a warning: what is too large becomes infinite and is rejected as such."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32, copy=False)
