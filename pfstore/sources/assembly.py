"""Rows as a source reads them become batches of whole subjects: values checked, every row accounted for."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, compress, count, islice, pairwise
from operator import ne
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import SourceError
from pfstore.features import FeatureBatch, Floats
from pfstore.sources import keys
from pfstore.sources.base import Reason, Reject, SourceBatch
from pfstore.stages import stage

LONGEST_KEY = 2000
"""Bytes of a subject's key as text: PostgreSQL cannot index much more."""

MINIMUM_NORM = 1e-6
"""A feature shorter than this has no direction that could be told from rounding."""

_TWO_KEYS = "two of the source's keys read the same as text"

Vectors: TypeAlias = NDArray[Any] | Sequence[NDArray[Any] | None]
"""Decoded features: [n, d] of any float type, or n vectors of any lengths."""


@dataclass(frozen=True)
class Fault:
    """Why one row cannot be used, and the value at fault in a few words."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows as read and decoded; a subject's rows are adjacent, and in it a medium's rows.

    subjects: [n]; None or "" where the row has no subject. media: [n]; "" where there is none.
    rows: [n], each row's own key for the reports, RowTexts where it is made then. features: [n, d] or n vectors.
    faults: by row, what its reader already found wrong; the feature of such a row is not looked at.
    """

    subjects: Sequence[str | None]
    media: Sequence[str]
    rows: Sequence[str]
    features: Vectors
    faults: Mapping[int, Fault] = field(default_factory=dict)


def assemble(
    chunks: Iterable[Chunk], *, dimension: int, batch_features: int, unordered: bool = False
) -> Iterator[SourceBatch]:
    """Yield whole subjects in batches of about batch_features rows; a subject of that many has its own batch.

    The batches depend on the rows alone, not on how they were cut into chunks. Rows without a subject are
    rejected, and so are features of another dimension, non-finite ones (also after the cast to float32) and
    those with a norm below MINIMUM_NORM. unordered: the rows of a medium come in an order that may be another
    the next time, so the features are put in the order of their bytes.

    Raises SourceError where a subject's or medium's rows are not adjacent.
    """
    cutter, queue = _Cutter(batch_features), deque[_Part]()
    for read in chunks:
        with stage("decoding"):
            chunk = _storable(read)
            queue.append(_checked(chunk, dimension))
        for rows in cutter.cuts(chunk.subjects):
            yield _batch(_take(queue, rows), dimension, unordered)
    for rows in cutter.rest():
        yield _batch(_take(queue, rows), dimension, unordered)


def _storable(chunk: Chunk) -> Chunk:
    """Return the chunk with no key that the gallery could not store, wherever that came from."""
    return replace(chunk, subjects=keys.all_storable(chunk.subjects), media=keys.all_storable(chunk.media))


@dataclass(frozen=True)
class _Part:
    """Checked rows. usable: [n] bool; features: [usable, D]; rejects: of all other rows, in their order."""

    subjects: Sequence[str | None]
    media: Sequence[str]
    usable: NDArray[np.bool_]
    features: Floats
    rejects: Sequence[Reject]

    def split(self, rows: int) -> tuple[_Part, _Part]:
        features = int(np.count_nonzero(self.usable[:rows]))
        rejects = rows - features
        return (
            _Part(
                self.subjects[:rows],
                self.media[:rows],
                self.usable[:rows],
                self.features[:features],
                self.rejects[:rejects],
            ),
            _Part(
                self.subjects[rows:],
                self.media[rows:],
                self.usable[rows:],
                self.features[features:],
                self.rejects[rejects:],
            ),
        )


class _Cutter:
    """Tells after how many rows each batch ends."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._closed = 0  # rows of whole subjects since the last cut
        self._current = 0  # rows of the subject that may still go on
        self._subject: str | None = None
        self._seen: set[str] = set()

    def cuts(self, subjects: Sequence[str | None]) -> Iterator[int]:
        """Yield the number of rows of each batch that these subjects complete."""
        for start, end in pairwise([*_run_starts(subjects), len(subjects)]):
            subject, rows = subjects[start], end - start
            if not subject:
                yield from self._nobody(rows)
            elif subject == self._subject:
                self._current += rows
            else:
                yield from self._close()
                self._open(subject, rows)

    def rest(self) -> Iterator[int]:
        """Yield the number of rows of the batches that are complete as nothing follows."""
        yield from self._close()
        if self._closed:
            yield self._closed

    def _nobody(self, rows: int) -> Iterator[int]:
        # Rows without a subject belong to nothing whole, so any number of them may come and be cut.
        yield from self._close()
        self._closed += rows
        while self._closed >= self._size:
            yield self._size
            self._closed -= self._size

    def _open(self, subject: str, rows: int) -> None:
        if subject in self._seen:
            raise SourceError(f"the rows of subject {subject!r} are not adjacent: {_TWO_KEYS}")
        self._seen.add(subject)
        self._subject, self._current = subject, rows

    def _close(self) -> Iterator[int]:
        if self._current >= self._size and self._closed:
            yield self._closed
            self._closed = 0
        self._closed += self._current
        self._current, self._subject = 0, None
        if self._closed >= self._size:
            yield self._closed
            self._closed = 0


def _take(queue: deque[_Part], rows: int) -> deque[_Part]:
    """Remove so many rows from the head of the queue."""
    taken = deque[_Part]()
    while rows:
        part = queue.popleft()
        if len(part.subjects) > rows:
            part, rest = part.split(rows)
            queue.appendleft(rest)
        taken.append(part)
        rows -= len(part.subjects)
    return taken


@stage("decoding")
def _batch(parts: deque[_Part], dimension: int, unordered: bool) -> SourceBatch:
    subjects = list(chain.from_iterable(part.subjects for part in parts))
    media = list(chain.from_iterable(part.media for part in parts))
    usable = np.concatenate([part.usable for part in parts])
    rejects = list(chain.from_iterable(part.rejects for part in parts))
    features = _drained(parts, int(np.count_nonzero(usable)), dimension)
    kept = usable.tolist()
    batch = _feature_batch(features, list(compress(subjects, kept)), list(compress(media, kept)))
    if unordered:
        _sort_within_media(batch)
    fused = set(batch.subject_ids)
    lost = dict.fromkeys(subject for subject in compress(subjects, ~usable) if subject and subject not in fused)
    return SourceBatch(batch, rejects, list(lost))


def _sort_within_media(batch: FeatureBatch) -> None:
    rows = batch.features.view(np.dtype((np.void, 4 * batch.dimension))).ravel()
    offsets = batch.media_offsets
    for medium in (np.diff(offsets) > 1).nonzero()[0].tolist():
        rows[offsets[medium] : offsets[medium + 1]].sort()


def _drained(parts: deque[_Part], rows: int, dimension: int) -> Floats:
    """Move the parts' features into one array; each part is freed at once, as the subject may be huge."""
    features = np.empty((rows, dimension), dtype=np.float32)
    start = 0
    while parts:
        part = parts.popleft().features
        features[start : start + len(part)] = part
        start += len(part)
    return features


def _feature_batch(features: Floats, subjects: Sequence[Any], media: Sequence[str]) -> FeatureBatch:
    """Build the ragged batch of [N, D] features from the subject (str) and the medium of each row."""
    subject_starts = _run_starts(subjects)
    starts = sorted({*subject_starts, *_run_starts(media)})
    pairs = [(subjects[i], media[i]) for i in starts]
    if len(set(pairs)) < len(pairs):
        twice = next(subject for (subject, _), count in Counter(pairs).items() if count > 1)
        raise SourceError(f"the rows of a medium of subject {twice!r} are not adjacent: {_TWO_KEYS}")
    return FeatureBatch(
        features,
        np.array([*starts, len(subjects)], dtype=np.int64),
        np.searchsorted(starts, [*subject_starts, len(subjects)]),
        [subjects[i] for i in subject_starts],
        [medium for _, medium in pairs],
    )


def _run_starts(texts: Sequence[str | None]) -> list[int]:
    """Return where each run of one text begins."""
    if not texts:
        return []
    return [0, *compress(count(1), map(ne, texts, islice(texts, 1, None)))]


def _checked(chunk: Chunk, dimension: int) -> _Part:
    faults = dict(chunk.faults)
    if not all(chunk.subjects):
        no_subject = Fault(Reason.NO_SUBJECT, "the subject is NULL, empty or not found")
        faults |= {i: no_subject for i, subject in enumerate(chunk.subjects) if not subject}
    too_long = {subject for subject in set(chunk.subjects) if subject and len(subject.encode()) > LONGEST_KEY}
    if too_long:
        long_key = Fault(Reason.LONG_KEY, f"the subject's key has more than {LONGEST_KEY} bytes")
        faults |= {i: long_key for i, subject in enumerate(chunk.subjects) if subject in too_long}
    faults |= _of_other_length(chunk.features, dimension, faults)
    usable = np.ones(len(chunk.subjects), dtype=bool)
    usable[list(faults)] = False
    features = _selected(chunk.features, usable, dimension)
    bad = _bad_values(features)
    if bad:
        faults |= dict(zip(usable.nonzero()[0][list(bad)].tolist(), bad.values(), strict=True))
        features = np.delete(features, list(bad), axis=0)
        usable[list(faults)] = False
    return _Part(chunk.subjects, chunk.media, usable, features, [_reject(chunk, i, faults[i]) for i in sorted(faults)])


def _reject(chunk: Chunk, row: int, fault: Fault) -> Reject:
    key, detail = keys.storable(chunk.rows[row]), keys.storable(fault.detail)
    return Reject(chunk.subjects[row] or None, chunk.media[row], key, fault.reason, detail)


def _of_other_length(features: Vectors, dimension: int, faults: Mapping[int, Fault]) -> dict[int, Fault]:
    if isinstance(features, np.ndarray) and features.shape[1:] == (dimension,):
        return {}
    return {
        i: Fault(Reason.WRONG_DIMENSION, f"{vector.size} values instead of {dimension}")
        for i, vector in enumerate(features)
        if i not in faults and vector is not None and vector.shape != (dimension,)
    }


def _selected(features: Vectors, usable: NDArray[np.bool_], dimension: int) -> Floats:
    """Return the usable features as [n, D] float32; what is too large for it becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(features, np.ndarray):
            if features.shape[1:] != (dimension,):
                return np.empty((0, dimension), dtype=np.float32)
            return (features if usable.all() else features[usable]).astype(np.float32, copy=False)
        chosen = [features[i] for i in usable.nonzero()[0].tolist()]
        return np.array(chosen, dtype=np.float32).reshape(len(chosen), dimension)


def _bad_values(features: Floats) -> dict[int, Fault]:
    """Find the rows of [n, D] that are not finite or have no direction."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", features, features)
    # Only what float32 is too narrow for is looked at in float64, where no sum of finite squares overflows.
    doubtful = (~(squares > 1e4 * MINIMUM_NORM**2) | np.isinf(squares)).nonzero()[0]
    norms = np.linalg.norm(features[doubtful].astype(np.float64), axis=1)
    is_bad = ~(norms >= MINIMUM_NORM) | np.isinf(norms)
    found = zip(doubtful[is_bad].tolist(), norms[is_bad].tolist(), strict=True)
    return {i: _value_fault(features[i], norm) for i, norm in found}


def _value_fault(feature: Floats, norm: float) -> Fault:
    infinite = int(np.count_nonzero(~np.isfinite(feature)))
    if infinite:
        return Fault(Reason.NON_FINITE, f"{infinite} of {feature.size} values")
    return Fault(Reason.ZERO_NORM, f"norm {norm:.3g}")
