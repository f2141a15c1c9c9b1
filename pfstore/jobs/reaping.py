"""What dead workers leave behind: their jobs come back, so many times at the most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pfstore.gallery import undone
from pfstore.gallery.database import Connection
from pfstore.jobs import queue

DAYS = 30
"""Days for which jobs that are over are kept."""


@dataclass(frozen=True)
class Reaped:
    """A job whose worker died: it waits again, or was given up as that happened too often."""

    task: str
    arguments: dict[str, Any]
    deaths: int
    comes_back: bool


def reap(connection: Connection, *, silence: float, most: int) -> list[Reaped]:
    """Forget the workers that have sent no heartbeat for so many seconds, and let the jobs that they had come back.

    most: how often a job may be left by a dying worker, or fail, before it is given up; of a shard that is counted
    with its other failures. Workers that reap at the same time leave each other's jobs alone.
    """
    stalled = (
        "SELECT id, task_name, args, attempts FROM procrastinate_jobs"
        " WHERE status = 'doing' AND worker_id IS NULL FOR UPDATE SKIP LOCKED"
    )
    with queue.changing(connection):
        connection.execute("SELECT procrastinate_prune_stalled_workers_v1(%s)", (silence,))
        _forget_hosts(connection)
        return [_reap(connection, *row, most=most) for row in connection.execute(stalled).fetchall()]


def dismiss(connection: Connection, worker_ids: list[int]) -> None:
    """Forget workers that are known to have ended; the jobs that they had are for `reap`."""
    connection.execute("DELETE FROM pfstore_jobs.procrastinate_workers WHERE id = ANY(%s)", (worker_ids,))
    _forget_hosts(connection)


def hand_back(connection: Connection, worker_id: int) -> int:
    """Let others do what a worker has in hand, which is not to be counted against the jobs; return how many."""
    query = (
        "UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL, scheduled_at = NULL"
        " WHERE worker_id = %s AND status = 'doing' AND NOT abort_requested"
    )
    with queue.changing(connection):
        return connection.execute(query, (worker_id,)).rowcount


def delete_old(connection: Connection, days: float = DAYS) -> int:
    """Delete jobs that have been over for so many days; return how many."""
    query = (
        "DELETE FROM procrastinate_jobs j WHERE status NOT IN ('todo', 'doing') AND NOT EXISTS ("
        " SELECT FROM procrastinate_events e WHERE e.job_id = j.id AND e.at >= now() - make_interval(secs => %s))"
    )
    with queue.changing(connection):
        return connection.execute(query, (days * 86_400,)).rowcount


def _forget_hosts(connection: Connection) -> None:
    connection.execute(
        "DELETE FROM pfstore.workers w WHERE NOT EXISTS"
        " (SELECT FROM pfstore_jobs.procrastinate_workers q WHERE q.id = w.worker_id)"
    )


def _reap(
    connection: Connection, job_id: int, task: str, arguments: dict[str, Any], attempts: int, *, most: int
) -> Reaped:
    deaths: int | None = attempts + 1
    if task == queue.SHARD:
        run, shard = arguments["run"], arguments["shard"]
        deaths = undone.note_failure(connection, run, shard, "the worker that did it died or was cut off")
    # None: the shard is done, which whoever takes the job again will see.
    comes_back = deaths is None or deaths < most
    if comes_back and not _is_followed(connection, job_id):
        connection.execute("SELECT procrastinate_retry_job_v2(%s, now(), NULL, NULL, NULL)", (job_id,))
    else:
        connection.execute("SELECT procrastinate_finish_job_v1(%s, 'failed', false)", (job_id,))
    return Reaped(task, arguments, deaths or 0, comes_back)


def _is_followed(connection: Connection, job_id: int) -> bool:
    """Tell whether a job of the same key waits, beside which this one may not."""
    query = (
        "SELECT EXISTS (SELECT FROM procrastinate_jobs j JOIN procrastinate_jobs k USING (queueing_lock)"
        " WHERE j.id = %s AND k.id <> j.id AND k.status = 'todo')"
    )
    return connection.execute(query, (job_id,)).fetchone() == (True,)
