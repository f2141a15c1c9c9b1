"""Connections to the PostgreSQL that holds the galleries, and its errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import sqlalchemy as sa

from pfstore.errors import DatabaseError
from pfstore.gallery import embedded

Connection: TypeAlias = psycopg.Connection[Any]

SHOWN = ("host", "port", "service", "sslmode")
"""The parameters of a URL that a message may show; others can be passwords."""

CONNECT_TIMEOUT = 10
"""Seconds to wait for a server that does not answer."""


@dataclass(frozen=True)
class Database:
    """Where the galleries are: a libpq connection URI, and the same without its password for messages."""

    uri: str = field(repr=False)
    shown: str

    @classmethod
    def open(cls, url: str, folder: Path) -> Database:
        """Take "embedded:", "embedded:FOLDER" (relative to folder) or a postgresql:// URL; starts what is embedded.

        Raises DatabaseError where the URL is none of these or the embedded server cannot start.
        """
        if embedded.is_embedded(url):
            server = embedded.start(embedded.data_folder(url, folder).resolve())
            return cls(server.get_uri(), url)
        parsed = _parsed(url)
        # A driver named in SQLAlchemy's manner (postgresql+psycopg) means nothing to libpq.
        plain = parsed.set(drivername="postgresql")
        shown = plain.set(query={name: plain.query[name] for name in SHOWN if name in plain.query})
        return cls(plain.render_as_string(hide_password=False), shown.render_as_string(hide_password=True))

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Connect in autocommit mode; transactions are asked for with connection.transaction().

        Raises DatabaseError for everything that the server or the way to it does wrong, in one line.
        """
        with wrapped(self.shown), self._connection() as connection:
            yield connection

    def _connection(self) -> Connection:
        return psycopg.connect(self.uri, autocommit=True, application_name="pfstore", connect_timeout=CONNECT_TIMEOUT)

    def engine(self) -> sa.Engine:
        """Return a SQLAlchemy engine on the same database, for migrations."""
        url = sa.make_url(self.uri).set(drivername="postgresql+psycopg")
        return sa.create_engine(url, poolclass=sa.pool.NullPool)


@contextmanager
def wrapped(shown: str) -> Iterator[None]:
    """Turn psycopg's errors into DatabaseError. shown: the database's URL without a password."""
    try:
        yield
    except psycopg.errors.UndefinedTable as error:
        raise DatabaseError(f"{shown} has no pfstore schema, or an older one: run `pfstore init`") from error
    except psycopg.errors.InvalidSchemaName as error:
        raise DatabaseError(f"{shown} has no pfstore schema: run `pfstore init`") from error
    except psycopg.Error as error:
        raise DatabaseError(f"{shown}: {_one_line(error)}{_remedy(error)}") from error


def _parsed(url: str) -> sa.URL:
    if url.partition("?")[0].count("@") > 1:
        raise DatabaseError(
            "the database URL holds more than one @: percent-encode the password, or write it as ${VARIABLE}"
        )
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise DatabaseError("the database URL cannot be read; it looks like postgresql://user@host/name") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise DatabaseError(
            f"the gallery needs PostgreSQL, not {parsed.get_backend_name()}: "
            "give a postgresql:// URL or embedded: (a legacy store goes under [sources])"
        )
    return parsed


def _one_line(error: psycopg.Error) -> str:
    if error.diag.message_primary:
        return error.diag.message_primary
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].strip()


def _remedy(error: psycopg.Error) -> str:
    text = str(error)
    if "password authentication failed" in text or "no password supplied" in text:
        return "; check the user and the password of the database URL"
    if "refused" in text or "No such file" in text or "could not translate" in text or "timeout" in text:
        return "; is the server running, and are host and port right?"
    return ""
