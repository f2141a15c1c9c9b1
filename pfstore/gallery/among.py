"""Among whom a search looks: lists of subjects, and queries of the user's own tables that give one."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import psycopg

from pfstore.errors import InputError
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version


class Names(tuple[str, ...]):
    """A list of subjects for many searches, so that it is written out once. Each name once, in their order."""

    def __new__(cls, names: Iterable[str]) -> Names:
        """Take the names, each once."""
        return super().__new__(cls, dict.fromkeys(names))

    @cached_property
    def array(self) -> str:
        """The names as PostgreSQL writes a text[], those with a NUL left out: no subject has one."""
        quoted = (one.replace("\\", "\\\\").replace('"', '\\"') for one in self if "\0" not in one)
        return "{" + ",".join(f'"{one}"' for one in quoted) + "}"


def asked(connection: Connection, query: str) -> Names:
    """Run a query of one column, with the rights of the connection's user and read-only, and return it as text.

    NULLs are left out, and what is there twice. Raises InputError where it is not one query of one column, writes or
    fails.
    """
    inner = query.strip().rstrip(";")
    try:
        # Rolled back, so that not even a setting stays.
        with connection.transaction(force_rollback=True), connection.cursor(binary=True) as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
            columns = cursor.execute(f"SELECT * FROM (\n{inner}\n) AS named LIMIT 0".encode()).description or ()
            if len(columns) != 1:
                raise InputError(f"the query gives {len(columns)} columns, one is needed: the subjects' keys")
            column = "SELECT DISTINCT subject::text FROM (\n%b\n) AS named (subject) WHERE subject IS NOT NULL"
            return Names(name for (name,) in cursor.execute(column.encode() % inner.encode()))
    except (
        psycopg.ProgrammingError,
        psycopg.DataError,
        psycopg.InternalError,
        psycopg.NotSupportedError,
        UnicodeEncodeError,
    ) as error:
        told = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        raise InputError(f"the query fails, or is not one query of one column: {told or error}") from None


def absent(connection: Connection, version: Version, names: Names) -> list[str]:
    """Return those of the names that have no template in a version, sorted."""
    query = (
        "SELECT name FROM unnest(%(names)s::text[]) AS name EXCEPT SELECT subject_id FROM pfstore.templates"
        " WHERE version_id = %(id)s AND subject_id = ANY (%(names)s::text[]) ORDER BY name"
    )
    rows = connection.execute(query, {"names": names.array, "id": version.version_id})
    return [name for (name,) in rows]
