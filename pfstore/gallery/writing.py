"""Writing a shard: encoded as it comes, then one short transaction that copies it straight into the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from datetime import UTC, datetime
from functools import cached_property
from io import BytesIO

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from pfstore.errors import MappingError, TakenError
from pfstore.features import TemplateBatch
from pfstore.gallery import copying, removals
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.runs import Counts
from pfstore.sources.base import Reject

_TEMPLATES = f"COPY pfstore.templates ({', '.join(copying.COLUMNS)}) FROM STDIN (FORMAT binary)"
_REJECTS = 'COPY pfstore.rejects (run_id, shard, position, subject_id, medium, "row", reason, detail) FROM STDIN'
_REMOVE = "DELETE FROM pfstore.templates WHERE version_id = %s AND subject_id = ANY(%s)"
_MARK = (
    "INSERT INTO pfstore.marks (version_id, subject_id, mark, rejected)"
    " SELECT %s, * FROM unnest(%s::text[], %s::bytea[], %s::boolean[])"
    " ON CONFLICT (version_id, subject_id) DO UPDATE SET mark = excluded.mark, rejected = excluded.rejected"
)
_UNMARK = "DELETE FROM pfstore.marks WHERE version_id = %s AND subject_id = ANY(%s)"
_DONE = (
    "UPDATE pfstore.shards SET done_at = %(now)s, "
    + ", ".join(f"{field.name} = %({field.name})s" for field in fields(Counts))
    + ", kept = %(kept)s, excluded = %(excluded)s, error = NULL"
    + " WHERE run_id = %(run)s AND number = %(shard)s AND done_at IS NULL"
)
_IS_DONE = "SELECT done_at IS NOT NULL FROM pfstore.shards WHERE run_id = %s AND number = %s FOR UPDATE"
# Where a shard is too large to be held, the source may keep its transaction waiting for longer than a server allows.
_BEGIN = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0"

MOST_HELD = 2**26
"""Bytes of encoded templates that are held until the commit: 13,000 templates of 4 x 512 values."""


@contextmanager
def staging(connection: Connection, version: Version, run_id: int) -> Iterator[ShardWriter]:
    """Open a writer; what it has not committed in the end is gone."""
    try:
        yield ShardWriter(connection, version, run_id)
    except BaseException as error:
        if not isinstance(error, Exception):
            # Ctrl-C may have come in the middle of a statement, after which the connection answers to nothing.
            connection.close()
        raise
    finally:
        if not connection.closed:
            connection.rollback()


class ShardWriter:
    """Collects what a shard gave and writes it in one transaction.

    One at a time on a connection in autocommit mode, opened by `staging`. Nothing is visible to anyone before
    `commit`, and a writer that dies leaves nothing behind. The transaction begins at the commit, or where MOST_HELD
    bytes have come together: as long as it lasts no other version can be dropped, and searches queue up behind
    whoever tries.
    """

    def __init__(self, connection: Connection, version: Version, run_id: int) -> None:
        self.version = version
        self._connection = connection
        self.run_id = run_id
        self._begun = False
        # Filled again from its beginning: memory that the process has already is filled faster than new.
        self._held = BytesIO()
        self._forget()

    def known(self, subject_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the fingerprints of those of the subjects that have a template already; to be asked before `add`.

        Raises MappingError where this run has written one of them before: then two keys of the source look alike.
        Of a version that was empty when the writer was opened nobody is asked about: there writing finds that out.
        """
        for subject in self._added.intersection(subject_ids):
            raise _twice(subject)
        if self._was_empty:
            return {}
        query = (
            "SELECT subject_id, fingerprint, run_id FROM pfstore.templates"
            " WHERE version_id = %s AND subject_id = ANY(%s)"
        )
        rows = self._connection.cursor(binary=True).execute(query, (self.version.version_id, list(subject_ids)))
        known = {}
        for subject, fingerprint, run_id in rows:
            if run_id == self.run_id:
                raise _twice(subject)
            known[subject] = fingerprint
        self._outdated.update(known)
        return known

    @cached_property
    def _was_empty(self) -> bool:
        query = "SELECT NOT EXISTS (SELECT 1 FROM pfstore.templates WHERE version_id = %s)"
        return self._connection.execute(query, (self.version.version_id,)).fetchone() == (True,)

    def add(self, batch: TemplateBatch) -> None:
        """Take templates, as half precision, in place of those that `known` told of.

        Raises MappingError for a subject that the run has had before; if in an earlier shard, perhaps at the commit.
        """
        for subject in batch.subject_ids:
            if subject in self._added:
                raise _twice(subject)
            self._added.add(subject)
        self._replaced += [subject for subject in batch.subject_ids if subject in self._outdated]
        now, encoding = datetime.now(UTC), self._connection.info.encoding
        for rows in copying.rows(batch, self.version, run=self.run_id, fused_at=now, encoding=encoding):
            self._held.write(rows)
            if self._held.tell() > MOST_HELD:
                self._copy()

    def _copy(self) -> None:
        """Send what is held to the server."""
        self._begin()
        if self._replaced:
            self._connection.execute(_REMOVE, (self.version.version_id, self._replaced))
        try:
            with self._connection.cursor().copy(_TEMPLATES) as copy:
                copy.write(copying.HEADER)
                with self._held.getbuffer() as rows:
                    copy.write(rows[: self._held.tell()])
                copy.write(copying.TRAILER)
        except UniqueViolation:
            subjects = list(self._added)
            self.clear()
            self._was_empty = False
            self.known(subjects)
            raise
        self._held.seek(0)
        self._replaced.clear()

    def keep(self, subjects: Sequence[str]) -> None:
        """Note subjects whose templates stay as they are."""
        self._kept.extend(subjects)

    def reject(self, rejects: Sequence[Reject], subjects: Sequence[str]) -> None:
        """Note rejected rows, and the subjects that have no usable row left: their old templates go."""
        self._rejects.extend(rejects)
        self._gone.extend(subjects)

    def mark(self, marks: Mapping[str, bytes]) -> None:
        """Note what the source said of subjects, in the snapshot that their features were read in."""
        self._marks.update(marks)

    def exclude(self, causes: Mapping[str, int]) -> None:
        """Count rows that the mapping leaves out, by cause."""
        self._excluded.update(causes)

    def commit(self, shard: int, counts: Counts) -> Counts:
        """Write the rest and the shard's "done", and make all of it visible; return the counts with removals.

        Raises TakenError, and writes nothing, where another process has done the shard meanwhile, and ConflictError
        where more templates would go than the run may remove.
        """
        self._begin()
        if self._connection.execute(_IS_DONE, (self.run_id, shard)).fetchone() == (True,):
            self.clear()
            raise TakenError(f"shard {shard} of run {self.run_id} has been done by another process meanwhile")
        if self._held.tell():
            self._copy()
        removed = 0
        if self._gone:
            self._refuse_written(self._gone)
            removed = self._connection.execute(_REMOVE, (self.version.version_id, self._gone)).rowcount
            if removed and (allowance := removals.of_run(self._connection, self.run_id)):
                allowance.spend(unusable=removed)
        self._write_marks()
        if self._rejects:
            with self._connection.cursor().copy(_REJECTS) as copy:
                for position, one in enumerate(self._rejects):
                    told = (one.subject, one.medium, one.row, str(one.reason), one.detail)
                    copy.write_row((self.run_id, shard, position, *told))
        total = counts + Counts(removed=removed)
        named = dict(zip((field.name for field in fields(Counts)), astuple(total), strict=True))
        noted = {"kept": self._kept, "excluded": Jsonb(self._excluded), "now": datetime.now(UTC)}
        self._connection.execute(_DONE, {"run": self.run_id, "shard": shard} | named | noted)
        self._connection.commit()
        self._begun = False
        self._forget()
        return total

    def _write_marks(self) -> None:
        """Write the marks; a subject that was written without one must not keep that of an earlier template."""
        gone = set(self._gone)
        unmarked = [one for one in (*self._added, *gone) if one not in self._marks]
        version = self.version.version_id
        if unmarked:
            self._connection.execute(_UNMARK, (version, unmarked))
        if self._marks:
            rejected = [subject in gone for subject in self._marks]
            self._connection.execute(_MARK, (version, list(self._marks), list(self._marks.values()), rejected))

    def _refuse_written(self, subjects: Sequence[str]) -> None:
        """Raise MappingError where this run has written one of these subjects, as whom another key was rejected."""
        query = (
            "SELECT subject_id FROM pfstore.templates"
            " WHERE version_id = %s AND run_id = %s AND subject_id = ANY(%s) LIMIT 1"
        )
        found = self._connection.execute(query, (self.version.version_id, self.run_id, subjects)).fetchone()
        if found:
            raise _twice(found[0])

    def clear(self) -> None:
        """Give up what was not committed."""
        if self._begun:
            self._connection.rollback()
            self._begun = False
        self._forget()

    def _begin(self) -> None:
        if not self._begun:
            self._connection.execute(_BEGIN)
            self._begun = True

    def _forget(self) -> None:
        self._held.seek(0)
        self._replaced: list[str] = []
        self._rejects: list[Reject] = []
        self._gone: list[str] = []
        self._kept: list[str] = []
        self._excluded = Counter[str]()
        self._marks: dict[str, bytes] = {}
        self._outdated: set[str] = set()
        self._added: set[str] = set()


def _twice(subject: str) -> MappingError:
    return MappingError(
        f"the subject {subject!r} comes twice: two different keys of the source are the same as text; "
        "map a key that tells them apart"
    )
