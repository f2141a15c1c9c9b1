"""Reads a pickle's instructions, of all protocols, and does what is harmless: values, lists, and names on a list.

This is not Python's unpickler, which calls whatever it is told to, whose memo can be made to take any amount of memory
by a single instruction, and which hands out registered extensions unasked.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from pfstore.sources.pickled.standins import Damaged, Name, Refused, Standin, Unreadable

_FLOATS = re.compile(rb"(?:G.{8}){8,}", re.DOTALL)
_FLOAT = np.dtype([("instruction", "u1"), ("value", ">f8")])
_BAD_ESCAPE = re.compile(rb"""\\(?!['"abfnrtv]|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|[0-7]{1,2}(?![0-7]))""")
_U1, _U2, _U4, _U8, _I4, _F8 = map(struct.Struct, ("<B", "<H", "<I", "<Q", "<i", ">d"))

_FREE = 2**17
"""Lists that even the smallest pickle may hold."""

_MOST_ARGUMENTS = 32

_LAST_PLACE = 2**32 - 1
"""The last place of the memo that all protocols can name: of larger numbers the hashes could all collide."""

_WIDEST_KEY = 60  # bits: more, and whole numbers could be chosen whose hashes all collide


class Machine:
    """Reads one pickle. find: gives what stands in for a module and a name, or raises Refused.

    Memory stays within a few dozen times the pickle's size, and time with it: lists and the like may be about a
    quarter as many as bytes, and what stand-ins look at and make of the same values again and again is counted.
    """

    def __init__(self, data: bytes, find: Callable[[str, str], Name]) -> None:
        self._data = data
        self._find = find
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._unfinished: dict[int, list[int]] = {}  # by a stand-in's id, the places in the memo that hold it
        self._most = _FREE + len(data) // 4
        self._lists = 0
        self._made = 0

    def run(self) -> Any:
        """Return the value. Raises Unreadable."""
        try:
            self._run()
            return self._stack.pop()
        except Unreadable:
            raise
        except Exception as error:  # instructions in a senseless order fail in any way, here or in a stand-in
            raise Damaged(f"damaged or cut off at byte {self._at:,} ({type(error).__name__})") from None

    def _run(self) -> None:
        data = self._data
        while True:
            code = data[self._at]
            self._at += 1
            if code == _STOP:
                return
            step = _STEPS.get(code)
            if step is None:
                raise self._unknown(code)
            step(self)

    def _unknown(self, code: int) -> Unreadable:
        if code in _NOT_DONE:
            return Refused(f"asks for {_NOT_DONE[code]}")
        return Damaged(f"no pickle: 0x{code:02x} at byte {self._at - 1:,} is no instruction")

    # What follows an instruction.

    def _number(self, kind: struct.Struct) -> Any:
        (value,) = kind.unpack_from(self._data, self._at)
        self._at += kind.size
        return value

    def _bytes(self, kind: struct.Struct) -> bytes:
        start, length = self._at + kind.size, self._number(kind)
        if not 0 <= length <= len(self._data) - start:
            raise Damaged(f"cut off: {length:,} bytes announced at byte {self._at:,}")
        self._at = start + length
        return self._data[start : self._at]

    def _line(self) -> bytes:
        start, end = self._at, self._data.index(b"\n", self._at)
        self._at = end + 1
        return self._data[start:end].rstrip(b"\r")

    # The stack and the memo.

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _push_list(self, value: list[Any] | dict[Any, Any] | tuple[Any, ...]) -> None:
        self._lists += 1
        if self._lists > self._most:
            raise Refused("holds more lists than values")
        self._stack.append(value)

    def _push_made(self, value: Any) -> None:
        self._count(value.nbytes if isinstance(value, np.ndarray) else _length(value))
        self._stack.append(value)

    def _count(self, size: int) -> None:
        self._made += size
        if self._made > 16 * (len(self._data) + _FREE):
            raise Refused("makes the same values over and over")

    def _pop_to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise IndexError
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _discard(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop(1)

    def _put(self, place: int) -> None:
        if not 0 <= place <= _LAST_PLACE:
            raise IndexError
        value = self._stack[-1]
        self._memo[place] = value
        if len(self._memo) > self._most:
            raise Refused("remembers more than it holds")
        if isinstance(value, Standin):
            self._unfinished.setdefault(id(value), []).append(place)

    # Instructions of more than a line.

    def _floats(self) -> None:
        run = _FLOATS.match(self._data, self._at - 1)
        if run is None:
            self._stack.append(self._number(_F8))
            return
        self._at = run.end()
        self._stack.extend(np.frombuffer(run.group(), _FLOAT)["value"].tolist())

    def _text_int(self) -> None:
        line = self._line()
        self._push(line == b"01" if line in (b"00", b"01") else int(line))

    def _string(self) -> None:
        line = self._line()
        quote, text = line[:1], line[1:-1]
        if len(line) < 2 or quote not in (b"'", b'"') or line[-1:] != quote:
            raise ValueError
        if _BAD_ESCAPE.search(text.replace(rb"\\", b"--")):
            raise ValueError
        self._push(text.decode("unicode_escape"))

    def _name(self) -> None:
        module, name = self._pop(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError
        self._push(self._find(module, name))

    def _text_name(self) -> None:
        self._push(self._find(self._line().decode(), self._line().decode()))

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise TypeError
        target.extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise TypeError
        target.update(_dict(values))

    def _make(self) -> None:
        name, arguments = self._pop(2)
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise Refused(f"calls a {type(name).__name__}")
        if len(arguments) > _MOST_ARGUMENTS:
            raise Refused(f"calls {name.text} with {len(arguments):,} values")
        self._count(sum(map(_length, arguments)))
        self._push_made(name.make(*arguments))

    def _build(self) -> None:
        target, state = self._pop(2)
        if not isinstance(target, Standin):
            raise Refused(f"sets the state of a {type(target).__name__}")
        self._count(_length(state))
        built = target.build(state)
        for place in self._unfinished.pop(id(target), ()):
            if self._memo.get(place) is target:
                self._memo[place] = built
        self._push_made(built)


_SIZED = frozenset({bytes, str, list, tuple, dict})


def _length(value: Any) -> int:
    return len(value) if type(value) in _SIZED else 0


def _dict(values: list[Any]) -> dict[Any, Any]:
    keys = values[::2]
    for key in keys:
        if not (isinstance(key, str | bytes) or (isinstance(key, int) and key.bit_length() <= _WIDEST_KEY)):
            raise Refused(f"has a key of type {type(key).__name__} in a dict, or too large a number")
    return dict(zip(keys, values[1::2], strict=True))


def _to_int(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


_STOP = ord(".")

_STEPS: dict[int, Callable[[Machine], Any]] = {
    0x80: lambda m: m._number(_U1),  # the protocol, which changes no instruction's meaning
    0x95: lambda m: m._number(_U8),  # a frame's length, which matters to those who read from a pipe
    ord("N"): lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    ord("I"): Machine._text_int,
    ord("L"): lambda m: m._push(int(m._line().rstrip(b"L"))),
    ord("K"): lambda m: m._push(m._number(_U1)),
    ord("M"): lambda m: m._push(m._number(_U2)),
    ord("J"): lambda m: m._push(m._number(_I4)),
    0x8A: lambda m: m._push(_to_int(m._bytes(_U1))),
    ord("F"): lambda m: m._push(float(m._line())),
    ord("G"): Machine._floats,
    # Python 2 wrote bytes as text, and text as numpy's bytes: both are those of latin1.
    ord("S"): Machine._string,
    ord("U"): lambda m: m._push(m._bytes(_U1).decode("latin1")),
    ord("T"): lambda m: m._push(m._bytes(_I4).decode("latin1")),
    ord("V"): lambda m: m._push(m._line().decode("raw_unicode_escape")),
    0x8C: lambda m: m._push(_utf8(m._bytes(_U1))),
    ord("X"): lambda m: m._push(_utf8(m._bytes(_U4))),
    0x8D: lambda m: m._push(_utf8(m._bytes(_U8))),
    ord("C"): lambda m: m._push(m._bytes(_U1)),
    ord("B"): lambda m: m._push(m._bytes(_U4)),
    0x8E: lambda m: m._push(m._bytes(_U8)),
    0x96: lambda m: m._push(m._bytes(_U8)),
    ord("]"): lambda m: m._push_list([]),
    ord("}"): lambda m: m._push_list({}),
    ord(")"): lambda m: m._push(()),
    ord("l"): lambda m: m._push_list(m._pop_to_mark()),
    ord("d"): lambda m: m._push_list(_dict(m._pop_to_mark())),
    ord("t"): lambda m: m._push_list(tuple(m._pop_to_mark())),
    0x85: lambda m: m._push_list(tuple(m._pop(1))),
    0x86: lambda m: m._push_list(tuple(m._pop(2))),
    0x87: lambda m: m._push_list(tuple(m._pop(3))),
    ord("a"): lambda m: m._append(m._pop(1)),
    ord("e"): lambda m: m._append(m._pop_to_mark()),
    ord("s"): lambda m: m._set(m._pop(2)),
    ord("u"): lambda m: m._set(m._pop_to_mark()),
    ord("("): lambda m: m._marks.append(len(m._stack)),
    ord("0"): Machine._discard,
    ord("1"): Machine._pop_to_mark,
    ord("2"): lambda m: m._push(m._stack[-1]),
    ord("p"): lambda m: m._put(int(m._line())),
    ord("q"): lambda m: m._put(m._number(_U1)),
    ord("r"): lambda m: m._put(m._number(_U4)),
    0x94: lambda m: m._put(len(m._memo)),
    ord("g"): lambda m: m._push(m._memo[int(m._line())]),
    ord("h"): lambda m: m._push(m._memo[m._number(_U1)]),
    ord("j"): lambda m: m._push(m._memo[m._number(_U4)]),
    ord("c"): Machine._text_name,
    0x93: Machine._name,
    ord("R"): Machine._make,
    0x81: Machine._make,
    ord("b"): Machine._build,
}

_NOT_DONE = {
    **dict.fromkeys(b"PQ", "an object outside of it, by a persistent id"),
    **dict.fromkeys(b"\x82\x83\x84", "an object by the code of an extension"),
    **dict.fromkeys(b"io", "an instance of a class of Python 2"),
    **dict.fromkeys(b"\x8f\x90\x91", "a set"),
    **dict.fromkeys(b"\x97\x98", "a buffer outside of it"),
    0x8B: "a whole number of more than 255 bytes",
    0x92: "an object made with keywords",
}
