"""The 1:1 figures of ISO/IEC 19795-1: FNMR at FMR, FRR and FAR, EER, the DET curve, FNMR by the probe's features.

A comparison matches where its score >= threshold. FMR and FNMR are step functions of the threshold; the rate at a
target is read where FMR is at most the target, never between two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.comparing import Keys
from pfstore.evaluation.curves import VALUES, histogram, trade_off
from pfstore.evaluation.distributions import Distribution, allowed
from pfstore.evaluation.intervals import Replicates, bounds, last_within, rate, ratio
from pfstore.evaluation.ladders import Ladder
from pfstore.evaluation.results import AtFmr, Doubles, Rate, SizeRow, Verification
from pfstore.evaluation.tails import Tail
from pfstore.evaluation.trials import Trials
from pfstore.features import Offsets

SIZES = ((1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, None))
NAN = float("nan")
# So many steps of the FNMR are seen by the bootstrap of the EER, beside those of the FMR.
MATED_STEPS = 512


@dataclass(frozen=True)
class Comparisons:
    """All 1:1 comparisons of one kind of scores.

    mated: [M] int32 keys. subjects: [M] int64 codes. features: [M] int64, the probe's. non_mated: all of them,
    counted. tails: the highest of them, with subjects. trials: how many there were and how many failed.
    """

    kind: str
    mated: Keys
    subjects: Offsets
    features: Offsets
    non_mated: Distribution
    tails: Sequence[Tail]
    trials: Trials

    @cached_property
    def mates(self) -> Distribution:
        """The mated ones, counted."""
        return Distribution.of(self.mated)


def verification(comparisons: Comparisons, targets: Sequence[float], replicates: Replicates) -> Verification:
    """Return the 1:1 figures.

    Without non-mated comparisons there is no threshold: it is NaN, and every rate of `at` has no trials. Without
    mated ones FNMR has no trials. The EER and its bounds are NaN in both cases, the curve is empty, and there is
    no by_size. fmr's interval is that at the threshold, fnmr's that of the whole way: threshold and rate.
    """
    figures = _Figures(comparisons, targets, replicates)
    mates, non_mated = comparisons.mates, comparisons.non_mated
    eer, threshold = equal_error(non_mated, mates)
    low, high = bounds(eer, figures.equal_errors())
    return Verification(
        mated=mates.total,
        non_mated=non_mated.total,
        eer=eer,
        eer_low=low,
        eer_high=high,
        eer_threshold=figures.score(threshold),
        at=[figures.at(number) for number in range(len(targets))],
        curve=trade_off(non_mated, mates, 0, VALUES[comparisons.kind]),
        histogram=histogram(mates, non_mated, comparisons.kind),
        by_size=figures.by_size(),
    )


def equal_error(non_mated: Distribution, mates: Distribution) -> tuple[float, int | None]:
    """Return the EER and the key of its threshold; NaN and None where either sort of comparisons is missing.

    Read as in FVC2002 (and pyeer): of the two neighbouring distinct scores between which FMR - FNMR changes its sign,
    that with the lesser FMR + FNMR is the threshold (the lower of equal ones), and the mean of both rates there the
    EER; where the rates are equal it is that score.
    """
    if not non_mated.total or not mates.total:
        return NAN, None
    both = (non_mated, mates)
    lowest, above = min(int(one.keys[0]) for one in both), max(int(one.keys[-1]) for one in both) + 1
    low, high = lowest, above
    while low < high:
        middle = (low + high) // 2
        fmr, fnmr = _rates(non_mated, mates, middle)
        low, high = (middle + 1, high) if fmr > fnmr else (low, middle)
    after = min(_next(one.keys, low, above) for one in both)
    before = max(_previous(one.keys, after, lowest) for one in both)
    fmr, fnmr = _rates(non_mated, mates, after)
    earlier = _rates(non_mated, mates, before)
    if fmr != fnmr and sum(earlier) <= fmr + fnmr:
        return sum(earlier) / 2, before
    return (fmr + fnmr) / 2, after


def _rates(non_mated: Distribution, mates: Distribution, key: int) -> tuple[float, float]:
    """Return FMR and FNMR at a threshold."""
    return int(non_mated.at_least(key)) / non_mated.total, (mates.total - int(mates.at_least(key))) / mates.total


def _next(keys: Keys, key: int, otherwise: int) -> int:
    """Return the first of rising keys that is at least key."""
    place = int(np.searchsorted(keys, key))
    return int(keys[place]) if place < len(keys) else otherwise


def _previous(keys: Keys, key: int, otherwise: int) -> int:
    """Return the last of rising keys below key."""
    place = int(np.searchsorted(keys, key))
    return int(keys[place - 1]) if place else otherwise


@dataclass(frozen=True)
class _Some:
    """Some mated comparisons. keys: [m]. counts: [S] how many each subject has.

    accepted: [T, R] the weight of those that match at each threshold of the ladder; weight: [R] that of all.
    """

    keys: Keys
    counts: Offsets
    accepted: Doubles
    weight: Doubles


class _Figures:
    """Rates with their intervals, from replicates of them at a ladder of thresholds."""

    def __init__(self, comparisons: Comparisons, targets: Sequence[float], replicates: Replicates) -> None:
        self.comparisons, self.targets, self.replicates = comparisons, targets, replicates
        self.non_mated, self.mates, self.trials = comparisons.non_mated, comparisons.mates, comparisons.trials
        self.points = [self.non_mated.threshold(target) for target in targets] if self.non_mated.total else []
        self.ladder = Ladder.of(comparisons.tails, self.non_mated, [*self.points, *self._steps()])
        totals, attempted = self.trials.non_mated_totals(replicates, comparisons.tails)
        matches = self.ladder.matches(self.non_mated, replicates)
        self.fmr, self.far = ratio(matches, totals), ratio(matches, attempted)
        self.kept = [last_within(self.fmr, target) for target in targets]
        self.failed = replicates.totals(self.trials.mated_failures)
        self.all = self._some(np.ones(self.mates.total, dtype=np.bool_))

    def score(self, key: int | None) -> float:
        """Return the score of a key; NaN without one."""
        return NAN if key is None else float(VALUES[self.comparisons.kind](np.array([key]))[0])

    def equal_errors(self) -> Doubles:
        """[R] the EER of each replicate, read as equal_error does, at the steps of the ladder."""
        fnmr = 1 - ratio(self.all.accepted, self.all.weight)
        after = (self.fmr > fnmr).argmax(axis=0)
        before = np.maximum(after - 1, 0)
        columns = np.arange(len(after))
        sums = [self.fmr[rows, columns] + fnmr[rows, columns] for rows in (before, after)]
        equal = self.fmr[before, columns] == fnmr[before, columns]
        least: Doubles = np.where(equal | (sums[0] < sums[1]), sums[0], sums[1])
        return least / 2

    def _steps(self) -> list[int]:
        """Return thresholds just above mated scores, at even places among the distinct ones."""
        keys = self.mates.keys
        places = np.unique(np.linspace(0, len(keys) - 1, min(len(keys), MATED_STEPS)).astype(np.int64))
        return [int(key) + 1 for key in keys[places]]

    def at(self, number: int) -> AtFmr:
        """Return the row of a target."""
        if not self.points:
            none = Rate(0, 0, NAN, NAN)
            return AtFmr(self.targets[number], NAN, none, none, none, none, supported=False)
        target, threshold = self.targets[number], self.points[number]
        place, matches = self.ladder.place(threshold), int(self.non_mated.at_least(threshold))
        pairs = self.trials.subject_pairs
        return AtFmr(
            target=target,
            threshold=self.score(threshold),
            fmr=rate(matches, self.non_mated.total, self.fmr[place], pairs),
            fnmr=self._fnmr(number, self.all),
            frr=self._frr(number),
            far=rate(matches, self.trials.attempted, self.far[place], pairs),
            supported=allowed(target, self.non_mated.total) >= 1,
        )

    def by_size(self) -> list[SizeRow]:
        """Return FNMR by the probe's number of features, of the sizes that there are."""
        rows = []
        for first, last in SIZES:
            features = self.comparisons.features
            chosen = (features >= first) & (features <= (last or np.iinfo(np.int64).max))
            if self.points and chosen.any():
                some = self._some(chosen)
                rows.append(SizeRow(first, last, [self._fnmr(number, some) for number in range(len(self.points))]))
        return rows

    def _some(self, chosen: NDArray[np.bool_]) -> _Some:
        keys, subjects = self.comparisons.mated[chosen], self.comparisons.subjects[chosen]
        counts = np.bincount(subjects, minlength=len(self.replicates.weights))
        accepted = self.replicates.above(keys, subjects, self.ladder.thresholds)
        return _Some(keys, counts, accepted, self.replicates.totals(counts))

    def _fnmr(self, number: int, some: _Some) -> Rate:
        rejected = np.count_nonzero(some.keys < self.points[number])
        replicated = self._replicated(number, some.accepted, some.weight)
        return rate(rejected, len(some.keys), replicated, np.count_nonzero(some.counts))

    def _frr(self, number: int) -> Rate:
        failures = self.trials.mated_failures
        rejected = np.count_nonzero(self.all.keys < self.points[number]) + int(failures.sum())
        replicated = self._replicated(number, self.all.accepted, self.all.weight + self.failed)
        attempts = self.all.counts + failures
        return rate(rejected, int(attempts.sum()), replicated, np.count_nonzero(attempts))

    def _replicated(self, number: int, accepted: Doubles, weight: Doubles) -> Doubles:
        """[R] the share that is not accepted at the threshold that each replicate finds for a target."""
        kept = accepted[self.kept[number], np.arange(len(weight))]
        return np.where(np.isnan(self.fmr[0]), NAN, 1 - ratio(kept, weight))
