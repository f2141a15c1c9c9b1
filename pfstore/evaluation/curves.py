"""Points for curves and bars for histograms, from exact counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.comparing import STEP
from pfstore.evaluation.distributions import Distribution
from pfstore.evaluation.results import Curve, Doubles, Histogram
from pfstore.features import Offsets

POINTS = 2000
BARS = 200

Value: TypeAlias = Callable[[Offsets], Doubles]


def cosines(keys: Offsets) -> Doubles:
    """The scores of keys ([n]) of kind "raw"."""
    return np.multiply(keys, STEP, dtype=np.float64)


def probabilities(keys: Offsets) -> Doubles:
    """The scores of keys ([n]) of kind "cohort", whose keys are logarithms."""
    return np.exp(cosines(keys))


VALUES: dict[str, Value] = {"raw": cosines, "cohort": probabilities}


def trade_off(non_mated: Distribution, mated: Distribution, failures: int, value: Value) -> Curve:
    """Return the shares of the non-mated at or above thresholds, and of the mated below, with failures among them.

    At most POINTS thresholds: every distinct score where they are few enough. Else steps of the non-mated at ranks
    in even steps of their logarithm down to the single highest, and of the mated at even ranks; each point is exact
    at its threshold. The last threshold lies above all scores. Without non-mated or mated ones there are no points.
    """
    trials = mated.total + failures
    if not non_mated.total or not trials:
        return Curve(np.empty(0), np.empty(0), np.empty(0))
    thresholds = _thresholds(non_mated, mated)
    x = non_mated.at_least(thresholds) / non_mated.total
    y = 1 - mated.at_least(thresholds) / trials
    return Curve(value(thresholds), x, y)


def histogram(mated: Distribution, non_mated: Distribution, kind: str) -> Histogram:
    """Count scores in BARS bins over [-1, 1], or over [0, the highest score] for kind "cohort"."""
    edges = np.linspace(-1, 1, BARS + 1)
    if kind == "cohort":
        highest = max((int(one.keys[-1]) for one in (mated, non_mated) if one.total), default=0)
        edges = np.linspace(0, float(np.exp(highest * STEP)), BARS + 1)
    counts = [_counted(one, edges, VALUES[kind]) for one in (mated, non_mated)]
    return Histogram(edges, counts[0], counts[1])


def _thresholds(non_mated: Distribution, mated: Distribution) -> Offsets:
    highest = max(int(one.keys[-1]) for one in (non_mated, mated) if one.total)
    if len(non_mated.keys) + len(mated.keys) < POINTS:
        chosen: list[NDArray[np.integer]] = [non_mated.keys, mated.keys]
    else:
        half = POINTS // 2 - 2
        ranks = np.geomspace(1, non_mated.total, half).astype(np.int64) - 1
        chosen = [non_mated.thresholds(ranks), mated.keys[np.linspace(0, len(mated.keys) - 1, half).astype(np.int64)]]
    lowest = min(int(one.keys[0]) for one in (non_mated, mated) if one.total)
    return np.unique(np.concatenate([*chosen, [lowest, highest + 1]]).astype(np.int64))


def _counted(scores: Distribution, edges: Doubles, value: Value) -> Offsets:
    values = np.clip(value(scores.keys.astype(np.int64)), edges[0], edges[-1])
    counts, _ = np.histogram(values, edges, weights=scores.counts.astype(np.float64))
    bars: Offsets = np.rint(counts).astype(np.int64)
    return bars
