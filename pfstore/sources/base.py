"""What every source of features offers, and the words for what it could not use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from pfstore.features import FeatureBatch

ShardRange: TypeAlias = Mapping[str, Any]
"""A shard's key range in JSON's types; only the source that made it can read it."""


class Reason(StrEnum):
    """Why a row was read and not fused."""

    EMPTY = "empty"
    UNDECODABLE = "undecodable"
    WRONG_DIMENSION = "wrong dimension"
    NON_FINITE = "non-finite"
    ZERO_NORM = "zero norm"
    NO_SUBJECT = "no subject"
    LONG_KEY = "key too long"
    LOW_QUALITY = "low quality"
    OTHER_EXTRACTOR = "other extractor"
    CANCELLED = "cancelled out"


@dataclass(frozen=True)
class Reject:
    """One row that was read and cannot be fused: its key, the reason, and the value at fault in a few words."""

    subject: str | None
    medium: str
    row: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class SourceBatch:
    """Whole subjects as read: `read` rows gave `len(features.features)` features and `len(rejects)` rejects.

    features: the subjects that have at least one usable feature; may hold no subject at all.
    rejected_subjects: the subjects of which every row was rejected, so that they are in no feature set.
    excluded: how many rows the mapping leaves out, by cause; these were not read.
    marks: by subject, what tells later whether its rows are as they were; empty where nobody asked.
    """

    features: FeatureBatch
    rejects: Sequence[Reject] = ()
    rejected_subjects: Sequence[str] = ()
    excluded: Mapping[str, int] = field(default_factory=dict)
    marks: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def read(self) -> int:
        """Rows read from the source for this batch."""
        return len(self.features.features) + len(self.rejects)

    @property
    def subjects(self) -> int:
        """Subjects seen in this batch, usable or not."""
        return len(self.features.subject_ids) + len(self.rejected_subjects)

    def first(self, subjects: int) -> SourceBatch:
        """Return this batch with so many of its subjects and no others."""
        if subjects >= self.subjects:
            return self
        usable = self.features.subject_ids
        rejected = self.rejected_subjects[: max(0, subjects - len(usable))]
        kept = {*usable[:subjects], *rejected}
        features = self.features.select(np.arange(len(usable)) < subjects)
        rejects = [one for one in self.rejects if one.subject in kept]
        return SourceBatch(features, rejects, rejected, self.excluded).marked(self.marks)

    def marked(self, marks: Mapping[str, bytes]) -> SourceBatch:
        """Return this batch with those of the marks that are of its subjects."""
        subjects = (*self.features.subject_ids, *self.rejected_subjects)
        return replace(self, marks={subject: marks[subject] for subject in subjects if subject in marks})


@dataclass(frozen=True)
class Shard:
    """A range of subject keys, small enough to be fused and committed at once.

    features, subjects: how many rows and subjects the plan counted there; the source may have changed since.
    """

    range: ShardRange
    features: int
    subjects: int


@dataclass(frozen=True)
class Sample:
    """What a look at the first rows of a source tells: its contract and how its values lie.

    dimension: values per feature, None where no row could be decoded. norms: of the usable features.
    excluded: how many of the first rows, of files of all rows, the mapping leaves out, by cause.
    """

    dimension: int | None
    read: int
    subjects: int
    media: int
    norms: Sequence[float]
    rejects: Sequence[Reject] = field(default_factory=tuple)
    excluded: Mapping[str, int] = field(default_factory=dict)


class FeatureSource(Protocol):
    """A legacy store of features, opened for reading alone.

    A source is a context manager; leaving it gives back connections and files.
    """

    @property
    def extractor(self) -> str:
        """The label of the detector and feature extractor that made every feature here."""
        ...

    @property
    def has_media(self) -> bool:
        """Whether features are grouped by image or video."""
        ...

    def sample(self, rows: int = 1000) -> Sample:
        """Read at most `rows` rows, decode them and tell what they look like."""
        ...

    def shards(self, features: int) -> Iterator[Shard]:
        """Cut the whole source, without a gap, into ranges of about this many features; never splits a subject.

        Together the ranges hold every key that could exist, so subjects that appear after the cut are in one.
        """
        ...

    def read(self, range_: ShardRange, *, dimension: int, features: int) -> Iterator[SourceBatch]:
        """Read a shard in one consistent snapshot, in batches of about `features` features and whole subjects.

        Features of another length than dimension are rejected. The same data give the same batches.
        """
        ...

    def __enter__(self) -> FeatureSource: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True)
class Marked:
    """A subject's key in JSON's types, its text, the number of its rows, and its mark.

    mark: equal to an earlier one only where every row of the subject is as it was then; b"" where that cannot be told
    now, as just after a change.
    """

    key: Sequence[Any]
    subject: str
    rows: int
    mark: bytes


@runtime_checkable
class MarkedSource(FeatureSource, Protocol):
    """A FeatureSource that tells of its subjects whether they have changed, without giving their features."""

    @property
    def marks_by(self) -> str:
        """By what it tells: "row versions", "change mark", "file", or "content", of which every value is read."""
        ...

    def read(self, range_: ShardRange, *, dimension: int, features: int, marks: bool = False) -> Iterator[SourceBatch]:
        """Read a shard, its batches with the marks of their subjects, of the same snapshot, where they are wanted."""
        ...

    @property
    def most_keys(self) -> int:
        """How many keys a range may hold."""
        ...

    def marks(self) -> Iterator[Marked]:
        """Yield every subject that has a row, in the source's order.

        A subject whose key is too long to be stored is not among them.
        """
        ...

    def range_of(self, keys: Sequence[Sequence[Any]]) -> ShardRange:
        """Return the range of these keys, as `marks` gave them, and no others."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """See one state of the source in everything that is asked within, where it can do so without locking it."""
        ...
