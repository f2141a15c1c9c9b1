"""The columns beside a feature, in its own table or joined to it, as values of the sampled rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np

from pfstore.sources.inspection.grouping import Labels, groups, labels_of
from pfstore.sources.inspection.walking import Table

LONGEST_KEY = 200
"""Characters or bytes of a value that may still be a key."""

_KEYS = (int, Decimal, UUID)


@dataclass(frozen=True)
class Join:
    """A step from one table to another: the rows of `table` whose column `to` equals the column `of` before."""

    of: str
    table: Table
    to: str


@dataclass(frozen=True, eq=False)
class Attribute:
    """A column's values for the sampled rows. path: the joins from the features' table; empty in that itself."""

    path: tuple[Join, ...]
    table: Table
    column: str
    values: Sequence[Any]

    @property
    def label(self) -> str:
        """The column, with its table where that is another than the features'."""
        return f"{self.table.label}.{self.column}" if self.path else self.column

    @cached_property
    def labels(self) -> Labels:
        """[n]: which value each row has."""
        return labels_of(self.values)

    @cached_property
    def groups(self) -> int:
        """How many values there are."""
        return groups(self.labels)

    @cached_property
    def present(self) -> list[Any]:
        """The values that are not NULL."""
        return [value for value in self.values if value is not None]

    @property
    def missing(self) -> float:
        """The share of rows without a value."""
        return float((self.labels < 0).mean()) if len(self.labels) else 1.0

    @property
    def is_key_like(self) -> bool:
        """Whether the values could be somebody's or something's key: short text, bytes, whole numbers."""
        return bool(self.present) and all(map(_could_be_a_key, self.present))

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers."""
        return bool(self.present) and all(
            isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in self.present
        )

    @property
    def is_time(self) -> bool:
        """Whether the values are dates or times, also as ISO text."""
        return bool(self.present) and all(
            isinstance(value, date | datetime) or (isinstance(value, str) and _ISO.match(value))
            for value in self.present
        )

    def named(self, words: Sequence[str]) -> bool:
        """Whether the column's name has one of these words in it."""
        return any(word in self.column.lower() for word in words)

    def taken(self, rows: Labels) -> Attribute:
        """Return the attribute for some of the rows, by number."""
        return Attribute(self.path, self.table, self.column, [self.values[row] for row in rows.tolist()])


_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d|$)")


def of_table(table: Table, rows: Mapping[str, Sequence[Any]]) -> Iterator[Attribute]:
    """Yield the columns of the features' own table."""
    for column, values in rows.items():
        yield Attribute((), table, column, values)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the rank correlation of two rows of numbers of at least two different values each, else 0."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return 0.0
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: Sequence[float]) -> Any:
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _could_be_a_key(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return len(value) <= LONGEST_KEY
    # Where a whole number may be missing, some write it as one with a point.
    return value.is_integer() if isinstance(value, float) else isinstance(value, _KEYS) and not isinstance(value, bool)
