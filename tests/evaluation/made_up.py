"""Evaluations made of random normal scores, for tests of what is printed and drawn of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.results import (
    Acquisition,
    AtFmr,
    AtFpir,
    Curve,
    Evaluation,
    Histogram,
    Identification,
    MethodResult,
    Rate,
    Scored,
    SizeRow,
    Verification,
)

FMRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
FPIRS = (0.003, 0.01, 0.1)
BANDS = ((1, 1), (2, 3), (4, 9), (10, None))

AVERAGE: Mapping[str, Any] = {
    "name": "average", "kind": "baseline", "dimension": 512, "experts": None, "selected": 1, "domain": None,
    "normalisation": "raw", "parameters": 0, "digest": "ab" * 32, "origin": "mean of unit features",
}  # fmt: skip
NETWORK: Mapping[str, Any] = {
    **AVERAGE, "name": "proxyfusion", "kind": "proxyfusion", "experts": 11, "selected": 4, "domain": 10,
    "normalisation": "scale:16", "parameters": 34_910_218, "digest": "0f" * 32, "origin": "trained.safetensors",
}  # fmt: skip

FACTS: Mapping[str, Any] = {
    "protocol": "split of faces.npz by subject",
    "subjects": 491,
    "features": {"probes": 8_342, "references": 8_411},
    "photos_per_set": "1–3",
    "files": ["faces.npz", "split.csv"],
}
SETTINGS: Mapping[str, Any] = {
    "date": "2025-01-31T12:00:00+00:00",
    "fmr": list(FMRS),
    "fpir": list(FPIRS),
    "replicates": 1000,
    "seed": 7,
    "versions": {"pfstore": "0.1.0", "numpy": "2.4.6", "torch": "2.13.0", "python": "3.11.9"},
}


def rate(errors: int, trials: int) -> Rate:
    """A rate with the normal interval of independent trials, or the rule of three's."""
    if not trials:
        return Rate(0, 0, float("nan"), float("nan"))
    value = errors / trials
    half = 1.96 * float(np.sqrt(value * (1 - value) / trials)) if 0 < errors < trials else 3 / trials
    return Rate(errors, trials, max(0.0, value - half), min(1.0, value + half))


def evaluation(
    methods: Mapping[str, float],
    *,
    kinds: Sequence[str] = ("raw",),
    mated: int = 4_000,
    non_mated: int = 200_000,
    failures: int = 37,
    galleries: Sequence[str] = ("Gallery1",),
    non_mated_searches: int = 400,
    by_size: bool = True,
    name: str = "BTS3.1 face_incl_trt",
    warnings: Sequence[str] = (),
    facts: Mapping[str, Any] = FACTS,
    settings: Mapping[str, Any] = SETTINGS,
    seed: int = 0,
) -> Evaluation:
    """Make an evaluation; methods: by label how far apart mated and non-mated scores lie, in standard deviations.

    The first method is the average of features, others are networks. Identification has a gallery for each name.
    """
    made = []
    for number, (label, apart) in enumerate(methods.items()):
        draw = np.random.default_rng([seed, number])
        scored = [
            Scored(
                kind,
                verification(draw, apart, mated, non_mated, failures, by_size=by_size),
                [identification(draw, one, apart, mated // 2, non_mated_searches) for one in galleries],
            )
            for kind in kinds
        ]
        model = NETWORK if number else AVERAGE
        made.append(MethodResult(label, model, "media", 512 * model["selected"], 2.5 + number, 16_753, scored))
    acquisition = Acquisition(4_037, failures, 491, 0)
    return Evaluation(name, "adaface-ir101", 512, facts, list(warnings), acquisition, made, settings)


def verification(
    draw: np.random.Generator, apart: float, mated: int, non_mated: int, failures: int, *, by_size: bool
) -> Verification:
    """Make 1:1 figures of normal scores around apart and 0, divided by ten."""
    same, other = draw.normal(apart, 1.2, mated) / 10, draw.normal(0, 1, non_mated) / 10
    at = [_at_fmr(target, same, other, failures) for target in FMRS]
    edges = np.linspace(-0.6, 1.1, 86)
    histogram = Histogram(edges, np.histogram(same, edges)[0], np.histogram(other, edges)[0])
    curve = _curve(same, other)
    crossing = int(np.argmin(np.abs(curve.x - curve.y))) if len(curve.x) else 0
    eer = float(curve.x[crossing] + curve.y[crossing]) / 2 if mated and non_mated else float("nan")
    threshold = float(curve.thresholds[crossing]) if len(curve.x) else float("nan")
    sizes = _sizes(draw, same, at) if by_size else ()
    return Verification(mated, non_mated, eer, eer * 0.93, eer * 1.08, threshold, at, curve, histogram, sizes)


def identification(
    draw: np.random.Generator, gallery: str, apart: float, mated: int, non_mated: int, enrolled: int = 491
) -> Identification:
    """Make 1:N figures: each search has its mate's score and the best of the others'."""
    mates = draw.normal(apart, 1.2, mated)
    above = draw.binomial(enrolled - 1, np.clip(0.5 * np.exp(-mates), 0, 0.9))
    ranks = {rank: rate(int((above < rank).sum()), mated) for rank in (1, 5, 20)}
    cmc = np.array([(above < rank).mean() if mated else np.nan for rank in range(1, 51)])
    tops = draw.gumbel(2.6, 0.3, non_mated)
    at = [_at_fpir(target, mates, tops) for target in FPIRS] if non_mated else []
    curve = _curve(mates, tops) if mated and non_mated else None
    return Identification(gallery, enrolled, mated, non_mated, 12, ranks, cmc, at, curve)


def _at_fmr(target: float, same: NDArray[np.float64], other: NDArray[np.float64], failures: int) -> AtFmr:
    if not len(other):
        none = rate(0, 0)
        return AtFmr(target, float("nan"), none, none, none, none, supported=False)
    threshold = _threshold(target, other)
    misses, false = int((same < threshold).sum()), int((other >= threshold).sum())
    return AtFmr(
        target,
        threshold,
        rate(false, len(other)),
        rate(misses, len(same)),
        rate(misses + failures, len(same) + failures),
        rate(false, len(other) + failures * 50),
        target * len(other) >= 1,
    )


def _at_fpir(target: float, mates: NDArray[np.float64], tops: NDArray[np.float64]) -> AtFpir:
    threshold = _threshold(target, tops)
    misses, false = int((mates < threshold).sum()) + 12, int((tops >= threshold).sum())
    supported = target * len(tops) >= 1
    return AtFpir(target, threshold, rate(false, len(tops)), rate(misses, len(mates) + 12), 12, None, supported)


def _threshold(target: float, non_mated: NDArray[np.float64]) -> float:
    allowed = int(target * len(non_mated) + 1e-9)
    return float(np.nextafter(np.sort(non_mated)[::-1][allowed], np.inf))


def _curve(mated: NDArray[np.float64], non_mated: NDArray[np.float64]) -> Curve:
    if not len(mated) or not len(non_mated):
        return Curve(np.empty(0), np.empty(0), np.empty(0))
    thresholds = np.quantile(np.concatenate([mated, non_mated]), np.linspace(0, 1, 400))
    tail = np.sort(non_mated)[-200:]
    thresholds = np.unique(np.concatenate([thresholds, tail, np.nextafter(tail[-1:], np.inf)]))
    x = 1 - np.searchsorted(np.sort(non_mated), thresholds) / len(non_mated)
    y = np.searchsorted(np.sort(mated), thresholds) / len(mated)
    return Curve(thresholds, x, y)


def _sizes(draw: np.random.Generator, same: NDArray[np.float64], at: Sequence[AtFmr]) -> list[SizeRow]:
    band = draw.choice(len(BANDS), p=[0.2, 0.3, 0.35, 0.15], size=len(same))
    rows = []
    for number, (first, last) in enumerate(BANDS):
        # Larger sets have higher scores.
        scores = same[band == number] + 0.06 * (number - 1.5)
        rows.append(SizeRow(first, last, [rate(int((scores < one.threshold).sum()), len(scores)) for one in at]))
    return rows


def without_intervals(made: Evaluation) -> Evaluation:
    """Return the evaluation with NaN in place of every bound, as without a bootstrap."""
    return _replaced(made)  # type: ignore[no-any-return]


def _replaced(value: Any) -> Any:
    if isinstance(value, Rate):
        return replace(value, low=float("nan"), high=float("nan"))
    if isinstance(value, Verification):
        value = replace(value, eer_low=float("nan"), eer_high=float("nan"))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _replaced(getattr(value, one.name)) for one in fields(value)})
    if isinstance(value, list | tuple):
        return [_replaced(one) for one in value]
    if isinstance(value, dict):
        return {key: _replaced(one) for key, one in value.items()}
    return value
