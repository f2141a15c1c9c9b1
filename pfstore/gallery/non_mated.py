"""Non-mated comparisons, each made once, in blocks, in memory that does not grow with their number.

Templates are halves, as the server holds them, and their scores come as keys (see pfstore.evaluation.comparing),
which for halves are exact. The server adds in float32, so its scores are off by a little.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.comparing import MASKED, STEP, Keys, products
from pfstore.evaluation.distributions import Distribution, Tally
from pfstore.features import Floats, Offsets
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.thresholds import Kind
from pfstore.parts import hashed_bits

ROWS, COLUMNS = 4096, 2048
"""A block of comparisons: searched templates by references. 310 MB in all at 2,048 values, 260 MB at 512."""

ALLOWANCE = 2.0**-19
"""How far the server's score may be from the exact one. Measured: 5e-7 at 4,096 values, 1.6e-6 at 16,000."""

NOBODY = -1

Observer = Callable[[float], None]
"""Is told which part of the work is done, from 0 to 1."""


@dataclass(frozen=True)
class References:
    """The templates of some subjects of a version, read when they are needed. ids: [N], rising by code points."""

    connection: Connection
    version: Version
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, ids: Sequence[str]) -> Floats:
        """Return the templates of these subjects ([n], rising): [n, blocks*D] float32 of half precision."""
        query = (
            "SELECT template FROM pfstore.templates WHERE version_id = %s AND subject_id = ANY(%s) ORDER BY subject_id"
        )
        cursor = self.connection.cursor(binary=True).execute(query, (self.version.version_id, list(ids)))
        return np.array([template.to_numpy() for (template,) in cursor], dtype=np.float32)

    def drawn(self, count: int, seed: int, purpose: str) -> Offsets:
        """Return the places of so many subjects, or of all, rising ([n] int64): as their keys and the seed decide."""
        if count >= len(self.ids):
            return np.arange(len(self.ids), dtype=np.int64)
        ranks = np.array([hashed_bits(one, seed, purpose) for one in self.ids], dtype=np.uint64)
        return np.sort(np.argsort(ranks, kind="stable")[:count]).astype(np.int64)


@dataclass
class Best:
    """The best keys so far. rows: [R]. columns: [N]."""

    rows: Keys
    columns: Keys

    @classmethod
    def of(cls, made: NonMated) -> Best:
        """Begin without any."""
        rows, columns = len(made.places), len(made.references)
        return cls(np.full(rows, MASKED, dtype=np.int32), np.full(columns, MASKED, dtype=np.int32))


@dataclass
class Counts:
    """Numbers of comparisons. rows: [R]. columns: [N]."""

    rows: Offsets
    columns: Offsets

    @classmethod
    def of(cls, made: NonMated) -> Counts:
        """Begin at zero."""
        return cls(np.zeros(len(made.places), dtype=np.int64), np.zeros(len(made.references), dtype=np.int64))


@dataclass(frozen=True)
class NonMated(ABC):
    """Searched templates ("rows") against references ("columns"), mated comparisons left out.

    places: [R] int64, where among the references each row's person is; NOBODY for who is none of them.
    enrolled: how many subjects the gallery has; the references are all of them, or a sample.
    """

    references: References
    places: Offsets
    enrolled: int

    @property
    @abstractmethod
    def persons(self) -> Offsets:
        """[R] int64, the number of each row's person; below N it is that of a reference."""

    @property
    @abstractmethod
    def comparisons(self) -> int:
        """How many there are."""

    @property
    @abstractmethod
    def basis(self) -> str:
        """What is compared, in words."""

    @property
    def searches(self) -> int:
        """How many rows are compared with anything."""
        others = len(self.references) - (self.places != NOBODY)
        return int(np.count_nonzero(others > 0))

    @property
    def tellers(self) -> int:
        """How many distinct persons are searched."""
        return len(np.unique(self.persons))

    @property
    def mated(self) -> int:
        """How many mated comparisons are left out."""
        return 0

    @property
    def most(self) -> Mapping[Kind, int]:
        """How many comparisons and searches there would be if every subject of the gallery were searched."""
        return {"fmr": self.comparisons, "fpir": self.searches}

    @property
    def shared(self) -> float:
        """Of how many searches a comparison is part, on average."""
        return 1.0

    @property
    def is_whole(self) -> bool:
        """Whether the references are the whole gallery, so that rows are searches of it."""
        return len(self.references) == self.enrolled

    def tally(self, observer: Observer) -> tuple[Distribution, Keys]:
        """Return the distribution of all scores, and the best of each search ([R], MASKED where there is none)."""
        tally, best = Tally(), Best.of(self)
        for rows, columns, keys in self._blocks(observer):
            tally.add(keys)
            best.rows[rows] = np.maximum(best.rows[rows], keys.max(axis=1))
            best.columns[columns] = np.maximum(best.columns[columns], keys.max(axis=0))
        return tally.result(), self._searched(best)

    def errors(self, thresholds: Sequence[int], observer: Observer) -> tuple[Offsets, Offsets]:
        """Count the comparisons in which each person takes part: [T, P] those with these keys ([T]) or more, [P] all.

        A person has one number whether searched or compared with.
        """
        counted = [Counts.of(self) for _ in thresholds]
        made = self._of_persons(self._made())
        if not counted:
            return np.empty((0, len(made)), dtype=np.int64), made
        least = min(thresholds)
        for rows, columns, keys in self._blocks(observer):
            hits = np.flatnonzero(keys >= least)
            found = keys.ravel()[hits]
            row, column = np.divmod(hits, keys.shape[1])
            for counts, threshold in zip(counted, thresholds, strict=True):
                reached = found >= threshold
                counts.rows[rows] += np.bincount(row[reached], minlength=keys.shape[0])
                counts.columns[columns] += np.bincount(column[reached], minlength=keys.shape[1])
        return np.array([self._of_persons(counts) for counts in counted]), made

    @property
    def _open(self) -> int:
        """The first column that every row is compared with, but for mates; before it a row's own is the first."""
        return 0

    @abstractmethod
    def _values(self, rows: slice) -> Floats:
        """[r, blocks*D] the templates of some rows."""

    @abstractmethod
    def _left_out(self, rows: slice, columns: slice) -> NDArray[np.bool_] | None:
        """[r, c] which comparisons are mated or made elsewhere; None where none is."""

    @abstractmethod
    def _made(self) -> Counts:
        """Count the comparisons of each row and column."""

    @abstractmethod
    def _searched(self, best: Best) -> Keys:
        """[R] the best score of each row's search."""

    def _grid(self) -> list[tuple[slice, list[slice]]]:
        grid = []
        for rows in _slices(0, len(self.places), ROWS):
            first = min(self._open, max(0, int(self.places[rows.start])))
            grid.append((rows, _slices(first, len(self.references), COLUMNS)))
        return grid

    def _blocks(self, observer: Observer) -> Iterator[tuple[slice, slice, Keys]]:
        grid = self._grid()
        done, planned = 0, sum(len(of_columns) for _, of_columns in grid)
        for rows, of_columns in grid:
            values = self._values(rows)
            for columns in of_columns:
                keys = products(values, self.references.read(self.references.ids[columns]))
                left_out = self._left_out(rows, columns)
                if left_out is not None:
                    keys[left_out] = MASKED
                yield rows, columns, keys
                done += 1
                observer(done / planned)

    def _of_persons(self, counts: Counts) -> Offsets:
        persons, references = self.persons, len(self.references)
        total = np.zeros(max(references, int(persons.max(initial=0)) + 1), dtype=np.int64)
        total[:references] = counts.columns
        np.add.at(total, persons, counts.rows)
        return total


def score_of(key: int) -> float:
    """Return the least score that only comparisons of this key or more can reach at the server."""
    # A key is a rounded score, which may lie half a step below it. float32 holds the result exactly.
    return float(np.float32((key - 0.5) * STEP + ALLOWANCE))


def _slices(start: int, stop: int, step: int) -> list[slice]:
    return [slice(first, min(first + step, stop)) for first in range(start, stop, step)]
