"""An experiment by several methods: every sample is read once and fused by each, then all is compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np

from pfstore.errors import CancelledSetsError, InputError
from pfstore.evaluation.methods import Method, check
from pfstore.evaluation.protocols.experiment import Experiment, Failure, Gallery, SampleBatch, Samples
from pfstore.evaluation.results import Acquisition, Evaluation, MethodResult
from pfstore.evaluation.scoring import KINDS, Targets, scored
from pfstore.evaluation.templates import FusedGallery, Templates
from pfstore.evaluation.wording import count
from pfstore.features import Floats
from pfstore.fusion import Role

TARGETS = Targets()
BATCH_FEATURES = 20_000
_CANCELLED = "its features cancel to zero"
_NAMED = 5  # samples that a warning names; the others it counts
_PACKAGES = ("pfstore", "torch", "numpy")

# Samples by the identity of their object, and the role in which they are fused.
_Side: TypeAlias = tuple[int, Role]


@dataclass(frozen=True)
class Progress:
    """What is being done. features: fused so far by all methods together; method: scored, None while fusing."""

    features: int
    method: str | None = None


def evaluate(
    experiment: Experiment,
    methods: Sequence[Method],
    targets: Targets = TARGETS,
    *,
    kinds: Sequence[str] = KINDS,
    bootstrap: int = 1000,
    seed: int = 0,
    ignore_extractor: bool = False,
    observe: Callable[[Progress], None] = lambda _: None,
) -> Evaluation:
    """Evaluate methods side by side on the same samples and comparisons.

    References are fused in the gallery role, under "media" each medium first; probes in the probe role and always at
    once, as a search does. A sample whose features cancel has no template by that method, and is its failure: counted
    in its figures, told in a warning, and no failure to acquire. ignore_extractor: see methods.check.
    Memory: the templates of all methods (4 bytes a value), and a batch of features.

    Raises ContractError where a model does not fit the features, InputError where a method gives no template at all.
    """
    warnings = [*experiment.warnings, *check(methods, experiment, ignore_extractor=ignore_extractor)]
    fusing = [_Fusing(method, observe) for method in methods]
    sides: dict[_Side, list[Templates]] = {}
    for gallery in experiment.galleries:
        for samples, role in _sides(gallery):
            if (id(samples), role) not in sides:
                sides[id(samples), role] = _fused(samples, role, fusing)
    acquisition = _acquisition(sides)
    results = []
    for number, one in enumerate(fusing):
        observe(Progress(sum(other.features for other in fusing), one.method.label))
        galleries = [
            FusedGallery(gallery.name, *(sides[id(one), role][number] for one, role in _sides(gallery)))
            for gallery in experiment.galleries
        ]
        results.append(one.result(galleries, experiment, targets, kinds, bootstrap, seed))
    return Evaluation(
        experiment.name,
        experiment.extractor,
        experiment.dimension,
        experiment.facts,
        [*warnings, *(said for one in fusing for said in one.cancelled())],
        acquisition,
        results,
        _settings(targets, bootstrap, seed),
    )


@dataclass
class _Fusing:
    """One method at work, its time and its features."""

    method: Method
    observe: Callable[[Progress], None]
    seconds: float = 0.0
    features: int = 0
    values: int = 0
    void: dict[Role, list[str]] = field(default_factory=lambda: {"gallery": [], "probe": []})

    def templates(self, batch: SampleBatch, role: Role) -> _Batch:
        """Fuse a batch, leaving out the samples whose features cancel."""
        started = time.perf_counter()
        kept = np.ones(len(batch.subjects), dtype=bool)
        failures = list(batch.failures)
        values: Floats = np.empty((0, 0), dtype=np.float32)
        while kept.any():
            try:
                values = self._fuse(batch, kept, role)
                break
            except CancelledSetsError as error:
                left = batch.features.select(kept)
                numbers = np.asarray(error.numbers)
                if error.of == "medium":
                    numbers = np.searchsorted(left.subject_offsets, numbers, side="right") - 1
                kept[kept.nonzero()[0][numbers]] = False
        ids = batch.features.subject_ids
        void = (~kept).nonzero()[0].tolist()
        failures += [Failure(ids[one], batch.subjects[one], _CANCELLED) for one in void]
        self.void[role] += [ids[one] for one in void]
        self.seconds += time.perf_counter() - started
        self.features += len(batch.features.features)
        self.values = values.shape[1] or self.values
        self.observe(Progress(self.features))
        stays = kept.nonzero()[0].tolist()
        counts = np.diff(batch.features.set_offsets)[kept]
        return _Batch(values, [ids[one] for one in stays], [batch.subjects[one] for one in stays], counts, failures)

    def cancelled(self) -> Iterator[str]:
        """Say which samples have no template because their features cancel."""
        for role, noun in (("gallery", "reference"), ("probe", "probe")):
            if names := self.void[role]:  # type: ignore[index]
                more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
                named = ", ".join(repr(one) for one in names[:_NAMED])
                yield (
                    f"{self.method.label} gives {count(len(names), noun)} no template, as their features cancel to "
                    f"zero; they count as its failures: {named}{more}"
                )

    def _fuse(self, batch: SampleBatch, kept: np.ndarray[Any, np.dtype[np.bool_]], role: Role) -> Floats:
        features = batch.features.select(kept)
        fuser = self.method.fuser
        if role == "gallery" and self.method.strategy == "media":
            return fuser.templates_media(features.features, features.media_offsets, features.subject_offsets, role)
        return fuser.templates(features.features, features.set_offsets, role)

    def result(
        self,
        galleries: Sequence[FusedGallery],
        experiment: Experiment,
        targets: Targets,
        kinds: Sequence[str],
        bootstrap: int,
        seed: int,
    ) -> MethodResult:
        """Compare everything, and return the figures. Raises InputError where there is nothing to compare."""
        for gallery in galleries:
            for side, templates in (("reference", gallery.references), ("probe", gallery.probes)):
                if not len(templates.ids):
                    raise InputError(
                        f"{self.method.label} gives no {side} of {gallery.name} a template: all cancel to zero"
                    )
        figures = scored(
            galleries,
            targets,
            pairs=experiment.pairs,
            identification=experiment.identification,
            kinds=kinds,
            bootstrap=bootstrap,
            seed=seed,
        )
        method = self.method
        described = {key: value for key, value in method.fuser.describe().items() if key != "card"}
        return MethodResult(
            method.label, described, method.strategy, self.values, round(self.seconds, 3), self.features, figures
        )


@dataclass(frozen=True)
class _Batch:
    values: Floats
    ids: list[str]
    subjects: list[str]
    counts: Any
    failures: list[Failure] = field(default_factory=list)


def _sides(gallery: Gallery) -> tuple[tuple[Samples, Role], tuple[Samples, Role]]:
    return (gallery.references, "gallery"), (gallery.probes, "probe")


def _fused(samples: Samples, role: Role, fusing: Sequence[_Fusing]) -> list[Templates]:
    """Read the samples once and fuse each batch by every method."""
    parts: list[list[_Batch]] = [[] for _ in fusing]
    for batch in samples.read(BATCH_FEATURES):
        for one, own in zip(fusing, parts, strict=True):
            own.append(one.templates(batch, role))
    return [_joined(own, one.values) for one, own in zip(fusing, parts, strict=True)]


def _joined(parts: Sequence[_Batch], values: int) -> Templates:
    filled = [part for part in parts if len(part.ids)]
    return Templates(
        np.concatenate([np.empty((0, values), dtype=np.float32), *(part.values for part in filled)]),
        [one for part in filled for one in part.ids],
        [one for part in filled for one in part.subjects],
        np.concatenate([np.empty(0, dtype=np.int64), *(part.counts for part in filled)]),
        [one for part in parts for one in part.failures],
    )


def _acquisition(sides: Mapping[_Side, Sequence[Templates]]) -> Acquisition:
    """Count the samples, each of an object that several galleries share once; what cancels was acquired."""
    totals = {}
    for side in ("probe", "gallery"):
        templates = [fused[0] for (_, role), fused in sides.items() if role == side]
        failed = [failure for one in templates for failure in one.failures]
        lost = sum(failure.reason != _CANCELLED for failure in failed)
        totals[side] = (sum(len(one.ids) for one in templates) + len(failed), lost)
    return Acquisition(*totals["probe"], *totals["gallery"])


def _settings(targets: Targets, bootstrap: int, seed: int) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "replicates": bootstrap,
        "seed": seed,
        "targets": {name: list(values) for name, values in asdict(targets).items()},
        "software": {name: version(name) for name in _PACKAGES},
    }
