"""What differs between the databases that hold features: transactions, live types, collations, fast lanes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa

from pfstore.sources.encodings import Encoding
from pfstore.sources.encodings.raw import sent

Column: TypeAlias = sa.ColumnElement[Any]


@dataclass(frozen=True)
class LiveColumn:
    """A column as it is in the database now.

    type_name: as PostgreSQL has it, "" elsewhere. collates: whether values that differ may compare as equal.
    as_text: whether it is used as text, whatever it is. exact: whether its values compare as equal when sent back.
    """

    name: str
    type_name: str = ""
    collates: bool = False
    as_text: bool = False
    exact: bool = True

    @property
    def clause(self) -> Column:
        """The column without a type: what a reflected type makes of the values is not always what is stored."""
        plain: Column = sa.column(self.name)
        return sa.cast(plain, sa.CHAR) if self.as_text else plain


class Dialect:
    """Any database that SQLAlchemy can read; what is said here holds where a subclass says nothing else."""

    case_sensitive_names = True
    nulls_come_first = True

    def begin(self, connection: sa.Connection, timeout: float, /) -> None:
        """Begin a read-only transaction on one snapshot. timeout: of a statement, in seconds."""

    def holds(self, _: sa.Connection, /) -> bool:
        """Tell whether a snapshot may be held for long without keeping a writer waiting."""
        return True

    def abandon(self, connection: sa.Connection) -> None:
        """Make ready to close a cursor in the middle of its result, and then the connection."""

    def cursor(self, _: sa.Connection, /) -> Any:
        """Return a cursor of the driver's own whose rows come as they are fetched, None where SQLAlchemy must read."""
        return None

    def columns(self, _: sa.Connection, cursor: Any, /) -> list[LiveColumn]:
        """Return the live columns of a cursor that has run a SELECT."""
        return [LiveColumn(str(column[0])) for column in cursor.description]

    def key(self, column: LiveColumn) -> Column:
        """Return how to select a key such that Python gets a value that compares the same when sent back."""
        return column.clause

    def sight(self, column: LiveColumn) -> Column:
        """Return how to select a value to be looked at: as a key is, but NULL where Python has no such value."""
        return self.key(column)

    def order(self, column: LiveColumn) -> list[Column]:
        """Return by what to order such that equal keys are adjacent, and those with NULL.

        Keys that only compare as equal come by their bytes. The column itself comes first, as an index has it.
        """
        return [column.clause, self.bytes_of(column)] if column.collates else [column.clause]

    def bytes_of(self, column: LiveColumn) -> Column:
        """Return the column compared by its bytes."""
        return sa.cast(column.clause, sa.LargeBinary)

    def feature(self, column: LiveColumn, encoding: Encoding) -> tuple[Column, Encoding]:
        """Return what to select for the feature and how to decode that: the fastest way there is."""
        return column.clause, encoding

    def size(self, _: LiveColumn, /) -> Column | None:
        """Return the bytes of a column's value without fetching it, None where it has a bound or nothing tells."""
        return None

    def encoding_of(self, _: LiveColumn, /) -> str | None:
        """Return the encoding that a column's type alone tells, None where its values must be looked at."""
        return None


class Sqlite(Dialect):
    """SQLite, whose file is opened with mode=ro."""

    case_sensitive_names = False

    def begin(self, connection: sa.Connection, _: float, /) -> None:
        """Begin a transaction, which is on one snapshot from its first statement on."""
        connection.exec_driver_sql("BEGIN")

    def holds(self, connection: sa.Connection) -> bool:
        """Tell whether the file is in WAL mode; in others a writer waits for who reads."""
        return connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"

    def cursor(self, connection: sa.Connection, /) -> Any:
        """Return a cursor of the driver's own."""
        return connection.connection.cursor()

    def columns(self, _: sa.Connection, cursor: Any, /) -> list[LiveColumn]:
        """Return the live columns; every one may have been declared COLLATE NOCASE or RTRIM."""
        return [LiveColumn(str(column[0]), collates=True) for column in cursor.description]

    def bytes_of(self, column: LiveColumn) -> Column:
        """Return the column compared by its bytes, which costs nothing where it is so already."""
        return sa.collate(column.clause, "BINARY")

    def size(self, column: LiveColumn) -> Column:
        """Return the bytes of a column's value; SQLite knows them without reading it, of a text from 3.43 on."""
        if sqlite3.sqlite_version_info >= (3, 43):
            return sa.func.octet_length(column.clause)
        as_blob = sa.func.length(sa.cast(column.clause, sa.LargeBinary))
        return sa.case((sa.func.typeof(column.clause) == "text", as_blob), else_=sa.func.length(column.clause))


class MySql(Dialect):
    """MariaDB and MySQL."""

    case_sensitive_names = False
    _TEXT_TYPES = frozenset((15, *range(247, 255)))  # VARCHAR, ENUM, SET, the BLOBs and TEXTs, VAR_STRING, STRING
    _ENUM_OR_SET = 256 | 2048
    _INEXACT = frozenset((4, 16))  # FLOAT, BIT

    def __init__(self, driver: str) -> None:
        self._is_pymysql = driver == "pymysql"

    def begin(self, connection: sa.Connection, timeout: float, /) -> None:
        """Begin a read-only transaction on one snapshot. timeout: of a statement, in seconds."""
        is_mariadb = bool(getattr(connection.dialect, "is_mariadb", False))
        knows_idle = is_mariadb and (connection.dialect.server_version_info or ()) >= (10, 3)
        limit = f"max_statement_time = {timeout}" if is_mariadb else f"max_execution_time = {round(timeout * 1000)}"
        for statement in (
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SET SESSION TRANSACTION READ ONLY",
            f"SET SESSION {limit}",
            # While a batch is fused nothing is fetched, and the server would take that for a dead client.
            f"SET SESSION net_write_timeout = {max(60, round(timeout))}",
            f"SET SESSION wait_timeout = {max(28_800, round(timeout))}",
            *(["SET SESSION idle_readonly_transaction_timeout = 0"] if knows_idle else []),
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ):
            connection.exec_driver_sql(statement)

    def cursor(self, connection: sa.Connection, /) -> Any:
        """Return a cursor of pymysql's own that holds no more than the row in hand."""
        if not self._is_pymysql:
            return None
        from pymysql.cursors import SSCursor

        return connection.connection.cursor(SSCursor)

    def abandon(self, connection: sa.Connection) -> None:
        """Tell pymysql not to read the rest of a result, however long, before it closes the cursor."""
        result = getattr(connection.connection.dbapi_connection, "_result", None)
        if result is not None:
            result.unbuffered_active = False

    def columns(self, _: sa.Connection, cursor: Any, /) -> list[LiveColumn]:
        """Return the live columns; text may collate, and an ENUM is taken as text."""
        # The server orders an ENUM by number and compares it with text by text, so no range would be whole.
        fields = getattr(getattr(cursor, "_result", None), "fields", None)
        flags = [field.flags for field in fields] if fields else [0] * len(cursor.description)
        return [
            LiveColumn(
                str(column[0]),
                collates=column[1] in self._TEXT_TYPES,
                as_text=bool(flag & self._ENUM_OR_SET),
                exact=column[1] not in self._INEXACT,
            )
            for column, flag in zip(cursor.description, flags, strict=True)
        ]

    def size(self, column: LiveColumn) -> Column:
        """Return the bytes of a column's value."""
        return sa.func.octet_length(column.clause)


class Postgres(Dialect):
    """PostgreSQL, with or without pgvector."""

    nulls_come_first = False
    # Types that psycopg gives as a value which compares the same when sent back.
    _NUMBERS = frozenset(("bool", "int2", "int4", "int8", "numeric", "float4", "float8"))
    _TIMES = frozenset(("date", "timestamp", "timestamptz"))
    _KEYS = _NUMBERS | _TIMES | {"text", "varchar", "bpchar", "name", "bytea", "uuid"}
    _TEXTS = frozenset(("text", "varchar", "bpchar", "citext"))
    _VECTORS = frozenset(("vector", "halfvec"))
    _ARRAYS = frozenset(("_float4", "_float8"))
    _SIZED = _TEXTS | {"bytea"}
    _TYPES = sa.text("SELECT oid, typname FROM pg_catalog.pg_type WHERE oid IN :oids").bindparams(
        sa.bindparam("oids", expanding=True)
    )

    def __init__(self, driver: str) -> None:
        self._binary = driver == "psycopg"

    def begin(self, connection: sa.Connection, timeout: float, /) -> None:
        """Begin a read-only transaction on one snapshot. timeout: of a statement, in seconds."""
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        if self._binary:
            driver: Any = connection.connection.driver_connection
            driver.server_cursor_factory = _binary_cursor()
        settings = {"statement_timeout": round(timeout * 1000), "idle_in_transaction_session_timeout": 0}
        if (connection.dialect.server_version_info or ()) >= (17,):
            settings["transaction_timeout"] = 0
        for name, value in settings.items():
            connection.execute(sa.select(sa.func.set_config(name, str(value), True)))

    def cursor(self, connection: sa.Connection, /) -> Any:
        """Return a cursor of psycopg's own at the server, binary (see begin)."""
        return connection.connection.cursor("pfstore_rows") if self._binary else None

    def columns(self, connection: sa.Connection, cursor: Any, /) -> list[LiveColumn]:
        """Return the live columns with the names of their types."""
        oids = sorted({int(column[1]) for column in cursor.description})
        found = connection.execute(self._TYPES, {"oids": oids})
        types: dict[int, str] = {row.oid: row.typname for row in found}
        named = [(str(column[0]), types[column[1]]) for column in cursor.description]
        # A nondeterministic collation, which text of any kind may have, takes different texts as equal.
        return [LiveColumn(name, kind, collates=kind in self._TEXTS) for name, kind in named]

    def key(self, column: LiveColumn) -> Column:
        """Return the column, as text where psycopg does not know its type: the server knows it from the text."""
        if column.type_name in self._KEYS:
            return column.clause
        # Under a label of its own: ORDER BY the column's name would else mean this text.
        return sa.cast(column.clause, sa.Text).label(None)

    def sight(self, column: LiveColumn) -> Column:
        """Return how to select a value to be looked at; Python's times are neither infinite nor before Christ."""
        if column.type_name not in self._TIMES:
            return self.key(column)
        first: Column = sa.literal_column("'0001-01-02'")
        last: Column = sa.literal_column("'9999-12-30'")
        return sa.case((column.clause.between(first, last), column.clause))

    def bytes_of(self, column: LiveColumn) -> Column:
        """Return the column compared by its bytes."""
        return sa.collate(sa.cast(column.clause, sa.Text), "C")

    def feature(self, column: LiveColumn, encoding: Encoding) -> tuple[Column, Encoding]:
        """Return what to select for the feature: vectors and arrays in the server's binary form.

        A binary cursor gives a vector as it is sent, as psycopg knows no type for it; an array it would make a list.
        """
        kind = column.type_name
        if kind in ("json", "jsonb"):
            return sa.cast(column.clause, sa.Text), encoding
        if encoding.text not in ("pgvector", "array"):
            return column.clause, encoding
        if kind in self._VECTORS and self._binary:
            return column.clause, Encoding(encoding.text, sent(kind))
        if kind in self._ARRAYS:
            return sa.func.pg_catalog.array_send(column.clause), Encoding(encoding.text, sent(kind))
        return column.clause, encoding

    def encoding_of(self, column: LiveColumn) -> str | None:
        """Return the encoding that a column's type alone tells, None where its values must be looked at."""
        if column.type_name in self._VECTORS:
            return "pgvector"
        return "array" if column.type_name in self._ARRAYS else None

    def size(self, column: LiveColumn) -> Column | None:
        """Return the bytes of a column's value, which the server knows without unpacking it."""
        if column.type_name in self._SIZED:
            return sa.func.octet_length(column.clause)
        if column.type_name in self._ARRAYS:
            return sa.func.cardinality(column.clause) * 8
        if column.type_name in self._KEYS | self._VECTORS:
            return None
        return sa.func.octet_length(sa.cast(column.clause, sa.Text))


def dialect_of(dialect: sa.Dialect) -> Dialect:
    """Return what differs in a database, told by SQLAlchemy's name of it."""
    if dialect.name == "postgresql":
        return Postgres(dialect.driver)
    if dialect.name in ("mysql", "mariadb"):
        return MySql(dialect.driver)
    return Sqlite() if dialect.name == "sqlite" else Dialect()


def _binary_cursor() -> Any:
    from psycopg import ServerCursor
    from psycopg.pq import Format

    class BinaryServerCursor(ServerCursor[Any]):
        """Bytes come as they are instead of as hexadecimal text of twice the length."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.format = Format.BINARY

    return BinaryServerCursor
