"""The highest non-mated scores with the subjects they belong to, which a bootstrap over subjects must know.

All comparisons cannot be kept, so samples of them are: of each the CAPACITY highest keys. The first sample is all
comparisons, each next one a quarter of the one before, down to one that is kept whole; together they reach from the
highest score to the lowest, complete at the top and ever thinner below. Which comparisons a sample has is told by
hashes of the two samples' ids, so it does not depend on order or blocks.

Only intervals rest on this, and thinning makes them wider, never narrower: where m comparisons of a sample tell a rate
(at least CAPACITY / 8), its replicates vary by another sqrt(3 / m) of it, at most 1.4 %.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.comparing import FLOOR, Keys

Hashes: TypeAlias = NDArray[np.uint32]
Codes: TypeAlias = NDArray[np.int32]
Locate: TypeAlias = Callable[[NDArray[np.intp]], tuple[Codes, Codes]]

CAPACITY = 2**17
RATE_BITS = 2
MOST_LEVELS = 12


@dataclass(frozen=True)
class Tail:
    """Comparisons of one sample. keys: [n] int32, falling. references, probes: [n] int32, the subjects' codes.

    least: whatever the sample has from this key on is here.
    """

    keys: Keys
    references: Codes
    probes: Codes
    least: int


class Tails:
    """Collects the tails of comparisons that come in blocks. expected: how many there will be."""

    def __init__(self, expected: int) -> None:
        levels = 1
        while levels < MOST_LEVELS and expected >> (RATE_BITS * (levels - 1)) > CAPACITY // 2:
            levels += 1
        self._levels = [_Level(whole=number == levels - 1) for number in range(levels)]

    def offer(self, keys: Keys, hashes: Hashes, locate: Locate) -> None:
        """Add a block. keys: [n] int32. hashes: [n] uint32. locate: tells the codes of comparisons by their place."""
        places: NDArray[np.intp] | None = None
        for number, level in enumerate(self._levels):
            if number == 0:
                level.add(keys, np.flatnonzero(keys >= level.least), locate)
                continue
            bound = np.uint32(2 ** (32 - RATE_BITS * number) - 1)
            places = np.flatnonzero(hashes <= bound) if places is None else places[hashes[places] <= bound]
            level.add(keys, places[keys[places] >= level.least], locate)

    def result(self) -> list[Tail]:
        """Return the tails, the most complete first."""
        return [level.result() for level in self._levels]


class _Level:
    """One sample; whole: keep all of it."""

    def __init__(self, *, whole: bool) -> None:
        self.least = FLOOR
        self._whole = whole
        self._parts: list[tuple[Keys, Codes, Codes]] = []
        self._size = 0

    def add(self, keys: Keys, places: NDArray[np.intp], locate: Locate) -> None:
        if not len(places):
            return
        self._parts.append((keys[places], *locate(places)))
        self._size += len(places)
        if not self._whole and self._size > 2 * CAPACITY:
            self._cut()

    def result(self) -> Tail:
        self._cut()
        keys, references, probes = self._together()
        order = np.lexsort((probes, references, -keys))
        return Tail(keys[order], references[order], probes[order], self.least)

    def _cut(self) -> None:
        """Keep what lies above the key after the CAPACITY highest, so that no tie is torn."""
        keys, references, probes = self._together()
        if len(keys) > CAPACITY and not self._whole:
            self.least = int(np.partition(keys, len(keys) - CAPACITY - 1)[len(keys) - CAPACITY - 1]) + 1
        kept = keys >= self.least
        self._parts = [(keys[kept], references[kept], probes[kept])]
        self._size = int(np.count_nonzero(kept))

    def _together(self) -> tuple[Keys, Codes, Codes]:
        none = np.empty(0, dtype=np.int32)
        columns = zip((none, none, none), *self._parts, strict=True)
        keys, references, probes = (np.concatenate(column) for column in columns)
        return keys, references, probes


def hashes(ids: Iterable[str], place: str) -> Hashes:
    """[n] uint32 hashes of the ids of the samples of one gallery and role, which `place` names.

    The sum, modulo 2^32, of a probe's and a reference's is a comparison's: comparisons are sampled independently in
    pairs, which is what the variance of a sum needs.
    """
    digests = (hashlib.blake2b(f"{place}\0{one}".encode(), digest_size=4).digest() for one in ids)
    return np.frombuffer(b"".join(digests), dtype="<u4").astype(np.uint32)
