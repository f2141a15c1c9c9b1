"""The figures of fused templates: every comparison of an experiment scored once, in bounded memory.

The score is the cosine of two templates, in steps of 2^-22 (see `comparing`). "raw" figures rest on it; "cohort" ones
on its softmax over the references of the gallery, probe by probe, as the ProxyFusion reference does for one method, so
that a score depends on who else is enrolled. Every figure is exact: no score is sampled, binned or interpolated.
Intervals are from a bootstrap over subjects (see `intervals`) that sees the non-mated scores through thinned tails
(see `tails`).
Nothing depends on the order of the samples, on the size of blocks or on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pfstore.errors import ConfigError
from pfstore.evaluation.collecting import Collector, GalleryPass, Mated, Subjects
from pfstore.evaluation.comparing import check, same_width
from pfstore.evaluation.identification import identification as identified
from pfstore.evaluation.intervals import Replicates
from pfstore.evaluation.pairing import PairsPass
from pfstore.evaluation.protocols.experiment import Pairs
from pfstore.evaluation.results import Scored
from pfstore.evaluation.tails import Tails
from pfstore.evaluation.templates import FusedGallery
from pfstore.evaluation.trials import Trials
from pfstore.evaluation.verification import verification

KINDS = ("raw", "cohort")


@dataclass(frozen=True)
class Targets:
    """Where the figures are read: FMR and FPIR in (0, 1), ranks from 1. Raises ConfigError for others."""

    fmr: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    fpir: Sequence[float] = (0.003, 0.01, 0.1)
    ranks: Sequence[int] = (1, 5, 20)

    def __post_init__(self) -> None:
        for name, values in (("FMR", self.fmr), ("FPIR", self.fpir)):
            wrong = [value for value in values if not 0 < value < 1]
            if wrong:
                raise ConfigError(f"the {name} target {wrong[0]:g} is not between 0 and 1: give one like 0.001")
        if any(rank < 1 for rank in self.ranks):
            raise ConfigError(f"rank {min(self.ranks)} does not exist: give ranks from 1")


def scored(
    galleries: Sequence[FusedGallery],
    targets: Targets = Targets(),
    *,
    pairs: Pairs | None = None,
    identification: bool = True,
    kinds: Sequence[str] = KINDS,
    bootstrap: int = 1000,
    seed: int = 0,
) -> list[Scored]:
    """Compare, and return the figures of each kind of scores in the order of `kinds`.

    Each probe of a gallery is compared with each of its references, mated where their subjects are equal; the
    comparisons of all galleries together make the 1:1 figures, each gallery its own 1:N ones. With pairs, only those
    of the one gallery are made; there is no 1:N and no "cohort" then. bootstrap: replicates; 0 leaves bounds NaN.
    The same seed draws the same subjects for every method on the same experiment.

    Raises InputError for a template that is not finite or not L2-normalised, for templates of different sizes, for a
    subject with two references in one gallery where there is 1:N, and for listed comparisons of unknown samples.
    """
    _check(galleries, kinds, pairs)
    subjects = Subjects.of(galleries)
    replicates = Replicates.draw(len(subjects), bootstrap, seed)
    mated = Mated()
    if pairs is not None:
        listed = PairsPass(galleries[0], pairs, subjects)
        trials = listed.trials()
        collectors = [Collector(kind, Tails(trials.non_mated)) for kind in kinds if kind == "raw"]
        for collector in collectors:
            listed.run(collector, mated)
    else:
        passes = [GalleryPass(gallery, subjects) for gallery in galleries]
        trials = Trials.of_galleries([one.census() for one in passes])
        collectors = [Collector(kind, Tails(trials.non_mated)) for kind in kinds]
        for one in passes:
            one.run(collectors, mated, identification=identification)
    return [_figures(collector, mated, trials, targets, replicates) for collector in collectors]


def _figures(collector: Collector, mated: Mated, trials: Trials, targets: Targets, replicates: Replicates) -> Scored:
    return Scored(
        scores=collector.kind,
        verification=verification(mated.comparisons(collector, trials), targets.fmr, replicates),
        identifications=[identified(one, targets.ranks, targets.fpir, replicates) for one in collector.searches],
    )


def _check(galleries: Sequence[FusedGallery], kinds: Sequence[str], pairs: Pairs | None) -> None:
    unknown = set(kinds) - set(KINDS)
    if unknown or not galleries or (pairs is not None and len(galleries) > 1):
        raise ValueError(f"kinds must be of {KINDS}, and there must be a gallery, just one with pairs")
    checked: set[int] = set()
    for gallery in galleries:
        same_width([gallery.references, gallery.probes])
        for side, role in ((gallery.references, "reference"), (gallery.probes, "probe")):
            if id(side) not in checked:
                check(side, role)
            checked.add(id(side))
