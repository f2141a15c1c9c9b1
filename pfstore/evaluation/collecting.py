"""One pass over all comparisons, keeping what the figures need and nothing that grows with their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import InputError
from pfstore.evaluation.comparing import MASKED, Keys, blocks, cohort_shifts, mates, of_pairs
from pfstore.evaluation.distributions import Tally
from pfstore.evaluation.identification import Searches
from pfstore.evaluation.protocols.experiment import Failure
from pfstore.evaluation.tails import Codes, Hashes, Locate, Tails, hashes
from pfstore.evaluation.templates import FusedGallery, Templates
from pfstore.evaluation.trials import Census, Trials
from pfstore.evaluation.verification import Comparisons
from pfstore.features import Offsets

# So many keys of a block are sorted and searched at a time.
CHUNK = 2**21
# No key is as high, so no rank is counted for a probe without a mate.
NO_MATE = 2**30


@dataclass(frozen=True)
class Subjects:
    """The subjects of an evaluation in the order of their names, so that the draw does not depend on the data's."""

    codes: Mapping[str, int]

    @classmethod
    def of(cls, galleries: Sequence[FusedGallery]) -> Subjects:
        """Number all subjects, those included that have failures only."""
        sides = [side for gallery in galleries for side in (gallery.references, gallery.probes)]
        names = {name for side in sides for name in (*side.subjects, *(one.subject for one in side.failures))}
        return cls({name: number for number, name in enumerate(sorted(names))})

    def __len__(self) -> int:
        return len(self.codes)

    def of_templates(self, templates: Templates) -> Offsets:
        """[S] the codes of templates' subjects."""
        return np.array([self.codes[name] for name in templates.subjects], dtype=np.int64)

    def of_failures(self, failures: Sequence[Failure]) -> Offsets:
        """[f] the codes of failures' subjects."""
        return np.array([self.codes[one.subject] for one in failures], dtype=np.int64)


@dataclass
class Side:
    """Templates of one role in one gallery. codes: [S] of their subjects. failed: [f] of those that failed."""

    templates: Templates
    codes: Offsets
    failed: Offsets
    hashes: Hashes

    @classmethod
    def of(cls, templates: Templates, subjects: Subjects, place: str) -> Side:
        """Look the subjects up; place: names the gallery and the role."""
        codes, failed = subjects.of_templates(templates), subjects.of_failures(templates.failures)
        return cls(templates, codes, failed, hashes(templates.ids, place))


@dataclass
class Collector:
    """What one kind of scores comes to."""

    kind: str
    tails: Tails
    tally: Tally = field(default_factory=Tally)
    mated: list[Keys] = field(default_factory=list)
    searches: list[Searches] = field(default_factory=list)

    def add(self, keys: Keys, sums: Hashes, locate: Locate) -> None:
        """Add non-mated comparisons. keys: [n]. sums: [n] of the samples' hashes. locate: as Tails.offer takes it."""
        self.tally.add(keys)
        self.tails.offer(keys, sums, locate)


@dataclass
class Mated:
    """The mated comparisons of all galleries, the same under each kind. subjects, features: see Comparisons."""

    subjects: list[Offsets] = field(default_factory=list)
    features: list[Offsets] = field(default_factory=list)

    def comparisons(self, collector: Collector, trials: Trials) -> Comparisons:
        """Return what verification() takes."""
        return Comparisons(
            collector.kind,
            np.concatenate([np.empty(0, np.int32), *collector.mated]),
            np.concatenate([np.empty(0, np.int64), *self.subjects]),
            np.concatenate([np.empty(0, np.int64), *self.features]),
            collector.tally.result(),
            collector.tails.result(),
            trials,
        )


class GalleryPass:
    """All comparisons of one gallery."""

    def __init__(self, gallery: FusedGallery, subjects: Subjects) -> None:
        self.name, self.count = gallery.name, len(subjects)
        self.references = Side.of(gallery.references, subjects, f"{gallery.name}\0reference")
        self.probes = Side.of(gallery.probes, subjects, f"{gallery.name}\0probe")

    def census(self) -> Census:
        """Count samples by subject."""
        done = [np.bincount(side.codes, minlength=self.count) for side in (self.references, self.probes)]
        failed = [np.bincount(side.failed, minlength=self.count) for side in (self.references, self.probes)]
        return Census(done[0], done[1], done[0] + failed[0], done[1] + failed[1])

    def run(self, collectors: Sequence[Collector], mated: Mated, *, identification: bool) -> None:
        """Compare each probe with each reference. Raises InputError as _Mates does."""
        references, probes = self.references, self.probes
        own = _Mates.of(probes, references, self.name if identification else None)
        shifts, best, ranks = self._stream(collectors, own)
        mated.subjects.append(probes.codes[own.rows])
        mated.features.append(probes.templates.features[own.rows])
        for collector in collectors:
            shift = shifts if collector.kind == "cohort" else np.zeros_like(shifts)
            collector.mated.append(own.keys + shift[own.rows])
            if identification:
                collector.searches.append(self._searches(collector.kind, own, best + shift, ranks, shift))

    def _stream(self, collectors: Sequence[Collector], own: _Mates) -> tuple[Keys, Keys, Offsets]:
        """Return, of each probe, the shift to cohort scores, the best non-mated key, the rank of the mate."""
        count = len(self.probes.codes)
        shifts, best = np.zeros(count, dtype=np.int32), np.full(count, MASKED, dtype=np.int32)
        ranks = np.ones(count, dtype=np.int64)
        floors = own.floors(count)
        references, codes = self.references.codes.astype(np.int32), self.probes.codes.astype(np.int32)
        cohort = any(collector.kind == "cohort" for collector in collectors)
        for part, keys in _chunks(self.probes.templates, self.references.templates):
            if cohort:
                shifts[part] = cohort_shifts(keys)
            own.mask(part, keys)
            best[part] = keys.max(axis=1)
            ranks[part] += np.count_nonzero(keys >= floors[part, None], axis=1)
            sums = self.probes.hashes[part, None] + self.references.hashes
            locate = _locating(references, codes[part])
            for collector in collectors:
                shifted = keys + shifts[part, None] if collector.kind == "cohort" else keys
                collector.add(shifted.ravel(), sums.ravel(), locate)
        return shifts, best, ranks

    def _searches(self, kind: str, own: _Mates, best: Keys, ranks: Offsets, shift: Keys) -> Searches:
        probes, references = self.probes, self.references
        expected = np.union1d(references.codes, references.failed)
        outside = ~np.isin(probes.codes, expected)
        unenrolled = np.isin(probes.codes, references.failed) & ~np.isin(probes.codes, references.codes)
        failed = [probes.codes[unenrolled], probes.failed[np.isin(probes.failed, expected)]]
        return Searches(
            self.name,
            kind,
            len(references.codes),
            mated=probes.codes[own.rows],
            mates=own.keys + shift[own.rows],
            ranks=ranks[own.rows],
            failed=np.concatenate(failed),
            non_mated=probes.codes[outside],
            best=best[outside],
        )


@dataclass(frozen=True)
class _Mates:
    """The mated comparisons of one gallery. rows: [m] probes, rising; columns: [m] references; keys: [m] int32."""

    rows: Offsets
    columns: Offsets
    keys: Keys

    @classmethod
    def of(cls, probes: Side, references: Side, unique: str | None) -> _Mates:
        """Find and compare them. Raises InputError where a subject has two references; unique: the gallery to name."""
        found, counts = np.unique(references.codes, return_counts=True)
        if unique is not None and (counts > 1).any():
            twice = int(np.flatnonzero(references.codes == found[counts > 1][0])[0])
            raise InputError(
                f"subject {references.templates.subjects[twice]!r} has more than one reference in gallery {unique!r}, "
                "so a rank means nothing: enrol one, or evaluate without identification"
            )
        rows, columns = mates(probes.codes, references.codes)
        return cls(rows, columns, of_pairs(probes.templates.values, references.templates.values, rows, columns))

    def floors(self, probes: int) -> Keys:
        """[P] the key that others must have to stand before the mate."""
        floors = np.full(probes, NO_MATE, dtype=np.int32)
        floors[self.rows] = self.keys
        return floors

    def mask(self, part: slice, keys: Keys) -> None:
        """Take the mated comparisons out of the keys of some probes ([b, G])."""
        first, last = np.searchsorted(self.rows, [part.start, part.stop])
        keys[self.rows[first:last] - part.start, self.columns[first:last]] = MASKED


def _chunks(probes: Templates, references: Templates) -> Iterator[tuple[slice, Keys]]:
    for first, block in blocks(probes.values, references.values):
        rows = max(1, CHUNK // block.shape[1])
        for start in range(0, len(block), rows):
            chunk = block[start : start + rows]
            yield slice(first + start, first + start + len(chunk)), chunk


def _locating(references: Codes, probes: Codes) -> Locate:
    def locate(places: NDArray[np.intp]) -> tuple[Codes, Codes]:
        rows = places // len(references)
        return references[places - rows * len(references)], probes[rows]

    return locate
