"""What a database tells of rows being as they were: versions of rows, marks that it keeps, digests that it computes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from pfstore.sources.sql_dialects import Column, Dialect, LiveColumn, MySql, Postgres, Sqlite


class Digests:
    """Any database that SQLAlchemy can read: it tells nothing, so its rows are fetched and looked at here."""

    def row_version(self, _connection: sa.Connection, _table: sa.TableClause, /) -> Column | None:
        """Return what is another for a row of this table after every change; None where nothing is."""
        return None

    def keeps(self, _connection: sa.Connection, _table: sa.TableClause, _column: str, /) -> bool:
        """Tell whether the database changes this column of a table itself whenever a row changes."""
        return False

    def of_rows(self, _columns: Sequence[Column], /) -> list[Column]:
        """Return aggregates of these values that are equal for equal groups of rows; none where there are none."""
        return []

    def content(self, column: LiveColumn) -> Column:
        """Return a value that is another where that of a column is, as short as can be."""
        return column.clause

    def latest(self, column: LiveColumn) -> Column:
        """Return the greatest value of a column in a group."""
        return sa.func.max(column.clause)


class SqliteDigests(Digests):
    """SQLite: the values of a group's rows as texts; features are hashed here, without being fetched."""

    def of_rows(self, columns: Sequence[Column]) -> list[Column]:
        """Return the rows' values, one text for each column, all in the same order of rows."""
        null: Column = sa.literal_column("char(0)")
        separator: Column = sa.literal_column("char(31)")
        return [sa.func.group_concat(sa.func.ifnull(column, null), separator) for column in columns]

    def content(self, column: LiveColumn) -> Column:
        """Return the value's type and a digest of its bytes, by the function that every connection is given."""
        digest = sa.func.hex(sa.func.pfstore_digest(sa.cast(column.clause, sa.LargeBinary)))
        return sa.func.typeof(column.clause).op("||")(digest)


class MySqlDigests(Digests):
    """MariaDB and MySQL: the sum of 64 bits of each row's MD5."""

    def keeps(self, connection: sa.Connection, table: sa.TableClause, column: str) -> bool:
        """Tell whether the column is declared ON UPDATE CURRENT_TIMESTAMP."""
        statement = sa.text(
            "SELECT extra FROM information_schema.columns WHERE table_name = :table AND column_name = :column"
            " AND table_schema = coalesce(:schema, database())"
        )
        names = {"table": table.name, "column": column, "schema": table.schema}
        return "on update" in str(connection.execute(statement, names).scalar() or "").lower()

    def of_rows(self, columns: Sequence[Column]) -> list[Column]:
        """Return the sum as text; each value is quoted, so that no two rows look alike."""
        row = sa.func.concat_ws("|", *(sa.func.quote(sa.cast(column, sa.LargeBinary)) for column in columns))
        digits = sa.func.conv(sa.func.left(sa.func.md5(row), 16), 16, 10)
        return [sa.cast(sa.func.sum(sa.cast(digits, mysql.INTEGER(unsigned=True))), sa.CHAR)]

    def content(self, column: LiveColumn) -> Column:
        """Return the MD5 of the value's bytes."""
        return sa.func.md5(sa.cast(column.clause, sa.LargeBinary))


class PostgresDigests(Digests):
    """PostgreSQL: tables know the transaction that wrote a row; else the sum of a hash of each row."""

    _VECTORS = frozenset(("vector", "halfvec"))
    _TIMES = frozenset(("date", "timestamp", "timestamptz"))
    _NUMBERS = frozenset(("int2", "int4", "int8", "numeric", "float4", "float8"))
    _KIND = sa.text("SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = CAST(:name AS regclass)")

    def row_version(self, connection: sa.Connection, table: sa.TableClause) -> Column | None:
        """Return the number of the transaction that wrote a row, where this is a table of its own and no view.

        It comes again for the same row after 2^32 transactions at the earliest; freezing a row leaves it.
        """
        name = connection.dialect.identifier_preparer.format_table(table)
        kind = connection.execute(self._KIND, {"name": name}).scalar()
        return sa.cast(sa.column("xmin"), sa.Text) if kind in ("r", "p", "m") else None

    def of_rows(self, columns: Sequence[Column]) -> list[Column]:
        """Return the sum as text."""
        row = sa.cast(sa.func.row(*columns), sa.Text)
        hashed = sa.func.pg_catalog.hashtextextended(row, sa.literal_column("0"))
        return [sa.cast(sa.func.sum(sa.cast(hashed, sa.Numeric)), sa.Text)]

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

    def latest(self, column: LiveColumn) -> Column:
        """Return the greatest value; of types that have none before PostgreSQL 18, as uuid, the greatest text."""
        if column.type_name in self._TIMES | self._NUMBERS:
            return sa.func.max(column.clause)
        return sa.func.max(sa.cast(column.clause, sa.Text))


def digests_of(dialect: Dialect) -> Digests:
    """Return what a database tells of its rows."""
    if isinstance(dialect, Postgres):
        return PostgresDigests()
    if isinstance(dialect, MySql):
        return MySqlDigests()
    return SqliteDigests() if isinstance(dialect, Sqlite) else Digests()


def value_digest(value: object) -> bytes | None:
    """Return 16 bytes that tell a value of a column from others; None of None."""
    if value is None:
        return None
    data = value if isinstance(value, bytes | bytearray | memoryview) else repr(value).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16, person=type(value).__name__.encode()[:16]).digest()
