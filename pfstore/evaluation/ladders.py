"""The thresholds at which a bootstrap looks at the non-mated scores, and how many match there in each replicate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pfstore.evaluation.comparing import FLOOR, Keys
from pfstore.evaluation.distributions import Distribution
from pfstore.evaluation.intervals import Replicates, ranks
from pfstore.evaluation.results import Doubles
from pfstore.evaluation.tails import CAPACITY, Tail
from pfstore.features import Offsets


@dataclass(frozen=True)
class Ladder:
    """Thresholds from above the highest non-mated score (where there is one) down to one that all reach.

    thresholds: [T] int64 keys, falling. levels: [T] the tail by which each is counted.
    """

    thresholds: Offsets
    levels: Offsets
    tails: Sequence[Tail]

    @classmethod
    def of(cls, tails: Sequence[Tail], non_mated: Distribution, points: Sequence[int]) -> Ladder:
        """Look at every rank near the highest score, at ranks about a hundredth apart below, and at these points."""
        rungs = [np.array([FLOOR, *points, *(non_mated.keys[-1:].astype(np.int64) + 1)], dtype=np.int64)]
        lowest = np.iinfo(np.int64).max
        for tail in tails:
            usable = len(tail.keys) if tail is tails[-1] else min(len(tail.keys), CAPACITY // 2)
            steps = tail.keys[ranks(usable)].astype(np.int64) + 1
            rungs.append(steps[(steps >= tail.least) & (steps < lowest)])
            lowest = min(lowest, int(steps.min(initial=lowest)))
        thresholds = np.unique(np.concatenate(rungs))[::-1]
        return cls(thresholds, _levels(thresholds, tails), tails)

    def place(self, threshold: int) -> int:
        """Return where a threshold that is one of the points stands."""
        return int(np.searchsorted(-self.thresholds, -threshold))

    def matches(self, non_mated: Distribution, replicates: Replicates) -> Doubles:
        """[T, R] the weight of the non-mated comparisons that reach each threshold.

        That of a thinned tail is scaled so that weights of 1 give the exact count.
        """
        exact = non_mated.at_least(self.thresholds)
        found = np.empty((len(self.thresholds), replicates.weights.shape[1]))
        for level, tail in enumerate(self.tails):
            rows = self.levels == level
            stops = reached(tail.keys, self.thresholds[rows])
            weights = replicates.pairs_above(tail.references, tail.probes, stops)
            scale = np.divide(exact[rows], stops, out=np.zeros(len(stops)), where=stops > 0)
            found[rows] = np.where(stops[:, None] > 0, weights * scale[:, None], exact[rows, None])
        return found


def reached(keys: Keys, thresholds: Offsets) -> Offsets:
    """[T] how many of falling keys reach thresholds ([T])."""
    return len(keys) - np.searchsorted(keys[::-1], thresholds, side="left")


def _levels(thresholds: Offsets, tails: Sequence[Tail]) -> Offsets:
    """[T] the first tail that is whole at each threshold and not at its end there; else the last, which is whole."""
    levels = np.full(len(thresholds), len(tails) - 1, dtype=np.int64)
    for level in reversed(range(len(tails) - 1)):
        tail = tails[level]
        fit = (thresholds >= tail.least) & (reached(tail.keys, thresholds) <= CAPACITY // 2)
        levels[fit] = level
    return levels
