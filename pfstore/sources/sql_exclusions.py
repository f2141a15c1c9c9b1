"""The rows that a mapping leaves out: those of deleted people, hidden photos, guessed names and the like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pfstore.sources.sql_dialects import Column
from pfstore.sources.sql_relation import verbatim

_KEPT = "-1"


class Exclusions:
    """Conditions in the database's own SQL by cause; a row is counted for the first cause that holds.

    A condition that is neither true nor false, as a comparison with NULL is, does not hold.
    """

    def __init__(self, conditions: Mapping[str, Any]) -> None:
        self._conditions = {cause: condition for cause, condition in conditions.items() if condition is not False}

    def __bool__(self) -> bool:
        return bool(self._conditions)

    def without(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Return the statement for the rows that are left."""
        return statement.where(self._number == sa.literal_column(_KEPT)) if self else statement

    def counts(self, relation: sa.FromClause) -> sa.Select[Any]:
        """Return the statement that counts the excluded rows of a relation: number of the cause, rows."""
        number = self._number.label("cause")
        excluded = self._number != sa.literal_column(_KEPT)
        columns: list[Column] = [number, sa.func.count()]
        return sa.select(*columns).select_from(relation).where(excluded).group_by(number)

    def named(self, counted: Iterable[Sequence[Any]]) -> dict[str, int]:
        """Return the rows by cause of what such a statement gave."""
        causes = list(self._conditions)
        return {causes[int(number)]: int(rows) for number, rows in counted}

    @property
    def _number(self) -> Column:
        whens: list[Any] = [
            (verbatim(f"({condition}\n)"), sa.literal_column(str(number)))
            for number, condition in enumerate(self._conditions.values())
        ]
        number: Column = sa.case(*whens, else_=sa.literal_column(_KEPT))
        return number
