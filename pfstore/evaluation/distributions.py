"""How many comparisons have which score: exact counts over all of them, however many, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.comparing import FLOOR, Keys
from pfstore.features import Offsets

# So many distinct keys are merged by sorting; more go into an array with a place for every key in their range.
SORTED = 2**20
# An array that must grow gets so many places more than it needs.
MARGIN = 2**16


@dataclass(frozen=True)
class Distribution:
    """The distinct keys of some comparisons or searches.

    keys: [u] int32, rising. above: [u+1] int64, how many have keys[i] or more; 0 at the end.
    """

    keys: Keys
    above: Offsets

    @classmethod
    def of(cls, keys: Keys) -> Distribution:
        """Count keys that stand in memory."""
        return cls.counted(*np.unique(keys, return_counts=True))

    @classmethod
    def counted(cls, keys: Keys, counts: Offsets) -> Distribution:
        """Make one of distinct rising keys and their counts."""
        above = np.zeros(len(keys) + 1, dtype=np.int64)
        np.cumsum(counts[::-1], out=above[-2::-1])
        return cls(keys, above)

    @property
    def total(self) -> int:
        """How many there are."""
        return int(self.above[0])

    @property
    def counts(self) -> Offsets:
        """[u] int64, how many have each key."""
        return -np.diff(self.above)

    def at_least(self, keys: NDArray[np.integer] | int) -> Offsets:
        """How many have these keys ([n], or one) or more."""
        return self.above[np.searchsorted(self.keys, keys)]

    def thresholds(self, allowed: NDArray[np.integer]) -> Offsets:
        """[n] int64, the least keys that at most so many ([n]) reach; the lowest key where all may."""
        lasting = len(self.above) - np.searchsorted(self.above[::-1], allowed, side="right")
        return np.where(lasting > 0, self.keys[lasting - 1].astype(np.int64) + 1, int(self.keys[0]))

    def threshold(self, target: float) -> int:
        """Return the least key that at most target * total reach. Raises IndexError where there are none."""
        return int(self.thresholds(np.array([allowed(target, self.total)]))[0])


def allowed(target: float, total: int) -> int:
    """Return floor(target * total) of the target as it is written: 0.001 of 1000 is 1."""
    return int(Fraction(repr(float(target))) * total)


class Tally:
    """Counts keys that come in blocks."""

    def __init__(self) -> None:
        self._pending: list[tuple[Keys, Offsets]] = []
        self._counts = np.zeros(0, dtype=np.int64)
        self._lowest = 0

    def add(self, keys: Keys) -> None:
        """Count a block ([...] int32); keys below FLOOR stand for no comparison."""
        ordered = np.sort(keys, axis=None)
        self._pending.append(_runs(ordered[np.searchsorted(ordered, FLOOR) :]))
        if sum(len(distinct) for distinct, _ in self._pending) > SORTED:
            self._spread()

    def result(self) -> Distribution:
        """Return what was counted."""
        if len(self._counts):
            self._spread()
            present = np.flatnonzero(self._counts)
            return Distribution.counted((present + self._lowest).astype(np.int32), self._counts[present])
        keys = np.concatenate([np.empty(0, np.int32), *(distinct for distinct, _ in self._pending)])
        counts = np.concatenate([np.empty(0, np.int64), *(counts for _, counts in self._pending)])
        order = np.argsort(keys, kind="stable")
        distinct, lengths = _runs(keys[order])
        sums = np.concatenate([[0], np.cumsum(counts[order])])
        return Distribution.counted(distinct, np.diff(sums[np.concatenate([[0], np.cumsum(lengths)])]))

    def _spread(self) -> None:
        for distinct, counts in self._pending:
            if len(distinct):
                self._reach(int(distinct[0]), int(distinct[-1]))
                self._counts[distinct - self._lowest] += counts
        self._pending = []

    def _reach(self, low: int, high: int) -> None:
        first, last = self._lowest, self._lowest + len(self._counts)
        if len(self._counts) and first <= low and high < last:
            return
        if not len(self._counts):
            first, last = low, low
        start = first if first <= low else low - MARGIN
        stop = last if high < last else high + 1 + MARGIN
        grown = np.zeros(stop - start, dtype=np.int64)
        grown[self._lowest - start :][: len(self._counts)] = self._counts
        self._counts, self._lowest = grown, start


def _runs(ordered: Keys) -> tuple[Keys, Offsets]:
    """Return the distinct ones of sorted keys and how many of each there are."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
    return ordered[starts], np.diff(starts, append=len(ordered))
