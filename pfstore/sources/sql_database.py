"""The connection to a legacy database: opened for reading alone, every error in one line without a secret."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import sqlalchemy as sa

from pfstore.errors import MappingError, SourceError
from pfstore.sources.sql_dialects import Dialect, dialect_of
from pfstore.sources.sql_digests import teach
from pfstore.sources.sql_urls import OWN_DRIVERS, parsed, secrets_of
from pfstore.sources.sqlite_clock import SqliteClock

_SQLITE_INTERRUPTED = "interrupted"
CONNECT_TIMEOUT = 10
"""Seconds to wait for a server that does not answer, and for a writer that locks an SQLite file."""

# What fails while a connection is thrown away is of no interest; SQLAlchemy would print it with a traceback.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


class Fetching(Protocol):
    """What has run a statement and gives its rows, at most so many at a time, none at the end."""

    def fetchmany(self, size: int, /) -> Sequence[Sequence[Any]]:
        """Return the next rows, as tuples or what is like them."""
        ...


class LegacyDatabase:
    """A database that is only ever read.

    url: any SQLAlchemy URL. name: the source's, for messages. statement_timeout: seconds.
    """

    def __init__(self, url: str, name: str, statement_timeout: float) -> None:
        self._url = parsed(url, name)
        self._timeout = statement_timeout
        self._clock = SqliteClock(statement_timeout)
        self._label = f"source {name} ({self._url.set(query={}).render_as_string(hide_password=True)})"
        self._engine = self._opened()
        self._driver_error: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        self.dialect: Dialect = dialect_of(self._engine.dialect)

    @property
    def engine_name(self) -> str:
        """What kind of database this is: "sqlite", "mysql" (also MariaDB), "postgresql", …."""
        name = self._engine.dialect.name
        return "mysql" if name == "mariadb" else name

    def quote(self, name: str) -> str:
        """Return an identifier as the database's SQL has it, in quotation marks where they are needed."""
        quoted = self._engine.dialect.identifier_preparer.quote(name)
        # For these drivers SQLAlchemy doubles what would be the place of a parameter.
        return quoted.replace("%%", "%") if self._engine.dialect.paramstyle in ("format", "pyformat") else quoted

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """Connect in a read-only transaction that sees one state of the database.

        Raises SourceError for everything that the database or the way to it does wrong. Left early, the
        connection is thrown away, so that what was still to come is neither waited for nor read.
        """
        with self._connected() as connection, self.saying():
            try:
                self.dialect.begin(connection, self._timeout)
                yield connection
            except BaseException:
                connection.invalidate()
                raise

    @contextmanager
    def fetched(self, connection: sa.Connection, statement: sa.Select[Any]) -> Iterator[Fetching]:
        """Run a statement as streamed does, its rows by the driver itself: without a name and the cost of one.

        No selected column may be of a type whose values SQLAlchemy would convert.
        """
        cursor = self.dialect.cursor(connection)
        if cursor is None:
            with self.streamed(connection, statement) as result:
                yield result
            return
        try:
            cursor.execute(*self._written(statement))
            yield cursor
        except BaseException as error:
            if isinstance(error, (Exception, GeneratorExit)):
                self.dialect.abandon(connection)
                cursor.close()
            else:  # As SQLAlchemy does: after Ctrl-C in the driver nobody knows where its protocol stands.
                connection.invalidate()
            raise
        cursor.close()

    def _written(self, statement: sa.Select[Any]) -> tuple[str, Any]:
        """Return a statement's text and parameters as the driver takes them."""
        compiled = statement.compile(self._engine, compile_kwargs={"render_postcompile": True})
        if not compiled.positional:
            return str(compiled), compiled.params
        return str(compiled), tuple(compiled.params[name] for name in compiled.positiontup or ())

    @contextmanager
    def streamed(self, connection: sa.Connection, statement: sa.Select[Any]) -> Iterator[sa.CursorResult[Any]]:
        """Run a statement of a snapshot whose rows come as they are fetched, not all at once."""
        result = connection.execute(statement, execution_options={"stream_results": True})
        try:
            yield result
        except BaseException:
            # After Ctrl-C in the driver, SQLAlchemy has thrown the connection away, and the cursor with it.
            if not connection.invalidated:
                self.dialect.abandon(connection)
                result.close()
            raise

    def error(self, message: str) -> SourceError:
        """Return the SourceError that says this of the source."""
        return SourceError(f"{self._label}: {message}")

    def unmapped(self, message: str) -> MappingError:
        """Return the MappingError that says this of the source."""
        return MappingError(f"{self._label}: {message}")

    def close(self) -> None:
        """Give back what connections are left."""
        self._engine.dispose()

    def __enter__(self) -> LegacyDatabase:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _connected(self) -> sa.Connection:
        with self.saying("cannot be opened: "):
            try:
                return self._engine.connect()
            # pymysql answers with these to an unknown option and to a login that needs another package.
            except (TypeError, RuntimeError) as error:
                raise self.error(f"cannot be opened: {self.words(error)}") from error

    def _opened(self) -> sa.Engine:
        if self._url.get_backend_name() == "sqlite":
            return self._sqlite()
        options = {"connect_timeout": CONNECT_TIMEOUT} if self._url.drivername in OWN_DRIVERS else {}
        try:
            return sa.create_engine(self._url, poolclass=sa.NullPool, connect_args=options)
        except sa.exc.NoSuchModuleError:
            raise self.error(f"there is no kind of database {self._url.drivername!r}") from None
        except ModuleNotFoundError as error:
            extra = "pfstore[mysql]" if error.name == "pymysql" else error.name
            raise self.error(f"the driver {error.name} is missing: pip install '{extra}'") from None

    def _sqlite(self) -> sa.Engine:
        path = Path(self._url.database or ":memory:")
        # SQLite would make an empty database of this name.
        if not path.is_file():
            raise self.error(f"there is no SQLite file {path}")
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(uri, uri=True, timeout=CONNECT_TIMEOUT, check_same_thread=False)
            # SQLite takes any bytes for text; one such value must not fail the whole store.
            connection.text_factory = methodcaller("decode", "utf-8", "surrogateescape")
            self._clock.watch(connection)
            teach(connection)
            return connection

        return sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)

    @contextmanager
    def saying(self, prefix: str = "") -> Iterator[None]:
        """Turn what the database and its driver raise into SourceError."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            self.raise_interrupt(error.orig)
            raise self.error(prefix + self.words(error.orig)) from error.orig
        except self._driver_error as error:
            self.raise_interrupt(error)
            raise self.error(prefix + self.words(error)) from error
        except (sa.exc.SQLAlchemyError, UnicodeDecodeError) as error:
            raise self.error(prefix + self.words(error)) from error

    def raise_interrupt(self, error: BaseException | None) -> None:
        """Raise KeyboardInterrupt where Ctrl-C was the cause of an error of SQLite's."""
        if _reason(error) == _SQLITE_INTERRUPTED and not self._clock.ran_out:
            raise KeyboardInterrupt

    def words(self, error: BaseException | None) -> str:
        """Return what an error of the database says, in one line and without a secret."""
        text = _reason(error)
        if text == _SQLITE_INTERRUPTED:
            return f"a statement took more than {self._timeout:g} s (statement_timeout)"
        for secret in secrets_of(self._url):
            text = text.replace(secret, "***")
        return text


def _reason(error: BaseException | None) -> str:
    """Return what a driver's error says, in one line and without the statement."""
    text = getattr(getattr(error, "diag", None), "message_primary", None)
    match getattr(error, "args", ()):
        case [int(), str(message)]:  # MariaDB's and MySQL's number and words
            text = text or message
    return " ".join(str(text or error or type(error).__name__).split())[:500]
