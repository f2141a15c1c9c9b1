"""Writing a shard: templates by binary COPY into a staging table, then one transaction that does it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from datetime import UTC, datetime

from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from pfstore.errors import SourceError
from pfstore.features import TemplateBatch
from pfstore.gallery.coarse import Coarse
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.locking import released
from pfstore.gallery.runs import Counts
from pfstore.sources.base import Reject

_COLUMNS = "subject_id, template, coarse, residual, features, media, fingerprint"
_REJECT_COLUMNS = 'position, subject_id, medium, "row", reason, detail'

_STAGING = f"""
    CREATE TEMPORARY TABLE staging AS
        SELECT {_COLUMNS} FROM pfstore.templates WITH NO DATA;
    CREATE TEMPORARY TABLE staging_rejects AS
        SELECT {_REJECT_COLUMNS} FROM pfstore.rejects WITH NO DATA;
    CREATE TEMPORARY TABLE staging_gone (subject_id text);
    ALTER TABLE staging ALTER COLUMN template SET STORAGE EXTERNAL, ALTER COLUMN coarse SET STORAGE PLAIN
"""

_UPSERT = f"""
    INSERT INTO pfstore.templates (version_id, {_COLUMNS}, run_id, fused_at)
    SELECT %(version)s, {_COLUMNS}, %(run)s, %(now)s FROM staging
    ON CONFLICT (version_id, subject_id) DO UPDATE SET
        template = excluded.template, coarse = excluded.coarse, residual = excluded.residual,
        features = excluded.features, media = excluded.media, fingerprint = excluded.fingerprint,
        run_id = excluded.run_id, fused_at = excluded.fused_at
"""

_REJECTS = f"""
    INSERT INTO pfstore.rejects (run_id, shard, {_REJECT_COLUMNS})
    SELECT %(run)s, %(shard)s, {_REJECT_COLUMNS} FROM staging_rejects
"""

_REMOVE = """
    DELETE FROM pfstore.templates t USING staging_gone g
    WHERE t.version_id = %(version)s AND t.subject_id = g.subject_id
"""

_DONE = (
    "UPDATE pfstore.shards SET done_at = %(now)s, "
    + ", ".join(f"{field.name} = %({field.name})s" for field in fields(Counts))
    + ", kept = %(kept)s, excluded = %(excluded)s WHERE run_id = %(run)s AND number = %(shard)s AND done_at IS NULL"
)


@contextmanager
def staging(connection: Connection, version: Version, run_id: int) -> Iterator[ShardWriter]:
    """Open a writer with staging tables of its own in the connection's session."""
    register_vector(connection)
    connection.execute(_STAGING)
    with released(connection, "DROP TABLE staging, staging_rejects, staging_gone"):
        yield ShardWriter(connection, version, run_id)


class ShardWriter:
    """Collects what a shard gave, in staging tables of its own session, and commits it all at once.

    One at a time on a connection, opened by `staging`. Nothing is visible to anyone before `commit`, and a
    writer that dies leaves nothing behind.
    """

    def __init__(self, connection: Connection, version: Version, run_id: int) -> None:
        self.version = version
        self._connection = connection
        self.run_id = run_id
        self._rejects = 0
        self._kept: list[str] = []
        self._excluded = Counter[str]()

    def known(self, subject_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the fingerprints of those of the subjects that have a template already.

        Raises SourceError where this run has written one of them before: then two keys of the source look alike.
        """
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
        return known

    def add(self, batch: TemplateBatch) -> None:
        """Stage templates; they are kept as half precision."""
        with self._connection.cursor().copy(f"COPY staging ({_COLUMNS}) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["text", "halfvec", "halfvec", "float4", "int4", "int4", "bytea"])
            rows = zip(
                batch.subject_ids, batch.templates, *self._coarse(batch), batch.features.tolist(),
                batch.media.tolist(), batch.fingerprints, strict=True,
            )  # fmt: skip
            for subject, template, *rest in rows:
                copy.write_row((subject, HalfVector(template), *rest))

    def _coarse(self, batch: TemplateBatch) -> tuple[Sequence[HalfVector | None], Sequence[float | None]]:
        """The inline vectors of the templates and what they leave out; none where a template is its own."""
        if self.version.scanned == "template":
            none = [None] * len(batch.subject_ids)
            return none, none
        made = Coarse.of(batch.templates, self.version.blocks)
        return [HalfVector(one) for one in made.vectors], made.residuals.tolist()

    def keep(self, subjects: Sequence[str]) -> None:
        """Note subjects whose templates stay as they are."""
        self._kept.extend(subjects)

    def reject(self, rejects: Sequence[Reject], subjects: Sequence[str]) -> None:
        """Stage rejected rows, and the subjects that have no usable row left: their old templates go."""
        with self._connection.cursor().copy(f"COPY staging_rejects ({_REJECT_COLUMNS}) FROM STDIN") as copy:
            for position, one in enumerate(rejects, self._rejects):
                copy.write_row((position, one.subject, one.medium, one.row, str(one.reason), one.detail))
        self._rejects += len(rejects)
        with self._connection.cursor().copy("COPY staging_gone FROM STDIN") as copy:
            for subject in subjects:
                copy.write_row((subject,))

    def exclude(self, causes: Mapping[str, int]) -> None:
        """Count rows that the mapping leaves out, by cause."""
        self._excluded.update(causes)

    def commit(self, shard: int, counts: Counts) -> Counts:
        """Write everything staged and the shard's "done" in one transaction; return the counts with removals."""
        # Citus takes no now() in an upsert, so the time travels as a value.
        now = datetime.now(UTC)
        values = {"version": self.version.version_id, "run": self.run_id, "shard": shard, "now": now}
        with self._connection.transaction():
            twice = self._connection.execute(
                "SELECT subject_id FROM staging GROUP BY subject_id HAVING count(*) > 1 LIMIT 1"
            ).fetchone()
            if twice:
                raise _twice(twice[0])
            self._connection.execute(_UPSERT, values)
            removed = self._connection.execute(_REMOVE, values).rowcount
            self._connection.execute(_REJECTS, values)
            total = counts + Counts(removed=removed)
            named = dict(zip((field.name for field in fields(Counts)), astuple(total), strict=True))
            noted = {"kept": self._kept, "excluded": Jsonb(self._excluded)}
            self._connection.execute(_DONE, values | named | noted)
            self.clear()
        return total

    def clear(self) -> None:
        """Forget what is staged."""
        self._connection.execute("TRUNCATE staging, staging_rejects, staging_gone")
        self._rejects = 0
        self._kept = []
        self._excluded.clear()


def _twice(subject: str) -> SourceError:
    return SourceError(
        f"the subject {subject!r} comes twice: two different keys of the source are the same as text; "
        "map a key that tells them apart"
    )
