"""What formats have in common that hold numbered rows, each of some subject and medium, wherever they lie."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfstore.features import Offsets
from pfstore.sources.assembly import Chunk, Fault, Vectors
from pfstore.sources.keyed import KeyedSource

NOBODY = ""
"""The subject of a row that has none."""


@dataclass(frozen=True)
class Values:
    """The features of some rows, and by position why there is none."""

    features: Vectors
    faults: Mapping[int, Fault]


class Grouping:
    """Rows by subject, in it by medium, in it in their own order.

    subjects: [N], NOBODY where a row has none, None where it is left out. media: [N], or None where there are none.
    """

    def __init__(self, subjects: Sequence[str | None], media: Sequence[str] | None) -> None:
        kept = [row for row, subject in enumerate(subjects) if subject is not None]
        owners, names = _coded([subjects[row] or NOBODY for row in kept])
        within = np.zeros(len(kept), dtype=np.int64) if media is None else _coded([media[row] for row in kept])[0]
        order = np.lexsort((within, owners))
        bounds = np.searchsorted(owners[order], np.arange(len(names) + 1))
        self._order = np.array(kept, dtype=np.int64)[order]
        self._bounds = {name: (int(bounds[i]), int(bounds[i + 1])) for i, name in enumerate(names)}
        self.subjects = [name for name in names if name != NOBODY]

    def rows(self, first: str, last: str) -> Offsets:
        """Return the numbers of the rows from the first of these subjects to the last, none where they are none."""
        nothing = (0, 0)
        return self._order[self._bounds.get(first, nothing)[0] : self._bounds.get(last, nothing)[1]]


class RowSource(KeyedSource):
    """A source of numbered rows.

    subjects: [N], NOBODY where a row has none, None where it is left out. media: [N], None where there are none.
    step: rows read at once.
    """

    def __init__(
        self,
        extractor: str,
        dimension: int | None,
        *,
        subjects: Sequence[str | None],
        media: Sequence[str] | None,
        step: int,
    ) -> None:
        super().__init__(extractor, dimension)
        self._grouping = Grouping(subjects, media)
        self._owners = subjects
        self._media = media
        self._step = max(1, step)

    @property
    def has_media(self) -> bool:
        """Whether features are grouped by image or video."""
        return self._media is not None

    @property
    def subjects(self) -> Sequence[str]:
        """All subjects, sorted."""
        return self._grouping.subjects

    def count(self, subject: str) -> int:
        """Return the number of rows of a subject without reading them."""
        return len(self._grouping.rows(subject, subject))

    def chunks(self, subject: str) -> Iterator[Chunk]:
        """Yield the rows of a subject a slice at a time, a medium's rows together."""
        return self.chunks_of([subject])

    def chunks_of(self, subjects: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows of a part of `subjects`, many small subjects in one slice."""
        if subjects:
            for rows in self._slices(subjects[0], subjects[-1]):
                yield self._chunk(rows, self.values(rows))

    def count_nobody(self) -> int:
        """Return the number of rows without a subject."""
        return self.count(NOBODY)

    def nobody(self) -> Iterator[Chunk]:
        """Yield the rows without a subject; their features are not looked at."""
        for rows in self._slices(NOBODY, NOBODY):
            yield self._chunk(rows, Values([None] * len(rows), {}))

    @abstractmethod
    def values(self, rows: NDArray[np.int64]) -> Values:
        """Return the features of the rows of these numbers, and what is wrong with some."""

    @abstractmethod
    def row_key(self, row: int) -> str:
        """Return the key of a row for the reports."""

    def __exit__(self, *exc: object) -> None:
        """Do nothing: no file stays open between reads."""

    def _slices(self, first: str, last: str) -> Iterator[Offsets]:
        rows = self._grouping.rows(first, last)
        return (rows[start : start + self._step] for start in range(0, len(rows), self._step))

    def _chunk(self, rows: Offsets, values: Values) -> Chunk:
        numbers = rows.tolist()
        media = [""] * len(numbers) if self._media is None else [self._media[row] for row in numbers]
        owners, keys = [self._owners[row] for row in numbers], [self.row_key(row) for row in numbers]
        return Chunk(owners, media, keys, values.features, values.faults)


def _coded(names: Sequence[str]) -> tuple[Offsets, list[str]]:
    """Return the number of each name among the sorted names, and these."""
    known = sorted(set(names))
    numbers = {name: i for i, name in enumerate(known)}
    return np.fromiter((numbers[name] for name in names), dtype=np.int64, count=len(names)), known
