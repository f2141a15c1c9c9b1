"""One subject of a source by itself, with the key of every row, for a look at what its template was made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from pfstore.sources import keys
from pfstore.sources.assembly import Chunk, assemble
from pfstore.sources.base import FeatureSource, SourceBatch

_ALL = 2**62  # more rows than there are: a subject is one batch


@dataclass(frozen=True)
class SubjectRows:
    """What a source holds of one subject, as a backfill would read it.

    batch: of this subject alone. rows: [N], the key of each usable row, in the order of batch.features; "" where the
    source's rows have no key.
    """

    batch: SourceBatch
    rows: Sequence[str]


@runtime_checkable
class SubjectSource(Protocol):
    """A FeatureSource that finds one subject without reading the others' features; all of pfstore's can."""

    def read_subject(self, subject: str, *, dimension: int) -> SubjectRows | None:
        """Read a subject, named by the text of its key, in one snapshot; None where the source does not have it."""


def read_subject(source: FeatureSource, subject: str, *, dimension: int) -> SubjectRows | None:
    """Read one subject of any source; None where the source does not have it.

    A source that is no SubjectSource is read from its beginning until the subject comes; then no row's key is known.
    """
    if isinstance(source, SubjectSource):
        return source.read_subject(subject, dimension=dimension)
    for shard in source.shards(2**14):
        for batch in source.read(shard.range, dimension=dimension, features=2**14):
            if subject in batch.features.subject_ids or subject in batch.rejected_subjects:
                return _alone(batch, subject)
    return None


def gathered(chunks: Iterable[Chunk], subject: str, *, dimension: int, unordered: bool = False) -> SubjectRows | None:
    """Assemble the rows of one subject from chunks that may also hold others; None where there is none of it.

    unordered: as for assemble.
    """
    rows: list[str] = []
    parts = _noted(of_subjects({subject}, chunks), rows)
    batches = list(assemble(parts, dimension=dimension, batch_features=_ALL, unordered=unordered))
    if not batches:
        return None
    (batch,) = batches
    return SubjectRows(batch, _usable(rows, [one.row for one in batch.rejects]))


def of_subjects(subjects: Set[str] | None, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Yield of each chunk the rows of these subjects, named as the gallery has them; None: all."""
    for chunk in chunks:
        if subjects is None:
            yield chunk
            continue
        kept = [i for i, one in enumerate(chunk.subjects) if one and keys.storable(one) in subjects]
        if kept:
            yield chunk if len(kept) == len(chunk.subjects) else _part(chunk, kept)


def _noted(chunks: Iterable[Chunk], rows: list[str]) -> Iterator[Chunk]:
    """Note the keys of the rows that pass."""
    for chunk in chunks:
        rows.extend(map(keys.storable, chunk.rows))
        yield chunk


def _part(chunk: Chunk, kept: Sequence[int]) -> Chunk:
    return Chunk(
        [chunk.subjects[i] for i in kept],
        [chunk.media[i] for i in kept],
        [chunk.rows[i] for i in kept],
        [chunk.features[i] for i in kept],
        {place: chunk.faults[i] for place, i in enumerate(kept) if i in chunk.faults},
    )


def _usable(rows: Sequence[str], rejected: Sequence[str]) -> list[str]:
    """Return the rows without the rejected ones, which come in the same order."""
    left = iter(rejected)
    following = next(left, None)
    usable = []
    for row in rows:
        if row == following:
            following = next(left, None)
        else:
            usable.append(row)
    return usable


def _alone(batch: SourceBatch, subject: str) -> SubjectRows:
    features = batch.features.select(np.array([one == subject for one in batch.features.subject_ids], dtype=bool))
    rejects = [one for one in batch.rejects if one.subject == subject]
    gone = [one for one in batch.rejected_subjects if one == subject]
    return SubjectRows(SourceBatch(features, rejects, gone), [""] * len(features.features))
