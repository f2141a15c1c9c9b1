"""What is left of a run: shards that nobody has done yet, and those that failed, with their errors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from psycopg.rows import class_row

from pfstore.errors import ConflictError, NotFoundError
from pfstore.gallery.database import Connection
from pfstore.gallery.runs import Counts, Kind, PlannedShard


@dataclass(frozen=True)
class StoredRun:
    """A run as it was planned, and its state now.

    source: its name in pfstore.toml. whole: it is over the whole source. plan: what must be the same to go on with it.
    """

    run_id: int
    version_id: int
    gallery: str
    version: int
    kind: Kind
    whole: bool
    source: str
    plan: str
    state: str


@dataclass(frozen=True)
class FailedShard:
    """A shard that failed and is not done: how often, and why the last time, beginning with the kind of error."""

    number: int
    planned_features: int
    planned_subjects: int
    failures: int
    error: str

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class Standing:
    """How far a run is. failed: shards that failed and are not done, of which some may be tried again by themselves."""

    shards: int
    done: int
    failed: int
    planned_features: int
    planned_subjects: int
    counts: Counts

    @property
    def undone(self) -> int:
        """The shards that are left."""
        return self.shards - self.done


def run(connection: Connection, run_id: int) -> StoredRun | None:
    """Return a run, None where there is none, as after its version was dropped."""
    query = (
        "SELECT r.run_id, r.version_id, g.name AS gallery, v.number AS version, r.kind, r.whole, r.source,"
        " r.plan, r.state"
        " FROM pfstore.runs r JOIN pfstore.versions v USING (version_id) JOIN pfstore.galleries g USING (gallery_id)"
        " WHERE r.run_id = %s"
    )
    return connection.cursor(row_factory=class_row(StoredRun)).execute(query, (run_id,)).fetchone()


def known_run(connection: Connection, run_id: int) -> StoredRun:
    """Return a run. Raises NotFoundError."""
    if (found := run(connection, run_id)) is None:
        raise NotFoundError(f"there is no run {run_id}; `pfstore run list` shows those there are")
    return found


def going_run(connection: Connection, run_id: int) -> StoredRun:
    """Return a run that is not over. Raises NotFoundError, and ConflictError where it is over."""
    found = known_run(connection, run_id)
    if found.state != "running":
        raise ConflictError(f"run {run_id} is over ({found.state}): nothing of it is left to do")
    return found


def shard(connection: Connection, run_id: int, number: int) -> PlannedShard | None:
    """Return one shard of a run, None where there is none."""
    query = (
        "SELECT number, range, planned_features, planned_subjects, done_at IS NOT NULL AS done"
        " FROM pfstore.shards WHERE run_id = %s AND number = %s"
    )
    return connection.cursor(row_factory=class_row(PlannedShard)).execute(query, (run_id, number)).fetchone()


def numbers(connection: Connection, run_id: int) -> list[int]:
    """Return the numbers of the shards that are not done, in order."""
    query = "SELECT number FROM pfstore.shards WHERE run_id = %s AND done_at IS NULL ORDER BY number"
    return [number for (number,) in connection.execute(query, (run_id,))]


def standing(connection: Connection, run_id: int) -> Standing:
    """Tell how far a run is."""
    query = (
        "SELECT count(*), count(done_at), count(*) FILTER (WHERE done_at IS NULL AND failures > 0),"
        " coalesce(sum(planned_features), 0)::bigint, coalesce(sum(planned_subjects), 0)::bigint,"
        " coalesce(sum(read), 0)::bigint, coalesce(sum(fused), 0)::bigint, coalesce(sum(rejected), 0)::bigint,"
        " coalesce(sum(seen), 0)::bigint, coalesce(sum(written), 0)::bigint, coalesce(sum(unchanged), 0)::bigint,"
        " coalesce(sum(removed), 0)::bigint, coalesce(sum(subjects_rejected), 0)::bigint"
        " FROM pfstore.shards WHERE run_id = %s"
    )
    row = connection.execute(query, (run_id,)).fetchone()
    assert row is not None
    shards, done, failing, features, subjects, *counts = row
    return Standing(shards, done, failing, features, subjects, Counts(*counts))


def failed(connection: Connection, run_id: int) -> list[FailedShard]:
    """Return the shards of a run that failed and are not done."""
    query = (
        "SELECT number, planned_features, planned_subjects, failures, coalesce(error, '') AS error"
        " FROM pfstore.shards WHERE run_id = %s AND done_at IS NULL AND failures > 0 ORDER BY number"
    )
    return connection.cursor(row_factory=class_row(FailedShard)).execute(query, (run_id,)).fetchall()


def last_errors(connection: Connection, most: int = 5) -> list[tuple[int, FailedShard]]:
    """Return failed shards of runs that are not over, each with its run, the newest runs first."""
    query = (
        "SELECT s.run_id, s.number, s.planned_features, s.planned_subjects, s.failures, coalesce(s.error, '')"
        " FROM pfstore.shards s JOIN pfstore.runs r USING (run_id)"
        " WHERE r.state = 'running' AND s.done_at IS NULL AND s.failures > 0 ORDER BY s.run_id DESC, s.number LIMIT %s"
    )
    return [(row[0], FailedShard(*row[1:])) for row in connection.execute(query, (most,))]


def note_failure(connection: Connection, run_id: int, number: int, error: str) -> int | None:
    """Keep why a shard failed, and return how often it has; None where it is done, or gone, so that it did not fail."""
    query = (
        "UPDATE pfstore.shards SET failures = failures + 1, error = %s"
        " WHERE run_id = %s AND number = %s AND done_at IS NULL RETURNING failures"
    )
    row = connection.execute(query, (error, run_id, number)).fetchone()
    return None if row is None else int(row[0])


def forgive(connection: Connection, run_id: int, number: int | None = None) -> list[int]:
    """Let the failed shards of a run, or the one of this number, count as if they had not been tried; return them.

    Their last errors stay until they are done.
    """
    query = (
        "UPDATE pfstore.shards SET failures = 0 WHERE run_id = %(run)s AND done_at IS NULL AND failures > 0"
        " AND (%(number)s::integer IS NULL OR number = %(number)s) RETURNING number"
    )
    return sorted(one for (one,) in connection.execute(query, {"run": run_id, "number": number}))


def abandon(connection: Connection, run_id: int) -> bool:
    """End a run that is not over; what it has done stays. Tells whether it was still running."""
    query = "UPDATE pfstore.runs SET state = 'abandoned', finished_at = now() WHERE run_id = %s AND state = 'running'"
    return connection.execute(query, (run_id,)).rowcount > 0
