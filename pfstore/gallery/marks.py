"""Marks: what a source said of each subject when its template was made, and who has changed since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from pfstore.errors import MappingError
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.sources.base import Marked

_SEEN = (
    "CREATE TEMPORARY TABLE pfstore_seen"
    ' (position bigint, subject_id text COLLATE "C", key text, rows bigint, mark bytea) ON COMMIT DROP'
)
_COPY = "COPY pg_temp.pfstore_seen FROM STDIN"

# A subject is as it was where its mark is, and it has a template, or is known to have none.
_JOINED = """
    FROM (SELECT s.*, m.rejected, (t.subject_id IS NULL AND m.subject_id IS NULL) AS is_new,
                 (m.mark = s.mark AND s.mark <> '' AND m.rejected = (t.subject_id IS NULL)) IS TRUE AS is_same
          FROM (SELECT * FROM pg_temp.pfstore_seen OFFSET 0) s
          LEFT JOIN pfstore.marks m ON m.version_id = %(version)s AND m.subject_id = s.subject_id
          LEFT JOIN pfstore.templates t ON t.version_id = %(version)s AND t.subject_id = s.subject_id) one
"""
# As a set and not row by row: of marks that were just written nobody knows how many there are, and a plan for a few
# would take hours.
_GONE = (
    "SELECT subject_id FROM pfstore.{} WHERE version_id = %(version)s"
    " EXCEPT SELECT subject_id FROM (SELECT subject_id FROM pg_temp.pfstore_seen OFFSET 0) s"
)
_REMOVE = "DELETE FROM pfstore.{} WHERE version_id = %s AND subject_id = ANY(%s)"
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Found:
    """How many subjects of a source are in which state against a version.

    unchanged, rejected: those that are as they were, with a template and without. changed: also those of which nobody
    can tell. vanished: those with a template that the source no longer has. templates: in the version. rows: of all
    subjects in the source.
    """

    new: int
    changed: int
    vanished: int
    unchanged: int
    rejected: int
    templates: int
    rows: int

    @property
    def seen(self) -> int:
        """All subjects of the source."""
        return self.new + self.changed + self.unchanged + self.rejected


class Comparison:
    """The subjects of a source against those of a version, for as long as the transaction lasts; made by `compared`."""

    def __init__(self, connection: Connection, version: Version) -> None:
        self._connection = connection
        self._version = version
        self._vanished = sorted(subject for (subject,) in self._all(_GONE.format("templates")))
        self.found = self._found()

    def to_read(self) -> Iterator[tuple[Sequence[Any], int]]:
        """Return the keys of the new and changed subjects, in the source's order, and the numbers of their rows."""
        rows = self._all("SELECT key, rows" + _JOINED + "WHERE NOT is_same ORDER BY position")
        return ((orjson.loads(key), int(count)) for key, count in rows)

    def named(self, most: int) -> dict[str, list[str]]:
        """Return the first so many subjects of each kind: new, changed, vanished."""
        some = {"version": self._version.version_id, "most": most}
        query = "SELECT subject_id" + _JOINED + "WHERE NOT is_same AND is_new = {} ORDER BY position LIMIT %(most)s"
        kinds = {"new": True, "changed": False}
        some_read = {
            kind: [row[0] for row in self._connection.execute(query.format(is_new).encode(), some)]
            for kind, is_new in kinds.items()
        }
        return some_read | {"vanished": self._vanished[:most]}

    def remove_vanished(self) -> int:
        """Remove the templates and marks of those whom the source no longer has; return how many templates."""
        self._remove("marks", [subject for (subject,) in self._all(_GONE.format("marks"))])
        return self._remove("templates", self._vanished)

    def _remove(self, table: str, subjects: Sequence[str]) -> int:
        pages = (subjects[start : start + _AT_ONCE] for start in range(0, len(subjects), _AT_ONCE))
        query, version = _REMOVE.format(table).encode(), self._version.version_id
        return sum(self._connection.execute(query, (version, page)).rowcount for page in pages)

    def _found(self) -> Found:
        new, changed, unchanged, rejected, rows = self._one(
            "SELECT count(*) FILTER (WHERE NOT is_same AND is_new), count(*) FILTER (WHERE NOT is_same AND NOT is_new),"
            " count(*) FILTER (WHERE is_same AND NOT rejected), count(*) FILTER (WHERE is_same AND rejected),"
            " coalesce(sum(rows), 0)::bigint" + _JOINED
        )
        (templates,) = self._one("SELECT count(*) FROM pfstore.templates WHERE version_id = %(version)s")
        return Found(new, changed, len(self._vanished), unchanged, rejected, templates, rows)

    def _all(self, query: str) -> list[Any]:
        return self._connection.execute(query.encode(), {"version": self._version.version_id}).fetchall()

    def _one(self, query: str) -> Any:
        (row,) = self._all(query)
        return row


@contextmanager
def compared(connection: Connection, version: Version, subjects: Iterable[Marked]) -> Iterator[Comparison]:
    """Compare all subjects of a source with a version, in a transaction that lasts as long as the context.

    Raises MappingError where two of them have one text.
    """
    with connection.transaction():
        # To copy takes as long as the source takes to go through all its rows.
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute(_SEEN)
        with connection.cursor().copy(_COPY) as copy:
            for position, one in enumerate(subjects):
                copy.write_row((position, one.subject, orjson.dumps(one.key).decode(), one.rows, one.mark))
        connection.execute("ANALYZE pg_temp.pfstore_seen")
        twice = connection.execute(
            "SELECT subject_id FROM pg_temp.pfstore_seen GROUP BY subject_id HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if twice:
            raise MappingError(
                f"the subject {twice[0]!r} comes twice: two different keys of the source are the same as text; "
                "map a key that tells them apart"
            )
        yield Comparison(connection, version)


def forget(connection: Connection, version: Version) -> None:
    """Forget what the source said, so that the next refresh looks at every subject."""
    connection.execute("DELETE FROM pfstore.marks WHERE version_id = %s", (version.version_id,))
