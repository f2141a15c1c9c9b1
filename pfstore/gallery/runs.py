"""The record of runs: their shards, which are done, what each counted, and what was rejected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal, LiteralString, TypeAlias

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

import pfstore
from pfstore.gallery import removals
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.locking import LOCK_CLASS
from pfstore.gallery.removals import Allowance

Kind: TypeAlias = Literal["backfill", "try", "refresh"]
"""A try goes over some subjects only, so it says nothing of the others."""


@dataclass(frozen=True)
class Counts:
    """What a shard or a run counted: read = fused + rejected, seen = written + unchanged + subjects_rejected.

    fused counts the features that stand in a template, also in one that was left as it was.
    """

    read: int = 0
    fused: int = 0
    rejected: int = 0
    seen: int = 0
    written: int = 0
    unchanged: int = 0
    removed: int = 0
    subjects_rejected: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)))


@dataclass(frozen=True)
class PlannedShard:
    """A shard of a run as it is stored."""

    number: int
    range: dict[str, Any]
    planned_features: int
    planned_subjects: int
    done: bool


@dataclass(frozen=True)
class Run:
    """A run, how far it is and what it counted so far.

    whole: it is over the whole source. counts: with the subjects that a refresh need not read.
    alive: whether a process is working on it now. excluded: rows that the mapping left out, by cause.
    """

    run_id: int
    gallery: str
    version: int
    kind: Kind
    whole: bool
    source: str
    state: Literal["running", "done", "abandoned"]
    started_at: datetime
    finished_at: datetime | None
    shards: int
    shards_done: int
    planned_features: int
    counts: Counts
    alive: bool
    excluded: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        finished = self.finished_at and self.finished_at.isoformat()
        return asdict(self) | {"started_at": self.started_at.isoformat(), "finished_at": finished}


def start(
    connection: Connection,
    version: Version,
    *,
    kind: Kind,
    source: str,
    plan: str,
    shards: Iterable[Any],
    whole: bool | None = None,
    allowance: Allowance | None = None,
) -> int:
    """Store a new run with its shards and return its number; unfinished ones before it are abandoned.

    Of two that go on side by side one would take for vanished what the other has written. A try only ends tries.

    plan: what must be the same for the run to be resumed. shards: of pfstore.sources.base.Shard.
    whole: whether they are the whole source; where nothing is said, of all kinds but a try. allowance: what the run may
    remove; where nothing is said, as much as it has to.
    """
    with connection.transaction():
        connection.execute(
            "UPDATE pfstore.runs SET state = 'abandoned', finished_at = now()"
            " WHERE version_id = %s AND state = 'running' AND (kind = 'try' OR %s <> 'try')",
            (version.version_id, kind),
        )
        is_whole = kind != "try" if whole is None else whole
        allowed = (allowance.share, allowance.templates) if allowance else (None, None)
        run_id = _one(
            connection,
            "INSERT INTO pfstore.runs (version_id, kind, whole, source, plan, state, pfstore, removals, templates)"
            " VALUES (%s, %s, %s, %s, %s, 'running', %s, %s, %s) RETURNING run_id",
            (version.version_id, kind, is_whole, source, plan, pfstore.__version__, *allowed),
        )
        columns = "run_id, number, range, planned_features, planned_subjects"
        with connection.cursor().copy(f"COPY pfstore.shards ({columns}) FROM STDIN") as copy:
            for number, shard in enumerate(shards):
                copy.write_row((run_id, number, Jsonb(shard.range), shard.features, shard.subjects))
    return int(run_id)


def resumable(connection: Connection, version: Version, kind: Kind, plan: str) -> int | None:
    """Return the number of the version's newest run, tries aside, if it is unfinished, of this kind and the same plan.

    One before it is not gone on with: what it counted and kept is older than what was written since.
    """
    query = (
        "SELECT run_id, state = 'running' AND kind = %s AND plan = %s FROM pfstore.runs"
        " WHERE version_id = %s AND kind <> 'try' ORDER BY run_id DESC LIMIT 1"
    )
    found = connection.execute(query, (kind, plan, version.version_id)).fetchone()
    return int(found[0]) if found and found[1] else None


def shards(connection: Connection, run_id: int) -> list[PlannedShard]:
    """Return all shards of a run, in order."""
    cursor = connection.cursor(row_factory=class_row(PlannedShard))
    query = (
        "SELECT number, range, planned_features, planned_subjects, done_at IS NOT NULL AS done"
        " FROM pfstore.shards WHERE run_id = %s ORDER BY number"
    )
    return cursor.execute(query, (run_id,)).fetchall()


# What this run wrote bears its number; what it left as it was stands in its shards. A later run, which there may be
# where this one was interrupted, knows better.
_VANISHED = """
    WHERE r.run_id = %(run)s AND r.whole AND t.version_id = r.version_id AND t.run_id < r.run_id
      AND NOT EXISTS (
          SELECT FROM (SELECT unnest(kept) AS subject_id FROM pfstore.shards WHERE run_id = %(run)s) k
          WHERE k.subject_id = t.subject_id)
"""
_COUNT_VANISHED = "SELECT count(*) FROM pfstore.templates t, pfstore.runs r" + _VANISHED
_REMOVE_VANISHED = "DELETE FROM pfstore.templates t USING pfstore.runs r" + _VANISHED

# A mark is of a subject that has a template, or that this run rejected. Of a run that is not whole no version is found.
# An array is made once; a subquery could be, by a plan for the few marks that nobody has counted yet, for each of them.
_FORGET_VANISHED = """
    WITH whole AS MATERIALIZED (SELECT version_id FROM pfstore.runs WHERE run_id = %(run)s AND whole)
    DELETE FROM pfstore.marks
    WHERE version_id = (SELECT version_id FROM whole) AND subject_id = ANY (ARRAY(
        SELECT subject_id FROM pfstore.marks WHERE version_id = (SELECT version_id FROM whole)
        EXCEPT SELECT subject_id FROM pfstore.templates WHERE version_id = (SELECT version_id FROM whole)
        EXCEPT SELECT subject_id FROM pfstore.rejects WHERE run_id = %(run)s))
"""


def finish(connection: Connection, run_id: int) -> int:
    """Mark a run of which every shard is done as done, and remove the templates of subjects that it did not meet.

    Returns how many were removed; one that is not over the whole source removes none. Raises ConflictError, and leaves
    the run and the templates as they are, where they are more than the run may remove.
    """
    with connection.transaction():
        if allowance := removals.of_run(connection, run_id):
            allowance.spend(vanished=_one(connection, _COUNT_VANISHED, {"run": run_id}))
        removed = connection.execute(_REMOVE_VANISHED, {"run": run_id}).rowcount
        connection.execute(_FORGET_VANISHED, {"run": run_id})
        connection.execute("UPDATE pfstore.shards SET kept = '{}' WHERE run_id = %s", (run_id,))
        connection.execute(
            "UPDATE pfstore.runs SET state = 'done', finished_at = now(), vanished = vanished + %s WHERE run_id = %s",
            (removed, run_id),
        )
    return removed


def settle(connection: Connection, run_id: int, *, vanished: int, unchanged: int, rejected: int) -> None:
    """Note the subjects of a run that need not be read: removed, and as they were with a template or without."""
    connection.execute(
        "UPDATE pfstore.runs SET vanished = %s, unchanged = %s, rejected = %s WHERE run_id = %s",
        (vanished, unchanged, rejected, run_id),
    )


def reasons(connection: Connection, run_id: int) -> dict[str, int]:
    """Count a run's rejects by reason, the most frequent first."""
    query = "SELECT reason, count(*) FROM pfstore.rejects WHERE run_id = %s GROUP BY 1 ORDER BY 2 DESC, 1"
    return dict(connection.execute(query, (run_id,)).fetchall())


def rejects(connection: Connection, run_id: int) -> list[dict[str, Any]]:
    """Return the rows that a run rejected: subject, medium, row, reason, detail."""
    query = (
        'SELECT subject_id AS subject, medium, "row", reason, detail'
        " FROM pfstore.rejects WHERE run_id = %s ORDER BY shard, position"
    )
    return connection.cursor(row_factory=dict_row).execute(query, (run_id,)).fetchall()


def listed(connection: Connection, *, run_id: int | None = None, last: int = 20) -> list[Run]:
    """Return the newest runs, or the one of this number, newest first."""
    of_run = {
        "removed": " + r.vanished",
        "seen": " + r.unchanged + r.rejected",
        "unchanged": " + r.unchanged",
        "subjects_rejected": " + r.rejected",
    }
    sums = ", ".join(f"coalesce(sum(s.{f.name}), 0)::bigint{of_run.get(f.name, '')}" for f in fields(Counts))
    query = f"""
        SELECT r.run_id, g.name, v.number, r.kind, r.whole, r.source, r.state, r.started_at, r.finished_at,
               count(s.number), count(s.done_at), coalesce(sum(s.planned_features), 0)::bigint,
               EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                       WHERE d.datname = current_database() AND l.locktype = 'advisory'
                         AND l.classid = %(class)s AND l.objid = r.version_id) AND r.state = 'running',
               (SELECT coalesce(jsonb_object_agg(cause, n), '{{}}')
                FROM (SELECT key AS cause, sum(value::bigint) AS n
                      FROM pfstore.shards e, jsonb_each_text(e.excluded) WHERE e.run_id = r.run_id GROUP BY key) c),
               {sums}
        FROM pfstore.runs r
        JOIN pfstore.versions v USING (version_id)
        JOIN pfstore.galleries g USING (gallery_id)
        LEFT JOIN pfstore.shards s USING (run_id)
        WHERE %(run)s::bigint IS NULL OR r.run_id = %(run)s
        GROUP BY r.run_id, g.name, v.number
        ORDER BY r.run_id DESC LIMIT %(last)s
    """
    rows = connection.execute(query, {"class": LOCK_CLASS, "run": run_id, "last": last}).fetchall()
    return [Run(*(*row[:12], Counts(*row[14:]), row[12], _most_first(row[13]))) for row in rows]


def _most_first(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def _one(connection: Connection, query: LiteralString, parameters: tuple[Any, ...] | dict[str, Any]) -> Any:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]
