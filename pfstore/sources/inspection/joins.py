"""Tables that can be joined to the features, found by values that occur in both, declared as keys or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from pfstore.sources.inspection.attributes import Attribute, Join
from pfstore.sources.inspection.walking import Rows, Table, Walker

_VALUES = 300  # values that are looked up in another table
_PEEK = 200
_MOST_LOOKUPS = 200
_ENOUGH = 0.5  # of the values must be there


@dataclass
class Joiner:
    """Finds tables that know more of the sampled rows; looks up at most _MOST_LOOKUPS lists of values.

    peeks: what was seen of tables by name, to be shared.
    """

    walker: Walker
    tables: Sequence[Table]
    peeks: dict[str, Rows]

    def __post_init__(self) -> None:
        self._left = _MOST_LOOKUPS

    def beyond(self, known: Sequence[Attribute]) -> list[Attribute]:
        """Return the columns of all tables that one step leads to from these columns."""
        return [found for one in known if _leads_on(one) for table in self.tables for found in self._joined(one, table)]

    def _joined(self, one: Attribute, table: Table) -> Iterator[Attribute]:
        if table.label == one.table.label or any(step.table.label == table.label for step in one.path):
            return
        values = list(dict.fromkeys(one.present))[:_VALUES]
        for column in self._unique_columns(table, values):
            if self._left <= 0:
                return
            self._left -= 1
            looked_up = partial(self.walker.matching, table, column, values, 2 * len(values))
            rows = self.walker.attempt(table.label, looked_up)
            if rows is not None and _is_match(rows[column], values) and self._is_unique(table, column):
                yield from _attributes(one, table, column, rows)

    def _unique_columns(self, table: Table, values: Sequence[Any]) -> Iterator[str]:
        """Yield the columns that hold values of this kind, each once."""
        kind = _kind(values)
        for column, peeked in self._peek(table).items():
            present = [value for value in peeked if value is not None]
            if kind is not None and _kind(present) is kind and len(set(present)) == len(present):
                yield column

    def _is_unique(self, table: Table, column: str) -> bool:
        """Tell whether each value comes once, as the database compares: a join must not double a feature."""
        counts = self.walker.attempt(table.label, partial(self.walker.counts, table, [column]))
        return counts is not None and max(counts, default=1) == 1

    def _peek(self, table: Table) -> Rows:
        if table.label not in self.peeks:
            peek = partial(self.walker.sample, table, _PEEK)
            self.peeks[table.label] = self.walker.attempt(table.label, peek) or {}
        return self.peeks[table.label]


def _leads_on(one: Attribute) -> bool:
    return one.is_key_like and not one.is_time and one.groups >= 2


def _kind(values: Sequence[Any]) -> type | None:
    kinds = {type(value) for value in values}
    return kinds.pop() if len(kinds) == 1 and kinds <= {int, str, bytes, UUID} else None


def _is_match(found: Sequence[Any], values: Sequence[Any]) -> bool:
    there = set(found)
    return len(there) == len(found) and len(there) >= max(2, _ENOUGH * len(values))


def _attributes(one: Attribute, table: Table, column: str, rows: Rows) -> Iterator[Attribute]:
    place = {value: number for number, value in enumerate(rows[column])}
    path = (*one.path, Join(one.column, table, column))
    numbers = [place.get(value) for value in one.values]
    for name, values in rows.items():
        if name != column:
            yield Attribute(path, table, name, [None if number is None else values[number] for number in numbers])
