"""A bounded walk through a database that nobody documented: its tables, their columns, a sample of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice, pairwise
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa

from pfstore.sources.encodings import Encoding, parse_encoding
from pfstore.sources.sql_database import LegacyDatabase
from pfstore.sources.sql_dialects import Column, LiveColumn
from pfstore.sources.sql_relation import columns_of, key_of, located, tables_of
from pfstore.sources.sql_rows import bounded

MOST_COUNTED = 100_000
"""Rows that are counted one by one; of a larger table only this is known, that it has more."""

MOST_TABLES = 2000
"""Tables that are looked at; a database with more needs --table."""

_WINDOWS = 8  # places in a table that a sample is taken from
_SYSTEM_SCHEMAS = frozenset(
    {"information_schema", "mysql", "performance_schema", "sys", "pg_catalog", "pg_toast", "pfstore"}
)

_Read = TypeVar("_Read")

Rows: TypeAlias = Mapping[str, Sequence[Any]]
"""Sampled rows, column by column: for each name as many values as there are rows."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table or view. columns: by name. key: of the primary key, in order; empty where there is none."""

    schema: str | None
    name: str
    columns: Mapping[str, LiveColumn]
    key: tuple[str, ...]

    @property
    def clause(self) -> sa.FromClause:
        """What to select from."""
        return sa.table(self.name, schema=self.schema)

    @property
    def label(self) -> str:
        """The name as a mapping has it."""
        return f"{self.schema}.{self.name}" if self.schema else self.name


class Walker:
    """Reads tables of one snapshot, each with a LIMIT; a column's value of more bytes than a feature is not fetched."""

    def __init__(self, connection: sa.Connection, database: LegacyDatabase) -> None:
        self._connection = connection
        self._database = database
        self.refusals: dict[str, str] = {}

    def attempt(self, what: str, read: Callable[[], _Read]) -> _Read | None:
        """Return what reading gives, or None where the database refuses it or takes too long; refusals tell why."""
        try:
            with self._connection.begin_nested():
                return read()
        except sa.exc.DBAPIError as error:
            self.refusals[what] = self._database.words(error.orig)
            return None

    def tables(self, only: Sequence[str] = ()) -> list[Table]:
        """Return the tables and views of every schema but the system's, or those of these names.

        Raises MappingError where there is no such table.
        """
        if only:
            names = [located(self._connection, self._database, name) for name in only]
        else:
            every = ((schema, table) for schema in self._schemas for table in tables_of(self._connection, schema))
            names = list(islice(every, MOST_TABLES))
        found = (self.attempt(name, partial(self._table, schema, name)) for schema, name in names)
        return [table for table in found if table is not None]

    def rows_in(self, table: Table) -> int:
        """Return the number of rows, at most MOST_COUNTED + 1."""
        one: sa.Select[Any] = sa.select(sa.literal_column("1").label("one"))
        some = one.select_from(table.clause).limit(MOST_COUNTED + 1).subquery()
        return int(self._connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())

    def sample(self, table: Table, columns: Iterable[str], rows: int) -> Rows:
        """Return at most about so many rows, from several places where the key is one number, else the first."""
        chosen = list(columns)
        statement = sa.select(*self._selected(table, chosen)).select_from(table.clause)
        found = [row for part in self._parts(table, statement, rows) for row in part]
        return _by_column(chosen, found)

    def matching(self, table: Table, columns: Iterable[str], by: str, values: Sequence[Any], limit: int) -> Rows:
        """Return at most so many rows of which a column has one of these values, as it gave or another gives them."""
        chosen = list(columns)
        wanted = [sa.literal(value, sa.types.NullType()) for value in values]
        statement = sa.select(*self._selected(table, chosen)).select_from(table.clause)
        statement = statement.where(table.columns[by].clause.in_(wanted)).limit(limit)
        return _by_column(chosen, self._fetched(statement))

    def counts(self, table: Table, columns: Sequence[str]) -> list[int]:
        """Return how many of the first MOST_COUNTED rows each value of these columns has; of NULLs nothing."""
        keys = [self._database.dialect.key(table.columns[name]).label(f"pfstore_{i}") for i, name in enumerate(columns)]
        present = [table.columns[name].clause.is_not(None) for name in columns]
        some = sa.select(*keys).select_from(table.clause).where(*present).limit(MOST_COUNTED).subquery()
        counted = sa.select(sa.func.count()).select_from(some).group_by(*some.columns)
        return [int(count) for (count,) in self._connection.execute(counted)]

    def encoding_of(self, table: Table, column: str) -> Encoding | None:
        """Return the encoding that the column's type alone tells, None where its values must be looked at."""
        text = self._database.dialect.encoding_of(table.columns[column])
        return None if text is None else self._feature(table, column, text)[1]

    @cached_property
    def _schemas(self) -> list[str | None]:
        inspector = sa.inspect(self._connection)
        default = inspector.default_schema_name
        if self._database.engine_name == "sqlite" or default is None:
            return [None]
        others = [name for name in inspector.get_schema_names() if name not in _SYSTEM_SCHEMAS | {default}]
        # On MariaDB and MySQL a schema is another database, which the URL did not name.
        return [None] if self._database.engine_name == "mysql" else [None, *others]

    def _table(self, schema: str | None, name: str) -> Table:
        clause = sa.table(name, schema=schema)
        columns = columns_of(self._connection, self._database, clause)
        return Table(schema, name, columns, tuple(key_of(self._connection, schema, name)))

    def _selected(self, table: Table, columns: Sequence[str]) -> list[Column]:
        # Labels of our own: ORDER BY takes a label before a column of the same name.
        return [self._value(table, name).label(f"pfstore_{i}") for i, name in enumerate(columns)]

    def _value(self, table: Table, name: str) -> Column:
        live = table.columns[name]
        dialect = self._database.dialect
        if (text := dialect.encoding_of(live)) is not None:
            return self._feature(table, name, text)[0]
        return bounded(dialect.key(live), dialect.size(live))[1]

    def _feature(self, table: Table, name: str, encoding: str) -> tuple[Column, Encoding]:
        return self._database.dialect.feature(table.columns[name], parse_encoding(encoding))

    def _parts(self, table: Table, statement: sa.Select[Any], rows: int) -> Iterator[Sequence[Sequence[Any]]]:
        starts = self._starts(table)
        if not starts:
            yield self._fetched(statement.limit(rows))
            return
        key = table.columns[table.key[0]].clause
        each = max(1, rows // len(starts))
        for start, end in pairwise(starts):
            window = statement.where(key >= start, key < end)
            yield self._fetched(window.order_by(key).limit(each))
        # Of the last window the end: the newest rows may be another model's.
        yield self._fetched(statement.where(key >= starts[-1]).order_by(key.desc()).limit(each))

    def _fetched(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        # By the kind of cursor that runs read with, so that values come as those will.
        with self._database.streamed(self._connection, statement) as result:
            return result.all()

    def _starts(self, table: Table) -> list[int]:
        """Return where windows of a sample begin: spread over the values of a key that is one whole number."""
        if len(table.key) != 1:
            return []
        key = table.columns[table.key[0]].clause
        ends: list[Any] = []
        for order in (key.asc(), key.desc()):
            found = self._connection.execute(sa.select(key).select_from(table.clause).order_by(order).limit(1))
            ends.append(found.scalar())
        first, last = ends
        if type(first) is not int or type(last) is not int:
            return []
        return sorted({first + (last - first) * window // _WINDOWS for window in range(_WINDOWS)})


def _by_column(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Rows:
    values = zip(*rows, strict=True) if rows else ([] for _ in columns)
    return {name: list(column) for name, column in zip(columns, values, strict=True)}
