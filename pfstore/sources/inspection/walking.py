"""A bounded walk through a database that nobody documented: its tables, their columns, a sample of their rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa

from pfstore.sources.encodings import Encoding, parse_encoding
from pfstore.sources.encodings.values import MAX_BYTES
from pfstore.sources.sql_database import LegacyDatabase
from pfstore.sources.sql_dialects import Column, LiveColumn
from pfstore.sources.sql_relation import columns_of, key_of, located, tables_of
from pfstore.sources.sql_rows import bounded

MOST_COUNTED = 100_000
"""Rows that are counted one by one; of a larger table only this is known, that it has more."""

MOST_TABLES = 2000
"""Tables that are looked at; a database with more needs --table."""

_LONGEST = 4096  # bytes of a value that is no feature: more than any key has
_MOST_BYTES = 128 << 20  # that one statement brings; photos may stand beside features
_BUFFERED = 16  # rows that may be on the way, each of any size
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
            self._database.raise_interrupt(error.orig)
            self.refusals[what] = self._database.words(error.orig)
            return None

    def tables(self, only: Sequence[str] = ()) -> list[Table]:
        """Return the tables and views of every schema but the system's, or those of these names.

        Raises MappingError where there is no such table.
        """
        if only:
            names = [located(self._connection, self._database, name) for name in only]
        else:
            names = list(islice(self._names(), MOST_TABLES))
        found = (self.attempt(name, partial(self._table, schema, name)) for schema, name in names)
        return [table for table in found if table is not None]

    def rows_in(self, table: Table) -> int:
        """Return the number of rows, at most MOST_COUNTED + 1."""
        one: sa.Select[Any] = sa.select(sa.literal_column("1").label("one"))
        some = one.select_from(table.clause).limit(MOST_COUNTED + 1).subquery()
        return int(self._connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())

    def sample(self, table: Table, rows: int, *, whole: Collection[str] = ()) -> Rows:
        """Return at most about so many rows, from several places where the key is one number, else the first.

        whole: columns of which values longer than any key are wanted, too; of others such come as NULL.
        """
        statement = self._select(table, whole)
        found = [row for part in self._parts(table, statement, rows) for row in part]
        if 2 * len(found) < rows:
            # A few keys far from all others leave most places empty.
            found = max(found, list(self._fetched(statement.limit(rows))), key=len)
        return _by_column(list(table.columns), found)

    def matching(
        self, table: Table, by: str, values: Sequence[Any], limit: int, *, whole: Collection[str] = ()
    ) -> Rows:
        """Return at most so many rows of which a column has one of these values, as it gave or another gives them."""
        wanted = [sa.literal(value, sa.types.NullType()) for value in values]
        statement = self._select(table, whole)
        statement = statement.where(self._database.dialect.key(table.columns[by]).in_(wanted)).limit(limit)
        return _by_column(list(table.columns), self._fetched(statement))

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

    def _names(self) -> Iterator[tuple[str | None, str]]:
        """Yield the tables and views, each with its schema where that is not the default one."""
        inspector = sa.inspect(self._connection)
        default = inspector.default_schema_name
        # On MariaDB and MySQL a schema is another database; the URL names the one that is meant.
        if default is None and self._database.engine_name == "mysql":
            raise self._database.error("the URL names no database: mysql://user@host/DATABASE")
        if default is not None:
            yield from ((None, table) for table in tables_of(self._connection, default))
        if self._database.engine_name in ("sqlite", "mysql"):
            return
        for schema in inspector.get_schema_names():
            if schema not in _SYSTEM_SCHEMAS | {default}:
                yield from ((schema, table) for table in tables_of(self._connection, schema))

    def _table(self, schema: str | None, name: str) -> Table:
        clause = sa.table(name, schema=schema)
        columns = columns_of(self._connection, self._database, clause)
        return Table(schema, name, columns, tuple(key_of(self._connection, schema, name)))

    def _select(self, table: Table, whole: Collection[str]) -> sa.Select[Any]:
        values = (self._value(table, name, MAX_BYTES if name in whole else _LONGEST) for name in table.columns)
        # Labels of our own: ORDER BY takes a label before a column of the same name.
        labelled = [value.label(f"pfstore_{i}") for i, value in enumerate(values)]
        return sa.select(*labelled).select_from(table.clause).execution_options(max_row_buffer=_BUFFERED)

    def _value(self, table: Table, name: str, most: int) -> Column:
        live = table.columns[name]
        dialect = self._database.dialect
        text = dialect.encoding_of(live)
        value = dialect.sight(live) if text is None else self._feature(table, name, text)[0]
        return bounded(value, dialect.size(live), most)[1]

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
        rows: list[Sequence[Any]] = []
        left = _MOST_BYTES
        with self._database.streamed(self._connection, statement) as result:
            while left > 0 and (row := result.fetchone()) is not None:
                rows.append(row)
                left -= sum(len(value) for value in row if isinstance(value, str | bytes))
            result.close()
        return rows

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
