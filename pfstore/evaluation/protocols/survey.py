"""One look at all samples before anything is fused: what there is, what is wrong, and whether it can be evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pfstore.errors import InputError
from pfstore.evaluation.protocols.experiment import Experiment, Failure, Gallery, Pairs
from pfstore.evaluation.protocols.samples import ReadSamples
from pfstore.features import Floats
from pfstore.sources.base import Reject, SourceBatch

BATCH_FEATURES = 16_384

_SHOWN = 5


@dataclass
class Seen:
    """What reading all of some samples told.

    subjects: of the samples with a usable feature, by the samples' ids. norms: of the usable features.
    """

    subjects: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    media: int = 0
    read: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, Reject] = field(default_factory=dict)
    norms: list[Floats] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """How many there are, usable or not."""
        return len(self.subjects) + len(self.failures)

    def add(self, batch: SourceBatch, samples: ReadSamples) -> None:
        """Count a batch."""
        self.subjects |= {one: samples.subject_of(one) for one in batch.features.subject_ids}
        self.failures += samples.failures(batch)
        self.media += len(batch.features.media_ids)
        self.read += batch.read
        for reject in batch.rejects:
            self.rejected[str(reject.reason)] += 1
            self.firsts.setdefault(str(reject.reason), reject)
        self.norms.append(np.sqrt(np.einsum("nd,nd->n", batch.features.features, batch.features.features)))


@dataclass(frozen=True)
class Compared:
    """A gallery before it is looked at: samples that tell what is wrong with them."""

    name: str
    references: ReadSamples
    probes: ReadSamples


def surveyed(
    name: str,
    galleries: Sequence[Compared],
    *,
    dimension: int,
    extractor: str,
    pairs: Pairs | None = None,
    facts: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Experiment:
    """Return the experiment of some galleries, or with pairs of one, after reading every sample once.

    facts: those of the protocol, which come first and, under the same name, in the place of those counted here.
    Memory: 4 bytes a feature, for the median norm.

    Raises InputError where fewer than two subjects have a usable feature, or no probe is mated.
    """
    seen = {id(side): _seen(side) for one in galleries for side in (one.references, one.probes)}
    references = _distinct(seen, [one.references for one in galleries])
    probes = _distinct(seen, [one.probes for one in galleries])
    searches = [_searches(one, seen) for one in galleries]
    _check(name, references, probes, searches, pairs)
    counted = _facts(references, probes, searches if pairs is None else [])
    return Experiment(
        name,
        [Gallery(one.name, one.references, one.probes) for one in galleries],
        dimension,
        extractor,
        pairs,
        identification=pairs is None,
        facts=dict(facts or {}) | {key: value for key, value in counted.items() if key not in (facts or {})},
        warnings=[*warnings, *_warnings(references, probes), *([] if pairs else _open_set(searches))],
    )


def shown(names: Iterable[str]) -> str:
    """Return the first few of some names for a message, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return ", ".join(repr(one) for one in listed[:_SHOWN]) + more


def _seen(samples: ReadSamples) -> Seen:
    seen = Seen()
    for batch in samples.batches(BATCH_FEATURES):
        seen.add(batch, samples)
    return seen


def _distinct(seen: Mapping[int, Seen], sides: Sequence[ReadSamples]) -> list[Seen]:
    return [seen[one] for one in dict.fromkeys(id(side) for side in sides)]


def _searches(gallery: Compared, seen: Mapping[int, Seen]) -> dict[str, Any]:
    references, probes = seen[id(gallery.references)], seen[id(gallery.probes)]
    # A mate that failed to enrol is still meant to be found.
    enrolled = {*references.subjects.values(), *(failure.subject for failure in references.failures)}
    mated = sum(subject in enrolled for subject in probes.subjects.values())
    return {
        "gallery": gallery.name,
        "enrolled": len(references.subjects),
        "mated": mated,
        "non_mated": len(probes.subjects) - mated,
        "failed": len(probes.failures),
    }


def _check(
    name: str,
    references: Sequence[Seen],
    probes: Sequence[Seen],
    searches: Sequence[Mapping[str, Any]],
    pairs: Pairs | None,
) -> None:
    subjects = {subject for side in (*references, *probes) for subject in side.subjects.values()}
    if len(subjects) < 2:
        there = f"only one subject, {next(iter(subjects))!r}," if subjects else "no subject"
        raise InputError(f"{name}: {there} has a usable feature; comparisons need two subjects or more")
    enrolled = {subject for side in references for subject in side.subjects.values()}
    if not enrolled:
        raise InputError(f"{name}: no reference has a usable feature, so there is nothing to compare with")
    searched = {subject for side in probes for subject in side.subjects.values()}
    if not searched & enrolled:
        raise InputError(
            f"{name}: no probe is mated: the subjects of the probes ({shown(sorted(searched)) or 'none usable'}) "
            f"are none of the references' ({shown(sorted(enrolled))})"
        )
    if pairs is None and not any(one["mated"] for one in searches):
        raise InputError(f"{name}: no probe is mated in any of the galleries; check which probes go with which")


def _facts(references: Sequence[Seen], probes: Sequence[Seen], searches: Sequence[Any]) -> dict[str, Any]:
    both = [*references, *probes]
    rejected = sum((one.rejected for one in both), Counter[str]())
    norms = np.concatenate([norms for one in both for norms in one.norms])
    return {
        "subjects": len({subject for one in both for subject in one.subjects.values()}),
        "references": sum(one.samples for one in references),
        "probes": sum(one.samples for one in probes),
        "media": {
            "references": sum(one.media for one in references),
            "probes": sum(one.media for one in probes),
        },
        "features": features_fact(sum(one.read for one in both), rejected),
        "failures": {
            "references": sum(len(one.failures) for one in references),
            "probes": sum(len(one.failures) for one in probes),
        },
        **({"searches": searches} if searches else {}),
        "norms": norms_fact(norms),
    }


def features_fact(read: int, rejected: Mapping[str, int]) -> dict[str, Any]:
    """Return how many features were read, used and left out by reason."""
    return {"read": read, "used": read - sum(rejected.values()), "rejected": dict(rejected)}


def norms_fact(norms: Floats) -> dict[str, float]:
    """Return the least, the median and the largest norm of some features, at least one."""
    return {"min": float(norms.min()), "median": float(np.median(norms)), "max": float(norms.max())}


def _warnings(references: Sequence[Seen], probes: Sequence[Seen]) -> list[str]:
    found = []
    for kind, sides in (("references", references), ("probes", probes)):
        found += left_out(kind, sum(side.read for side in sides), *_rejected(sides))
        failures = [failure for side in sides for failure in side.failures]
        if failures:
            total = sum(side.samples for side in sides)
            what = "failed to acquire" if kind == "probes" else "failed to enrol"
            reason = f"{failures[0].sample!r}: {failures[0].reason}"
            names = shown(failure.sample for failure in failures)
            found.append(
                f"{len(failures):,} of {total:,} {kind} {what}, as no feature is usable: {names}; first {reason}"
            )
    return found


def left_out(kind: str, read: int, rejected: Mapping[str, int], firsts: Mapping[str, Reject]) -> list[str]:
    """Return the sentence on the features that were left out, none where all are used."""
    if not rejected:
        return []
    listed = "; ".join(
        f"{count:,} {reason}, first {_named(firsts[reason])}: {firsts[reason].detail}"
        for reason, count in rejected.items()
    )
    return [f"{sum(rejected.values()):,} of the {read:,} features of {kind} were left out: {listed}"]


def _rejected(sides: Sequence[Seen]) -> tuple[Counter[str], dict[str, Reject]]:
    firsts: dict[str, Reject] = {}
    for side in sides:
        firsts = side.firsts | firsts
    return sum((side.rejected for side in sides), Counter[str]()), firsts


def _named(reject: Reject) -> str:
    row = f" row {reject.row}" if reject.row else ""
    return f"{reject.subject!r}{row}"


def _open_set(searches: Sequence[Mapping[str, Any]]) -> list[str]:
    if any(one["non_mated"] for one in searches):
        return []
    return ["no search is non-mated, so there is no FPIR and no FNIR at one: leave some subjects out of the gallery"]
