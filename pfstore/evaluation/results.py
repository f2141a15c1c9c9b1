"""The figures of an evaluation: every rate with its counts and its 95 % interval.

Words as in ISO/IEC 19795-1:2021: FNMR and FMR count comparisons that were completed, FRR and FAR also those that
failed because nothing could be acquired; FNIR and FPIR count searches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """errors of trials, and the bounds of the 95 % interval (bootstrap over subjects).

    Bounds are NaN where nothing was tried and where no replicate was drawn.
    """

    errors: int
    trials: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The rate; NaN where nothing was tried."""
        return self.errors / self.trials if self.trials else float("nan")


@dataclass(frozen=True)
class AtFmr:
    """One row of the verification table: the least threshold at which at most `target` of non-mated scores match.

    A comparison matches where its score >= threshold, so ties count against the method. fmr, fnmr: as counted
    there. frr, far: the same with the comparisons that failures to acquire would have made: a mated one is
    rejected, a non-mated one is not accepted. supported: whether target * comparisons >= 1, so that the target can be
    told at all; else the threshold lies above every non-mated score.
    """

    target: float
    threshold: float
    fmr: Rate
    fnmr: Rate
    frr: Rate
    far: Rate
    supported: bool

    @property
    def tar(self) -> float:
        """1 - FNMR."""
        return 1 - self.fnmr.value


@dataclass(frozen=True)
class AtFpir:
    """One row of the identification table: FNIR where at most `target` of non-mated searches return anything.

    threshold: the least at which FPIR <= target. fnir: mated searches whose mate is not at rank 1 .. R with a
    score >= threshold, R being `rank` (the whole gallery where None). Failures to acquire count as misses in
    fnir; `failures` tells how many.
    """

    target: float
    threshold: float
    fpir: Rate
    fnir: Rate
    failures: int
    rank: int | None
    supported: bool


@dataclass(frozen=True)
class Curve:
    """A trade-off curve, points in order of rising threshold. [n] each; x is FMR or FPIR, y FNMR or FNIR."""

    thresholds: Doubles
    x: Doubles
    y: Doubles


@dataclass(frozen=True)
class Histogram:
    """Counts of scores between edges ([n+1]), mated and non-mated ([n] each)."""

    edges: Doubles
    mated: NDArray[np.int64]
    non_mated: NDArray[np.int64]


@dataclass(frozen=True)
class SizeRow:
    """FNMR of probes with so many features (first to last, None: no end), at the thresholds of `at`."""

    first: int
    last: int | None
    fnmr: Sequence[Rate]


@dataclass(frozen=True)
class Verification:
    """1:1. mated, non_mated: completed comparisons. eer: where FMR and FNMR cross, with its interval and threshold."""

    mated: int
    non_mated: int
    eer: float
    eer_low: float
    eer_high: float
    eer_threshold: float
    at: Sequence[AtFmr]
    curve: Curve
    histogram: Histogram
    by_size: Sequence[SizeRow] = ()


@dataclass(frozen=True)
class Identification:
    """1:N against one gallery. enrolled: N. ranks: by rank k, the mated searches whose mate is among the first k.

    hits are counted in Rate.errors of `ranks` (a hit rate, not an error rate); ties in score count against the mate.
    cmc: [n] float64, the hit rate at rank 1 .. n. mated: searches of subjects that are in this gallery or whose
    enrolment failed, with those that failed; failures: how many did. non_mated: completed searches of subjects that
    are not in this gallery.
    """

    gallery: str
    enrolled: int
    mated: int
    non_mated: int
    failures: int
    ranks: Mapping[int, Rate]
    cmc: Doubles
    at: Sequence[AtFpir]
    curve: Curve | None


@dataclass(frozen=True)
class Scored:
    """The figures of one method under one kind of scores: "raw" cosines, or "cohort": a softmax over the gallery."""

    scores: str
    verification: Verification
    identifications: Sequence[Identification]


@dataclass(frozen=True)
class MethodResult:
    """One method on one experiment.

    label: as given or made, unique in the evaluation. model: as Fuser.describe tells. strategy: "media" or
    "set". values: of one template. seconds: spent fusing; features: fused. scored: raw first.
    """

    label: str
    model: Mapping[str, Any]
    strategy: str
    values: int
    seconds: float
    features: int
    scored: Sequence[Scored]


@dataclass(frozen=True)
class Acquisition:
    """How many probes and references there were, and how many of them gave no feature."""

    probes: int
    probe_failures: int
    references: int
    reference_failures: int

    @property
    def fta(self) -> float:
        """The failure-to-acquire rate of probes."""
        return self.probe_failures / self.probes if self.probes else float("nan")


@dataclass(frozen=True)
class Evaluation:
    """Methods side by side on one experiment, all on the same comparisons.

    settings: targets, bootstrap replicates, seed, versions of the software, the date; JSON-ready. facts and
    warnings: as in Experiment.
    """

    experiment: str
    extractor: str
    dimension: int
    facts: Mapping[str, Any]
    warnings: Sequence[str]
    acquisition: Acquisition
    methods: Sequence[MethodResult]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints: every figure, curves included, arrays as lists, NaN as null."""
        converted: dict[str, Any] = _plain(asdict(self))
        return converted


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
