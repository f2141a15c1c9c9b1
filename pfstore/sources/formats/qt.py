"""Reads what Qt's QDataStream wrote: big-endian numbers, text in UTF-16, and values that name their type.

The layout is that of Qt 4.8 to 6, which differ in the order of a map, in what follows an invalid value and in the
number that says that a type's name follows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_U32, _I32 = struct.Struct(">I"), struct.Struct(">i")
_NULL = 0xFFFFFFFF
_OLD_USER = (127, 1024)  # of Qt 4 and 5: the type's name follows, and no value that Qt cannot write by itself
_USER = 65536  # of Qt 6: the type's name follows, and the value
_DEEPEST = 16

_FIXED = {
    7: 2,  # QChar
    19: 16,  # QRect
    20: 32,  # QRectF
    21: 8,  # QSize
    22: 16,  # QSizeF
    23: 16,  # QLine
    24: 32,  # QLineF
    25: 8,  # QPoint
    26: 16,  # QPointF
}
"""Bytes of the types of values that nobody looks at."""

_NUMBERS = {
    1: ">?",
    2: ">i",
    3: ">I",
    4: ">q",
    5: ">Q",
    6: ">d",
    32: ">q",
    33: ">h",
    34: ">b",
    35: ">Q",
    36: ">H",
    37: ">B",
    38: ">d",  # a float, which QDataStream writes as a double
}


class Broken(Exception):  # noqa: N818 - it says what the bytes are; nothing went wrong here
    """The bytes are not what should be there; the message says what is there and at which byte."""


class QtReader:
    """Reads one thing after another. at: the next byte. users: by name, what reads a value of a type of one's own."""

    def __init__(self, data: NDArray[np.uint8], users: Mapping[str, Callable[[QtReader], object]]) -> None:
        self._data = data.data
        self._users = users
        self.at = 0

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.at >= len(self._data)

    def skip(self, size: int, what: str) -> int:
        """Go past so many bytes and return where they start. Raises Broken where there are not so many."""
        start, left = self.at, len(self._data) - self.at
        if not 0 <= size <= left:
            raise Broken(f"{what} of {size:,} bytes at byte {start:,}, where {left:,} are left")
        self.at = start + size
        return start

    def u32(self, what: str) -> int:
        """Return a quint32. Raises Broken."""
        (value,) = _U32.unpack_from(self._data, self.skip(4, what))
        return int(value)

    def i32(self, what: str) -> int:
        """Return a qint32. Raises Broken."""
        (value,) = _I32.unpack_from(self._data, self.skip(4, what))
        return int(value)

    def count(self, smallest: int, what: str) -> int:
        """Return a number of elements of at least so many bytes each. Raises Broken where they cannot be there."""
        start, count = self.at, self.u32(what)
        if count * smallest > len(self._data) - self.at:
            raise Broken(f"{count:,} {what} at byte {start:,}, where {len(self._data) - self.at:,} bytes are left")
        return count

    def text(self) -> str:
        """Return a QString, "" where it is null. Raises Broken."""
        start, data = self.at, self._bytes("a text")
        if len(data) % 2:
            raise Broken(f"a text of {len(data):,} bytes at byte {start:,}, which UTF-16 cannot have")
        return data.decode("utf-16-be", "surrogatepass")

    def map(self, depth: int = 0) -> dict[str, Any]:
        """Return a QVariantMap; values that nobody looks at are None. Raises Broken."""
        return {self.text(): self.variant(depth) for _ in range(self.count(9, "entries"))}

    def variant(self, depth: int = 0) -> Any:
        """Return a QVariant's number, truth value, text, list or map; None for the types that nobody looks at."""
        start, kind = self.at, self.u32("a value")
        self.skip(1, "a value")  # whether it is null, which changes nothing of what follows
        if depth > _DEEPEST:
            raise Broken(f"values within values at byte {start:,}, deeper than {_DEEPEST}")
        if kind in _NUMBERS:
            layout = _NUMBERS[kind]
            return struct.unpack_from(layout, self._data, self.skip(struct.calcsize(layout), "a number"))[0]
        if kind in _FIXED:
            self.skip(_FIXED[kind], "a value")
            return None
        if kind == _USER or kind in _OLD_USER:
            return self._user(kind, start)
        return self._composed(kind, depth, start)

    def _composed(self, kind: int, depth: int, start: int) -> Any:
        if kind == 0:
            self._pass_null()
            return None
        if kind in (8, 28):  # QVariantMap, QVariantHash
            return self.map(depth + 1)
        if kind == 9:  # QVariantList
            return [self.variant(depth + 1) for _ in range(self.count(5, "values"))]
        if kind == 10:  # QString
            return self.text()
        if kind == 11:  # QStringList
            return [self.text() for _ in range(self.count(4, "texts"))]
        if kind == 12:  # QByteArray
            return self._bytes("a value")
        raise Broken(f"a value of Qt's type {kind} at byte {start:,}, which is not read")

    def _user(self, kind: int, start: int) -> Any:
        name = self._bytes("a type's name").rstrip(b"\0").decode("latin1")
        if name not in self._users:
            raise Broken(f"a value of type {name[:60]!r} at byte {start:,}, which is not read")
        return self._users[name](self) if kind == _USER else None

    def _pass_null(self) -> None:
        # Qt 4 writes a null text after an invalid value; nothing else may start so.
        if bytes(self._data[self.at : self.at + 4]) == b"\xff\xff\xff\xff":
            self.at += 4

    def _bytes(self, what: str) -> bytes:
        size = self.u32(what)
        if size == _NULL:
            return b""
        start = self.skip(size, what)
        return bytes(self._data[start : self.at])
