"""What a database tells of rows being as they were: versions of rows, and digests that it computes."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from pfstore.sources.sql_dialects import Column, Dialect, LiveColumn, MySql, Postgres, Sqlite


class Digests:
    """Any database that SQLAlchemy can read: it tells nothing, so its rows are fetched and looked at here."""

    def row_version(self, _connection: sa.Connection, _table: sa.TableClause, _feature: str, /) -> Column | None:
        """Return what is another for a row of this table after every change; None where nothing is.

        feature: the column that is fused, of which a version may not be that of another column of the same name.
        """
        return None

    def of_rows(self, _columns: Sequence[Column], /) -> Column | None:
        """Return the aggregate of these values that is equal for equal groups of rows, in whatever order; or None."""
        return None

    def content(self, column: LiveColumn) -> Column:
        """Return a value that is another where that of a column is, as short as can be."""
        return column.clause

    def times(self, column: LiveColumn) -> Column:
        """Return a column's value where Python has such a value, else NULL."""
        return column.clause

    def latest(self, column: LiveColumn) -> Column:
        """Return the greatest value of a column in a group."""
        return sa.func.max(self.times(column))


class SqliteDigests(Digests):
    """SQLite, by functions that every connection is given: the rows are hashed here, without being fetched."""

    def of_rows(self, columns: Sequence[Column]) -> Column:
        """Return a digest of all rows; the first column had better be a key."""
        return sa.func.pfstore_rows(*map(_bytes_of, columns))

    def content(self, column: LiveColumn) -> Column:
        """Return the value's type and a digest of its bytes."""
        digest = sa.func.hex(sa.func.pfstore_digest(sa.cast(column.clause, sa.LargeBinary)))
        return sa.func.typeof(column.clause).op("||")(digest)


class MySqlDigests(Digests):
    """MariaDB and MySQL: the sum of 64 bits of each row's MD5."""

    def of_rows(self, columns: Sequence[Column]) -> Column:
        """Return the sum as text; each value is quoted, so that no two rows look alike."""
        row = sa.func.concat_ws("|", *(sa.func.quote(sa.cast(column, sa.LargeBinary)) for column in columns))
        digits = sa.func.conv(sa.func.left(sa.func.md5(row), 16), 16, 10)
        return sa.cast(sa.func.sum(sa.cast(digits, mysql.INTEGER(unsigned=True))), sa.CHAR)

    def content(self, column: LiveColumn) -> Column:
        """Return the MD5 of the value's bytes."""
        return sa.func.md5(sa.cast(column.clause, sa.LargeBinary))


class PostgresDigests(Digests):
    """PostgreSQL from 11 on: its tables know where a row is and who wrote it; else the sum of a hash of each row."""

    _VECTORS = frozenset(("vector", "halfvec"))
    _TIMES = frozenset(("date", "timestamp", "timestamptz"))
    _NUMBERS = frozenset(("int2", "int4", "int8", "numeric", "float4", "float8"))
    # Of a partitioned table all parts count: one may be foreign, or be stored otherwise, and know no transactions.
    _IS_PLAIN = sa.text("""
        WITH RECURSIVE parts AS (
            SELECT CAST(:name AS regclass)::oid AS oid
            UNION SELECT i.inhrelid FROM parts JOIN pg_catalog.pg_inherits i ON i.inhparent = parts.oid)
        SELECT bool_and(c.relkind IN ('r', 'p', 'm') AND coalesce(a.amname, 'heap') = 'heap')
               AND has_table_privilege(CAST(:name AS regclass), 'SELECT')
               AND has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
               AND has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE')
        FROM parts JOIN pg_catalog.pg_class c USING (oid) LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
    """)
    _PLACE = sa.text("""
        SELECT concat_ws('.', (SELECT system_identifier FROM pg_catalog.pg_control_system()),
               (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), attrelid, attnum)
        FROM pg_catalog.pg_attribute WHERE attrelid = CAST(:name AS regclass) AND attname = :feature
    """)

    def row_version(self, connection: sa.Connection, table: sa.TableClause, feature: str) -> Column | None:
        """Return a row's place and the transaction that wrote it, where this is a table of its own and no view.

        Such a pair comes again after 2^32 transactions at the earliest. With it go the server's history, the table and
        the column: after a restore, or where tables or columns were exchanged, the same pair is of another row.
        """
        name = connection.dialect.identifier_preparer.format_table(table).replace("%%", "%")
        if not connection.execute(self._IS_PLAIN, {"name": name}).scalar():
            return None
        place = connection.execute(self._PLACE, {"name": name, "feature": feature}).scalar()
        if place is None:
            return None
        parts: list[Column] = [sa.literal(place), sa.column("tableoid"), sa.column("ctid"), sa.column("xmin")]
        return sa.cast(sa.func.row(*parts), sa.Text)

    def of_rows(self, columns: Sequence[Column]) -> Column:
        """Return the sum as text."""
        row = sa.cast(sa.func.row(*columns), sa.Text)
        hashed = sa.func.pg_catalog.hashtextextended(row, sa.literal_column("0"))
        return sa.cast(sa.func.sum(sa.cast(hashed, sa.Numeric)), sa.Text)

    def content(self, column: LiveColumn) -> Column:
        """Return the SHA-256 of a binary value, text as it is."""
        kind, clause = column.type_name, column.clause
        if kind == "bytea":
            return sa.func.pg_catalog.sha256(clause)
        if kind in self._VECTORS:
            clause = sa.cast(clause, sa.ARRAY(sa.REAL))
        if kind in self._VECTORS or kind.startswith("_"):
            return sa.func.pg_catalog.sha256(sa.func.pg_catalog.array_send(clause))
        return sa.cast(clause, sa.Text)

    def times(self, column: LiveColumn) -> Column:
        """Return a time, NULL where it is infinite or before Christ; text of types that have no greatest value."""
        if column.type_name in self._TIMES:
            return Postgres("").sight(column)
        return column.clause if column.type_name in self._NUMBERS else sa.cast(column.clause, sa.Text)


def digests_of(dialect: Dialect, version: tuple[Any, ...]) -> Digests:
    """Return what a database of this version tells of its rows."""
    if isinstance(dialect, Postgres):
        return PostgresDigests() if version >= (11,) else Digests()
    if isinstance(dialect, MySql):
        return MySqlDigests()
    return SqliteDigests() if isinstance(dialect, Sqlite) else Digests()


def teach(connection: sqlite3.Connection) -> None:
    """Give a connection the functions that marks of SQLite's rows take."""
    connection.create_function("pfstore_digest", 1, value_digest, deterministic=True)
    connection.create_aggregate("pfstore_rows", -1, _Rows)  # type: ignore[arg-type]


class _Rows:
    """Hashes rows, whatever their order."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def step(self, *row: Any) -> None:
        self._rows.append(row)

    def finalize(self) -> bytes:
        first = [row[0] for row in self._rows]
        # Rows with a key of their own need no text to be put in order.
        has_key = len(set(map(type, first))) == 1 and first[0] is not None and len(set(first)) == len(first)
        rows = sorted(self._rows) if has_key else sorted(map(repr, self._rows))
        return hashlib.blake2b(repr(rows).encode(), digest_size=16).digest()


def value_digest(value: object) -> bytes | None:
    """Return 16 bytes that tell a value of a column from others; None of None."""
    if value is None:
        return None
    data = value if isinstance(value, bytes | bytearray | memoryview) else repr(value).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16, person=type(value).__name__.encode()[:16]).digest()


def _bytes_of(column: Column) -> Column:
    """Return a column with its texts as bytes, as a text that is no UTF-8 reaches no function."""
    is_text = sa.func.typeof(column) == sa.literal_column("'text'")
    return sa.case((is_text, sa.cast(column, sa.LargeBinary)), else_=column)
