"""The 1:N figures against one gallery: rank-k hit rates, CMC, FNIR at FPIR and their trade-off.

A mated search is one of a subject that is enrolled, or whose enrolment failed: its mate cannot be found then, and it
counts as a miss, as failures to acquire do. A non-mated search is one of a subject that is not in the gallery; no
mate is left out to make one. Where a non-mated search failed to acquire it returns nothing and is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pfstore.evaluation.comparing import FLOOR, Keys
from pfstore.evaluation.curves import VALUES, trade_off
from pfstore.evaluation.distributions import Distribution, allowed
from pfstore.evaluation.intervals import Replicates, last_within, ranks, rate, ratio
from pfstore.evaluation.results import AtFpir, Doubles, Identification, Rate
from pfstore.features import Offsets

CMC_RANKS = 50


@dataclass(frozen=True)
class Searches:
    """All searches of one gallery under one kind of scores.

    mated: [m] int64 codes of the subjects of mated searches; mates: [m] int32 the mates' keys; ranks: [m] int64,
    1 + the number of other subjects with a score of at least the mate's. failed: [f] codes of mated searches that
    failed. non_mated: [q] codes; best: [q] int32 keys of the best candidates.
    """

    gallery: str
    kind: str
    enrolled: int
    mated: Offsets
    mates: Keys
    ranks: Offsets
    failed: Offsets
    non_mated: Offsets
    best: Keys

    @cached_property
    def bests(self) -> Distribution:
        """The best candidates of non-mated searches, counted."""
        return Distribution.of(self.best)


def identification(
    searches: Searches, rank_targets: Sequence[int], targets: Sequence[float], replicates: Replicates
) -> Identification:
    """Return the 1:N figures.

    FNIR is read without a limit of rank (R = N). Its interval and that of the hit rates draw the subjects who search;
    the gallery is held as it is. Without non-mated searches there is no threshold: `at` is empty and `curve` None.
    Without mated ones their rates have no trials and cmc is NaN.
    """
    curve = trade_off(searches.bests, Distribution.of(searches.mates), len(searches.failed), VALUES[searches.kind])
    figures = _Figures(searches, replicates)
    trials = len(searches.mated) + len(searches.failed)
    length = min(searches.enrolled, max(CMC_RANKS, *rank_targets, 0))
    hits = np.cumsum(np.bincount(searches.ranks, minlength=length + 1)[1 : length + 1])
    return Identification(
        gallery=searches.gallery,
        enrolled=searches.enrolled,
        mated=trials,
        non_mated=len(searches.non_mated),
        failures=len(searches.failed),
        ranks={rank: figures.hit_rate(rank) for rank in rank_targets},
        cmc=hits / trials if trials else np.full(length, np.nan),
        at=figures.at(targets) if len(searches.non_mated) else (),
        curve=curve if len(searches.non_mated) and trials else None,
    )


class _Figures:
    """Rates of searches with their intervals."""

    def __init__(self, searches: Searches, replicates: Replicates) -> None:
        self.searches, self.replicates = searches, replicates
        self.subjects = len(replicates.weights)
        attempts = self._counts(searches.mated) + self._counts(searches.failed)
        self.weight, self.independent = replicates.totals(attempts), int(np.count_nonzero(attempts))
        self.trials = int(attempts.sum())

    def hit_rate(self, rank: int) -> Rate:
        """Return the share of mated searches whose mate is among the first so many."""
        found = self.searches.mated[self.searches.ranks <= rank]
        replicated = ratio(self.replicates.totals(self._counts(found)), self.weight)
        return rate(len(found), self.trials, replicated, self.independent)

    def at(self, targets: Sequence[float]) -> list[AtFpir]:
        """Return a row for each target."""
        searches, replicates = self.searches, self.replicates
        points = [searches.bests.threshold(target) for target in targets]
        falling = np.sort(searches.best)[::-1].astype(np.int64)
        rungs = np.unique(np.concatenate([falling[ranks(len(falling))] + 1, points, [FLOOR]]).astype(np.int64))[::-1]
        total = replicates.totals(self._counts(searches.non_mated))
        fpir = ratio(replicates.above(searches.best, searches.non_mated, rungs), total)
        found = replicates.above(searches.mates, searches.mated, rungs)
        rows = []
        for target, threshold in zip(targets, points, strict=True):
            kept = found[last_within(fpir, target), np.arange(len(total))]
            fnir = np.where(total > 0, 1 - ratio(kept, self.weight), np.nan)
            place = int(np.searchsorted(-rungs, -threshold))
            rows.append(self._row(target, threshold, fpir[place], fnir))
        return rows

    def _row(self, target: float, threshold: int, fpir: Doubles, fnir: Doubles) -> AtFpir:
        searches = self.searches
        positives, total = int(searches.bests.at_least(threshold)), len(searches.best)
        misses = int(np.count_nonzero(searches.mates < threshold)) + len(searches.failed)
        return AtFpir(
            target=target,
            threshold=float(VALUES[searches.kind](np.array([threshold]))[0]),
            fpir=rate(positives, total, fpir, len(np.unique(searches.non_mated))),
            fnir=rate(misses, self.trials, fnir, self.independent),
            failures=len(searches.failed),
            rank=None,
            supported=allowed(target, total) >= 1,
        )

    def _counts(self, subjects: Offsets) -> Offsets:
        """[S] how many searches each subject has."""
        return np.bincount(subjects, minlength=self.subjects)
