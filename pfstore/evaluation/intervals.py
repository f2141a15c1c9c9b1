"""95 % intervals by a bootstrap over subjects, as two-instance errors need it.

A replicate draws as many subjects as there are, with replacement; w_s is how often it drew subject s. A mated
comparison and a search of s weigh w_s, a non-mated comparison of s and t weighs w_s * w_t. Thresholds are found anew in
each replicate, so their uncertainty is in the interval. Bounds are the 2.5 and 97.5 percentiles of the replicates.

No error in n independent trials leaves a rate of up to 3/n with 95 % confidence (the rule of three,
ISO/IEC 19795-1:2021); so the upper bound of a rate without errors is at least 3/n and the lower bound of a rate of
nothing but errors at most 1 - 3/n, where n counts subjects, or pairs of subjects for non-mated comparisons, and no
repetitions of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.comparing import Keys
from pfstore.evaluation.results import Doubles, Rate
from pfstore.features import Offsets

CONFIDENCE = 0.95
# Ranks of candidate thresholds grow by this share; the lowest are all there.
FINENESS = 1 / 128
CHUNK = 512

Count: TypeAlias = int | np.integer
Rows: TypeAlias = Callable[[slice], NDArray[np.float32]]


@dataclass(frozen=True)
class Replicates:
    """How often each of R replicates drew each of S subjects. weights: [S, R] uint8."""

    weights: NDArray[np.uint8]

    @classmethod
    def draw(cls, subjects: int, replicates: int, seed: int) -> Replicates:
        """Draw them by a generator of this seed. A count of 256 has a chance below 1e-500, so uint8 will do."""
        random = np.random.default_rng(seed)
        weights = np.empty((subjects, replicates), dtype=np.uint8)
        for number in range(replicates):
            drawn = np.bincount(random.integers(0, max(1, subjects), subjects), minlength=subjects)
            weights[:, number] = np.minimum(drawn, 255)
        return cls(weights)

    def totals(self, counts: NDArray[np.integer]) -> Doubles:
        """[R] sums of counts ([S]) under the weights of their subjects."""
        return self._summed(counts, lambda weights: weights)

    def squares(self, counts: NDArray[np.integer]) -> Doubles:
        """[R] sums of counts ([S]) under the squared weights of their subjects."""
        return self._summed(counts, np.square)

    def above(self, keys: Keys, subjects: NDArray[np.integer], thresholds: Offsets) -> Doubles:
        """[T, R] how much weight of items has keys of at least these thresholds ([T]). keys, subjects: [n]."""
        order = np.argsort(-keys, kind="stable")
        stops = np.searchsorted(-keys[order], -thresholds, side="right")
        owners = subjects[order]
        return self._cumulated(lambda part: self.weights[owners[part]].astype(np.float32), stops)

    def pairs_above(self, first: NDArray[np.integer], second: NDArray[np.integer], stops: Offsets) -> Doubles:
        """[T, R] the weight of the first so many ([T]) comparisons between subjects `first` and `second` ([n] each)."""

        def rows(part: slice) -> NDArray[np.float32]:
            products: NDArray[np.float32] = np.multiply(
                self.weights[first[part]], self.weights[second[part]], dtype=np.float32
            )
            return products

        return self._cumulated(rows, stops)

    def _summed(self, counts: NDArray[np.integer], of: Callable[[Doubles], Doubles]) -> Doubles:
        sums = np.zeros(self.weights.shape[1])
        subjects = np.flatnonzero(counts)
        for start in range(0, len(subjects), CHUNK):
            some = subjects[start : start + CHUNK]
            sums += counts[some].astype(np.float64) @ of(self.weights[some].astype(np.float64))
        return sums

    def _cumulated(self, rows: Rows, stops: Offsets) -> Doubles:
        """[T, R] sums of the first so many rows. Those of a segment are small whole numbers, so exact in float32."""
        end = int(stops.max(initial=0))
        edges = np.unique(np.concatenate([[0, end], np.arange(0, end, CHUNK), stops]))
        sums = np.zeros((len(edges), self.weights.shape[1]))
        for start in range(0, end, CHUNK):
            stop = min(start + CHUNK, end)
            first, last = np.searchsorted(edges, [start, stop])
            sums[first + 1 : last + 1] = np.add.reduceat(rows(slice(start, stop)), edges[first:last] - start, axis=0)
        np.cumsum(sums, axis=0, out=sums)
        return sums[np.searchsorted(edges, stops)]


def ranks(count: int) -> Offsets:
    """The ranks, from 0 and below count, at which a list of so many falling scores is looked at."""
    dense = np.arange(min(count, int(1 / FINENESS)))
    steps = int(np.log(max(count, 1) * FINENESS) / FINENESS) if count > 1 / FINENESS else 0
    sparse = np.exp(np.arange(steps) * FINENESS) / FINENESS
    return np.unique(np.concatenate([dense, sparse.astype(np.int64)]))


def last_within(rates: Doubles, target: float) -> NDArray[np.intp]:
    """[R] the last of the first candidates ([T, R] rates, 0 first) of which none exceeds the target."""
    exceeding = rates > target * (1 + 1e-9)
    return np.where(exceeding.any(axis=0), exceeding.argmax(axis=0), len(rates)) - 1


def bounds(value: float, replicated: Doubles) -> tuple[float, float]:
    """Return the interval of a value of which there are replicates ([R]); it holds the value. NaN without any."""
    finite = replicated[np.isfinite(replicated)]
    if not len(finite) or np.isnan(value):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return min(float(low), value), max(float(high), value)


def rate(errors: Count, trials: Count, replicated: Doubles, independent: Count) -> Rate:
    """Return a rate with its interval; independent: the n of the rule of three. NaN bounds without replicates.

    A rate of no trials has no value and no bounds: all are NaN.
    """
    errors, trials = int(errors), int(trials)
    low, high = bounds(errors / trials if trials else float("nan"), replicated)
    margin = min(1.0, 3 / int(independent)) if independent else 1.0
    if errors == 0:
        high = max(margin, high) if high == high else high
    if errors == trials:
        low = min(1 - margin, low) if low == low else low
    return Rate(errors, trials, low, high)


def ratio(numerators: Doubles, denominators: Doubles) -> Doubles:
    """Divide; NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominators > 0, numerators / denominators, np.nan)
