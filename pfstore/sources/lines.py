"""Lines of a stream as they come, for those who must not wait for further ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Protocol, cast

CHUNK = 2**20
"""Bytes read at once, where so many are there."""

MOST_LINES = 32


class _Available(Protocol):
    def read1(self, size: int, /) -> bytes: ...


def lines_as_they_come(stream: IO[bytes], most: int = MOST_LINES) -> Iterator[list[bytes]]:
    """Yield the lines that have arrived, at most so many at once and never none; waits only where there is none."""
    # What a buffered stream has without waiting, or else what one read gives.
    available = cast(_Available, stream)
    begun: list[bytes] = []
    while chunk := available.read1(CHUNK):
        head, newline, rest = chunk.rpartition(b"\n")
        if newline:
            lines = b"".join((*begun, head)).split(b"\n")
            begun = []
            for start in range(0, len(lines), most):
                yield lines[start : start + most]
        if rest:
            begun.append(rest)
    if begun:
        yield [b"".join(begun)]
