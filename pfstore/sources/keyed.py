"""What sources have in common that know all their subjects beforehand: files of features."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np

from pfstore.errors import SourceError
from pfstore.features import FeatureBatch
from pfstore.sources import keys
from pfstore.sources.assembly import LONGEST_KEY, Chunk, assemble
from pfstore.sources.base import Marked, Sample, Shard, ShardRange, SourceBatch
from pfstore.sources.single import SubjectRows, gathered

HDF5_SUFFIXES = (".hdf5", ".h5")

SLICE_VALUES = 2**20
"""Values read from a large array at once: 4 MB of float32."""


class KeyedSource(ABC):
    """A FeatureSource that knows its subjects beforehand; ranges are of their keys in the order of text."""

    def __init__(self, extractor: str, dimension: int | None) -> None:
        self._extractor = extractor
        self._dimension = dimension
        self.beside: Path | None = None
        """The file that was found beside the one that the configuration names, if any."""
        self._identity = ""
        self._stamp = b""

    @property
    def extractor(self) -> str:
        """The label of the detector and feature extractor that made every feature here."""
        return self._extractor

    @property
    @abstractmethod
    def has_media(self) -> bool:
        """Whether features are grouped by image or video."""

    @property
    @abstractmethod
    def subjects(self) -> Sequence[str]:
        """All subjects, sorted."""

    @abstractmethod
    def count(self, subject: str) -> int:
        """Return the number of rows of a subject without reading them."""

    @abstractmethod
    def chunks(self, subject: str) -> Iterator[Chunk]:
        """Yield the rows of a subject a slice at a time, a medium's rows together."""

    def chunks_of(self, subjects: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows of a part of `subjects`, one subject's after another's."""
        return (chunk for subject in subjects for chunk in self.chunks(subject))

    @property
    def excluded(self) -> Mapping[str, int]:
        """How many rows are left out, by cause: here none."""
        return {}

    def count_nobody(self) -> int:
        """Return the number of rows without a subject, without reading them: here none."""
        return 0

    def nobody(self) -> Iterator[Chunk]:
        """Yield the rows without a subject, which are counted and rejected: here none."""
        yield from ()

    def sample(self, rows: int = 1000) -> Sample:
        """Read at most `rows` rows, decode them and tell what they look like."""
        chunks = list(_head(chain(self.chunks_of(self.subjects), self.nobody()), rows))
        dimension = self._dimension or _usual_dimension(chunks)
        batches = list(assemble(chunks, dimension=dimension or 1, batch_features=rows))
        norms = [np.linalg.norm(batch.features.features.astype(np.float64), axis=1) for batch in batches]
        return Sample(
            dimension,
            sum(batch.read for batch in batches),
            sum(batch.subjects for batch in batches),
            sum(len(batch.features.media_ids) for batch in batches),
            np.concatenate(norms).tolist() if norms else [],
            [reject for batch in batches for reject in batch.rejects],
            self.excluded,
        )

    def shards(self, features: int) -> Iterator[Shard]:
        """Cut the whole source, without a gap, into ranges of about this many features; never splits a subject.

        The rows without a subject are in the last one. Raises SourceError where two keys are stored as one text.
        """
        if len(set(map(keys.storable, self.subjects))) < len(self.subjects):
            alike = Counter(map(keys.storable, self.subjects)).most_common(1)[0][0]
            raise SourceError(f"two of the source's keys read the same as text, {alike!r}; rename one")
        after: Any = None
        rows = subjects = 0
        for position, subject in enumerate(self.subjects, 1):
            rows += self.count(subject)
            subjects += 1
            if rows >= features and position < len(self.subjects):
                to = keys.part_to_json(subject)
                yield Shard({"after": after, "to": to}, rows, subjects)
                after, rows, subjects = to, 0, 0
        yield Shard({"after": after, "to": None}, rows + self.count_nobody(), subjects)

    def told(self, identity: str, stamped: bytes) -> None:
        """Let a source know what decides which rows it gives, and the stamp of the files that it has read."""
        self._identity, self._stamp = identity, stamped

    @property
    def marks_by(self) -> str:
        """By what it tells whether a subject has changed: "file"."""
        return "file"

    @property
    def most_keys(self) -> int:
        """How many keys a range may hold."""
        return 10_000

    def marks(self) -> Iterator[Marked]:
        """Yield every subject with its mark, which is of the files that it is in."""
        return (self._marked(subject) for subject in self.subjects if len(subject.encode()) <= LONGEST_KEY)

    def range_of(self, keys: Sequence[Sequence[Any]]) -> ShardRange:
        """Return the range of these keys and no others."""
        return {"keys": [list(key) for key in keys]}

    def snapshot(self) -> AbstractContextManager[None]:
        """Return a context in which nothing else happens: files have no snapshot."""
        return nullcontext()

    def stamp(self, _subject: str, /) -> bytes:
        """Return the stamp of the files that a subject is in, b"" where it cannot be told: that of all files."""
        return self._stamp

    def _marked(self, subject: str) -> Marked:
        stamped = self.stamp(subject)
        mark = hashlib.blake2b(stamped + self._identity.encode(), digest_size=16).digest() if stamped else b""
        return Marked([keys.part_to_json(subject)], keys.storable(subject), self.count(subject), mark)

    def read(self, range_: ShardRange, *, dimension: int, features: int, marks: bool = False) -> Iterator[SourceBatch]:
        """Read a shard in batches of about `features` features and whole subjects.

        marks: with those of the subjects. Raises SourceError where a file cannot be read.
        """
        known: dict[str, bytes] = {}
        if marks:
            known = {one.subject: one.mark for one in map(self._marked, self._within(range_))}
        for batch in self._read(range_, dimension, features):
            yield batch.marked(known)

    def _within(self, range_: ShardRange) -> Sequence[str]:
        """Return the subjects of a range."""
        if "keys" in range_:
            wanted = {keys.part_from_json(key) for (key,) in range_["keys"]}
            return [subject for subject in self.subjects if subject in wanted]
        after, to = keys.part_from_json(range_["after"]), keys.part_from_json(range_["to"])
        first = 0 if after is None else bisect_right(self.subjects, after)
        last = len(self.subjects) if to is None else bisect_right(self.subjects, to)
        return self.subjects[first:last]

    def _read(self, range_: ShardRange, dimension: int, features: int) -> Iterator[SourceBatch]:
        subjects = self._within(range_)
        if "keys" in range_:
            apart = chain.from_iterable(self.chunks_of([subject]) for subject in subjects)
            yield from assemble(apart, dimension=dimension, batch_features=features)
            return
        is_last = range_["to"] is None
        chunks = chain(self.chunks_of(subjects), self.nobody() if is_last else ())
        yield from assemble(chunks, dimension=dimension, batch_features=features)
        if is_last and self.excluded:
            yield SourceBatch(FeatureBatch.empty(dimension), excluded=self.excluded)

    def read_subject(self, subject: str, *, dimension: int) -> SubjectRows | None:
        """Read one subject, named as the gallery has it; None where there is none of this name."""
        name = next((one for one in self.subjects if keys.storable(one) == subject), None)
        return None if name is None else gathered(self.chunks(name), subject, dimension=dimension)

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *exc: object) -> None: ...


def _head(chunks: Iterator[Chunk], rows: int) -> Iterator[Chunk]:
    """Yield so many rows."""
    for chunk in chunks:
        if rows <= 0:
            return
        faults = {row: fault for row, fault in chunk.faults.items() if row < rows}
        yield Chunk(chunk.subjects[:rows], chunk.media[:rows], chunk.rows[:rows], chunk.features[:rows], faults)
        rows -= len(chunk.subjects)


def _usual_dimension(chunks: Sequence[Chunk]) -> int | None:
    """Return the length that most features have."""
    sizes = Counter(int(vector.size) for chunk in chunks for vector in chunk.features if vector is not None)
    return sizes.most_common(1)[0][0] if sizes else None
