"""What stands in the queue: which workers are alive, how many jobs there are, what failed last."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

from psycopg.rows import class_row

from pfstore.errors import BusyError
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version

Status: TypeAlias = Literal["todo", "doing", "succeeded", "failed", "cancelled", "aborted"]

ALIVE = 60.0
"""Seconds since its last heartbeat for which a worker counts as alive."""


@dataclass(frozen=True)
class Worker:
    """A worker process. doing: the jobs that it has in hand. host, pid: None where it has not said yet."""

    worker_id: int
    host: str | None
    pid: int | None
    pfstore: str | None
    started_at: datetime | None
    last_heartbeat: datetime
    alive: bool
    doing: int

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        times = {"started_at": self.started_at, "last_heartbeat": self.last_heartbeat}
        return asdict(self) | {name: value and value.isoformat() for name, value in times.items()}


@dataclass(frozen=True)
class FailedJob:
    """A job that was given up, and when. What it was that failed stands with its shard or schedule."""

    job_id: int
    task: str
    arguments: dict[str, Any]
    attempts: int
    failed_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self) | {"failed_at": self.failed_at and self.failed_at.isoformat()}


def workers(connection: Connection, silence: float = ALIVE) -> list[Worker]:
    """Return the workers that have not ended, alive or not. silence: the seconds for which an alive one says nothing.

    The database's clock tells, so that those of the workers' machines may differ.
    """
    query = """
        SELECT w.id AS worker_id, p.host, p.pid, p.pfstore, p.started_at, w.last_heartbeat,
               w.last_heartbeat >= now() - make_interval(secs => %s) AS alive,
               (SELECT count(*) FROM pfstore_jobs.procrastinate_jobs j
                WHERE j.worker_id = w.id AND j.status = 'doing') AS doing
        FROM pfstore_jobs.procrastinate_workers w LEFT JOIN pfstore.workers p ON p.worker_id = w.id
        ORDER BY w.id
    """
    return connection.cursor(row_factory=class_row(Worker)).execute(query, (silence,)).fetchall()


def counts(connection: Connection, queue: str | None = None) -> dict[str, int]:
    """Count the jobs by status, all or those of one queue; every status is there."""
    query = (
        "SELECT status::text, count(*) FROM pfstore_jobs.procrastinate_jobs"
        " WHERE %(queue)s::text IS NULL OR queue_name = %(queue)s GROUP BY status"
    )
    return dict.fromkeys(get_args(Status), 0) | dict(connection.execute(query, {"queue": queue}).fetchall())


def left(connection: Connection, queue: str) -> int:
    """Count the jobs of a queue that wait or are being done."""
    query = "SELECT count(*) FROM pfstore_jobs.procrastinate_jobs WHERE queue_name = %s AND status IN ('todo', 'doing')"
    row = connection.execute(query, (queue,)).fetchone()
    return 0 if row is None else int(row[0])


def going(connection: Connection, version_id: int, *, other_than: int | None = None) -> int | None:
    """Return the newest run of a version that has jobs left, None where there is none. other_than: that run aside."""
    query = """
        SELECT max(r.run_id) FROM pfstore.runs r
        WHERE r.version_id = %(version)s AND r.state = 'running' AND r.run_id IS DISTINCT FROM %(other)s::bigint
          AND EXISTS (SELECT FROM pfstore_jobs.procrastinate_jobs j
                      WHERE j.queue_name = 'run:' || r.run_id AND j.status IN ('todo', 'doing'))
    """
    row = connection.execute(query, {"version": version_id, "other": other_than}).fetchone()
    return None if row is None else row[0]


def refuse_going(connection: Connection, version: Version) -> None:
    """Raise BusyError where workers are doing a run of a version, which another would give up."""
    found = going(connection, version.version_id)
    if found is not None and any(one.alive for one in workers(connection)):
        raise BusyError(
            f"workers are doing run {found} of {version.said}: wait for it (`pfstore status` shows how far it is), or "
            f"`pfstore run cancel {found}`"
        )


def ready(connection: Connection, queue: str | None = None) -> bool:
    """Tell whether a job waits that may begin now."""
    query = (
        "SELECT EXISTS (SELECT FROM pfstore_jobs.procrastinate_jobs WHERE status = 'todo'"
        " AND (scheduled_at IS NULL OR scheduled_at <= now()) AND (%(queue)s::text IS NULL OR queue_name = %(queue)s))"
    )
    return connection.execute(query, {"queue": queue}).fetchone() == (True,)


def waits(connection: Connection, key: str) -> bool:
    """Tell whether a job of this key waits or is being done."""
    query = (
        "SELECT EXISTS (SELECT FROM pfstore_jobs.procrastinate_jobs"
        " WHERE queueing_lock = %s AND status IN ('todo', 'doing'))"
    )
    return connection.execute(query, (key,)).fetchone() == (True,)


def was_done(connection: Connection, key: str) -> bool:
    """Tell whether a job of this key has succeeded."""
    query = (
        "SELECT EXISTS (SELECT FROM pfstore_jobs.procrastinate_jobs WHERE queueing_lock = %s AND status = 'succeeded')"
    )
    return connection.execute(query, (key,)).fetchone() == (True,)


def last_failures(connection: Connection, most: int = 10) -> list[FailedJob]:
    """Return the jobs that failed last, the newest first."""
    query = """
        SELECT j.id AS job_id, j.task_name AS task, j.args AS arguments, j.attempts,
               (SELECT max(e.at) FROM pfstore_jobs.procrastinate_events e
                WHERE e.job_id = j.id AND e.type = 'failed') AS failed_at
        FROM pfstore_jobs.procrastinate_jobs j WHERE j.status = 'failed'
        ORDER BY failed_at DESC NULLS LAST, j.id DESC LIMIT %s
    """
    return connection.cursor(row_factory=class_row(FailedJob)).execute(query, (most,)).fetchall()
