"""Samples that are read when they are needed: from files, a chunk at a time, or by number from one array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import InputError
from pfstore.evaluation.protocols.experiment import Failure, SampleBatch
from pfstore.features import FeatureBatch, Floats, Offsets, offsets_of
from pfstore.sources.assembly import MINIMUM_NORM, Chunk, assemble
from pfstore.sources.base import Reason, Reject, SourceBatch
from pfstore.sources.keys import storable

_SAMPLED_ROWS = 1000


class ReadSamples(ABC):
    """Samples as sources read them, with what is wrong with the others; a batch's subject_ids are the samples' ids.

    subject_of: gives the subject of a sample by its id.
    """

    def __init__(self, subject_of: Callable[[str], str]) -> None:
        self.subject_of = subject_of

    @abstractmethod
    def batches(self, features: int) -> Iterator[SourceBatch]:
        """Yield batches of about so many features and whole samples, each sample once."""

    def read(self, features: int) -> Iterator[SampleBatch]:
        """Yield batches of about so many features and whole samples."""
        for batch in self.batches(features):
            subjects = [self.subject_of(sample) for sample in batch.features.subject_ids]
            yield SampleBatch(batch.features, subjects, self.failures(batch))

    def failures(self, batch: SourceBatch) -> list[Failure]:
        """Return the samples of a batch of which no row is usable, each with the reason or reasons."""
        rejects: dict[str, list[Reject]] = {sample: [] for sample in batch.rejected_subjects}
        for reject in batch.rejects:
            if reject.subject in rejects:
                rejects[reject.subject].append(reject)
        return [Failure(one, self.subject_of(one), _why(rejects[one])) for one in rejects]


class ChunkedSamples(ReadSamples):
    """Samples whose rows come as chunks, in which the sample stands for the subject.

    chunks: begins a reading; the same each time. dimension: D; features of another length are rejected, and so is what
    a source rejects.
    """

    def __init__(
        self, subject_of: Callable[[str], str], chunks: Callable[[], Iterator[Chunk]], dimension: int | None
    ) -> None:
        super().__init__(subject_of)
        self._chunks = chunks
        self.dimension = dimension or usual_dimension(chunks())

    def batches(self, features: int) -> Iterator[SourceBatch]:
        """Yield batches of about so many features and whole samples, each sample once."""
        yield from assemble(self._chunks(), dimension=self.dimension, batch_features=features)


class IndexedSamples(ReadSamples):
    """Samples of numbered rows of one array, which may be mapped: only the rows of a batch are in memory.

    subjects: of each sample by its id; S samples. array: [N, D] float. rows: [R] int64, the rows of all samples, those
    of a medium together and those of a sample. media_offsets: [M+1] int64, counting in rows. sample_offsets: [S+1]
    int64, counting media; a sample may have none. media: [M], unique within a sample.
    """

    def __init__(
        self,
        subjects: Mapping[str, str],
        array: NDArray[Any],
        rows: Offsets,
        *,
        media_offsets: Offsets,
        sample_offsets: Offsets,
        media: Sequence[str],
    ) -> None:
        super().__init__(subjects.__getitem__)
        self._ids = list(subjects)
        self._array, self._rows, self._media = array, rows, media
        self._media_offsets, self._sample_offsets = media_offsets, sample_offsets

    @property
    def ids(self) -> Sequence[str]:
        """The samples in their order."""
        return self._ids

    def batches(self, features: int) -> Iterator[SourceBatch]:
        """Yield batches of about so many features and whole samples, each sample once."""
        ends = self._media_offsets[self._sample_offsets]
        for first, last in pairwise(_cuts(ends, features)):
            yield self._batch(first, last)

    def _batch(self, first: int, last: int) -> SourceBatch:
        """Return the samples of these numbers, checked as a source checks its rows."""
        bounds = self._sample_offsets[first : last + 1]
        cuts = self._media_offsets[bounds[0] : bounds[-1] + 1]
        rows = self._rows[cuts[0] : cuts[-1]]
        with np.errstate(over="ignore"):
            values = np.asarray(self._array[rows], dtype=np.float32)
        # In float64 no sum of finite squares overflows, so one pass tells all.
        norms = np.sqrt(np.einsum("nd,nd->n", values, values, dtype=np.float64))
        usable = (norms >= MINIMUM_NORM) & ~np.isinf(norms)
        kept = values if usable.all() else values[usable]
        batch, lost = self._kept(first, last, kept, np.diff(_counted_to(usable)[cuts - cuts[0]]))
        bad = (~usable).nonzero()[0]
        media = bounds[0] + np.searchsorted(cuts, cuts[0] + bad, side="right") - 1
        return SourceBatch(batch, [*self._rejects(media, rows[bad], norms[bad]), *self._empty(first, last)], lost)

    def _kept(self, first: int, last: int, values: Floats, features: Offsets) -> tuple[FeatureBatch, list[str]]:
        """Return the batch of the media that still have features, and the samples left with none.

        values: the usable features. features: how many each medium of these samples has.
        """
        bounds = self._sample_offsets[first : last + 1]
        media = np.diff(_counted_to(features > 0)[bounds - bounds[0]])
        batch = FeatureBatch(
            values,
            offsets_of(features[features > 0]),
            offsets_of(media[media > 0]),
            [self._ids[first + int(one)] for one in media.nonzero()[0]],
            [self._media[int(bounds[0] + one)] for one in features.nonzero()[0]],
        )
        return batch, [self._ids[first + int(one)] for one in (media == 0).nonzero()[0]]

    def _rejects(self, media: Offsets, rows: Offsets, norms: NDArray[np.float64]) -> Iterator[Reject]:
        samples = np.searchsorted(self._sample_offsets, media, side="right") - 1
        for sample, medium, row, norm in zip(*(one.tolist() for one in (samples, media, rows, norms)), strict=True):
            what = (
                (Reason.ZERO_NORM, f"norm {norm:.3g}") if np.isfinite(norm) else (Reason.NON_FINITE, "NaN or infinite")
            )
            yield Reject(self._ids[sample], self._media[medium], str(row), *what)

    def _empty(self, first: int, last: int) -> Iterator[Reject]:
        for sample in (np.diff(self._sample_offsets[first : last + 1]) == 0).nonzero()[0].tolist():
            yield Reject(self._ids[first + sample], "", "", Reason.EMPTY, "no feature")


def numbered(samples: Iterable[tuple[str, str]], what: str) -> dict[str, str]:
    """Return the subject of each sample by its id, both as a gallery could store them, in their order.

    Raises InputError where two samples have one id. what: of them, for the message.
    """
    subjects: dict[str, str] = {}
    for sample, subject in samples:
        name = storable(sample)
        if name in subjects:
            raise InputError(f"{what} {name!r} is there twice; give each one a name of its own")
        subjects[name] = storable(subject)
    return subjects


def usual_dimension(chunks: Iterable[Chunk]) -> int:
    """Return the length that most of the first features have. Raises InputError where there is none."""
    sizes: Counter[int] = Counter()
    for chunk in chunks:
        sizes.update(int(vector.size) for vector in chunk.features if vector is not None)
        if sizes.total() >= _SAMPLED_ROWS:
            break
    if not sizes:
        raise InputError("no sample has a feature that can be read, so there is nothing to evaluate")
    return sizes.most_common(1)[0][0]


def _cuts(ends: Offsets, features: int) -> list[int]:
    """Return the numbers of the samples at which batches begin and end. ends: [S+1], counting features."""
    cuts, samples = [0], len(ends) - 1
    while cuts[-1] < samples:
        start = cuts[-1]
        fitting = int(np.searchsorted(ends, ends[start] + features, side="right")) - 1
        cuts.append(min(samples, max(start + 1, fitting)))
    return cuts


def _counted_to(flags: NDArray[np.bool_]) -> Offsets:
    """Return how many of the flags before each place are set, [n+1]."""
    return offsets_of(flags.astype(np.int64))


def _why(rejects: Sequence[Reject]) -> str:
    counts = Counter(str(reject.reason) for reject in rejects)
    if len(rejects) == 1:
        return f"{rejects[0].reason} ({rejects[0].detail})"
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
