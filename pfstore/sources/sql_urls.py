"""URLs of legacy databases: as a user writes them, as the drivers take them, and without their secrets."""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy as sa

from pfstore.errors import InputError, SourceError

_DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql", "postgresql": "postgresql+psycopg"}
_DRIVERS |= {"postgres": "postgresql+psycopg"}
OWN_DRIVERS = frozenset(_DRIVERS.values())
"""The drivers that are taken where a URL names none."""

_SECRETS = ("password", "passwd", "sslpassword")
_WRITTEN_OUT = re.compile(
    r"((?<=://)[^:/?@]*:)(?!\$\{\w+\}@)[^@]+(?=@)|([?&](?:password|passwd|sslpassword)=)(?!\$\{\w+\}(?:&|$))[^&]*"
)
_SQLITE = b"SQLite format 3\0"


def parsed(url: str, name: str) -> sa.URL:
    """Return the URL with the driver that pfstore takes. Raises SourceError where it cannot be read."""
    kind, _, rest = url.partition("://")
    # SQLAlchemy would take a part of such a password for the host, which messages name.
    if "@" in rest.rpartition("@")[0] and not kind.startswith("sqlite"):
        raise SourceError(
            f'source {name}: the URL has more than one "@"; percent-encode the password (%40) or use ${{VARIABLE}}'
        )
    try:
        found = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # The text itself may hold a password.
        raise SourceError(
            f"source {name}: the URL cannot be read; it looks like mysql://user:password@host/database"
        ) from None
    return found.set(drivername=_DRIVERS.get(found.drivername, found.drivername))


def secrets_of(url: sa.URL) -> list[str]:
    """Return the passwords in a URL."""
    return [str(secret) for secret in (url.password, *(url.query.get(name) for name in _SECRETS)) if secret]


def shareable(url: str) -> str:
    """Return a URL as a configuration may hold it: with ${PASSWORD} where a password is written out."""
    # As text: of a URL with ${PORT} in it SQLAlchemy can make nothing.
    return _WRITTEN_OUT.sub(r"\1\2${PASSWORD}", url)


def of_argument(text: str) -> str:
    """Return the URL of a database that a user names by its URL, or by its file where it is SQLite.

    Raises InputError where it is neither.
    """
    if "://" in text:
        return text
    path = Path(text)
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except OSError as error:
        raise InputError(
            f"{text}: neither a URL, as mysql://user@host/database, nor a file: {error.strerror}"
        ) from None
    if start != _SQLITE:
        raise InputError(f'{text}: no SQLite database; files of features are a source as they are: path = "{text}"')
    return f"sqlite:///{text}"
