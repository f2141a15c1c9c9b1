"""Many small sets of features read into one array, so that what is done once for each of them is little."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from pfstore.features import Floats
from pfstore.sources.assembly import Chunk
from pfstore.sources.hdf5_datasets import Dataset
from pfstore.sources.row_texts import RowTexts


class Page:
    """Gathers the rows of datasets in their order and gives them as chunks of at most so many values."""

    def __init__(self, values: int) -> None:
        self._values = values
        self._features: Floats = np.empty((0, 0), dtype=np.float32)
        self._clear()

    def filled(self, dataset: Dataset, subject: str, medium: str, key: str, descriptor: int | None) -> Iterator[Chunk]:
        """Read a dataset, all of one subject and medium, and yield the chunks that are full; row n's key is "key[n]".

        descriptor: as Dataset.read_into takes it.
        """
        if dataset.fault:
            yield from self.rest()
            yield Chunk([subject], [medium], [key], [None], {0: dataset.fault})
            return
        frames, dimension = dataset.shape
        if dimension != self._features.shape[1]:
            yield from self.rest()
        done = 0
        while done < frames:
            if not self._subjects:
                self._features = np.empty((max(1, self._values // dimension), dimension), dtype=np.float32)
            used = len(self._subjects)
            rows = min(frames - done, len(self._features) - used)
            dataset.read_into(self._features[used : used + rows], done, descriptor)
            self._starts.append(used)
            self._keys.append((key, done))
            self._subjects += [subject] * rows
            self._media += [medium] * rows
            done += rows
            if used + rows == len(self._features):
                yield from self.rest()

    def rest(self) -> Iterator[Chunk]:
        """Yield what has been gathered, if anything."""
        if self._subjects:
            features = self._features[: len(self._subjects)]
            rows = _row_texts(len(features), self._starts, self._keys)
            chunk = Chunk(self._subjects, self._media, rows, features)
            self._clear()
            yield chunk

    def _clear(self) -> None:
        self._subjects: list[str] = []
        self._media: list[str] = []
        self._starts: list[int] = []
        self._keys: list[tuple[str, int]] = []


def _row_texts(count: int, starts: Sequence[int], keys: Sequence[tuple[str, int]]) -> RowTexts:
    """Return the keys of rows that come from several datasets: where each begins, its key and its first frame."""

    def text_of(row: int) -> str:
        which = bisect_right(starts, row) - 1
        key, first = keys[which]
        return f"{key}[{first + row - starts[which]}]"

    return RowTexts(count, text_of)
