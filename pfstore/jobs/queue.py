"""The queue of jobs: procrastinate's tables in a schema of their own, what a job is called, how one is put there."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from pfstore.gallery.database import CONNECT_TIMEOUT, Connection, Database

if TYPE_CHECKING:
    from procrastinate import App

SCHEMA = "pfstore_jobs"

SHARD, FINISH, REFRESH = "shard", "finish", "refresh"
"""The tasks: one shard of a run, the end of a run, a refresh of a gallery, which plans its shards."""

REFRESHES = "refreshes"
"""The queue of refreshes; each run has one of its own."""

FIRST, USUAL = 10, 0
"""Priorities: what others wait for, and the rest."""

POOL_TIMEOUT = 5.0
"""Seconds that a worker waits for a connection before it takes the server to be away."""

_SEARCH_PATH = f"{SCHEMA}, pg_catalog"


@dataclass(frozen=True)
class Job:
    """A job to put into the queue.

    key: no second job of the same key waits or is being done. alone: the same for jobs that must not be done at the
    same time.
    """

    task: str
    queue: str
    key: str
    arguments: dict[str, Any] = field(default_factory=dict)
    alone: str | None = None
    priority: int = USUAL


def of_run(run_id: int) -> str:
    """Return the queue of a run's jobs."""
    return f"run:{run_id}"


def shard_job(run_id: int, number: int) -> Job:
    """Return the job that does one shard of a run."""
    return Job(SHARD, of_run(run_id), f"shard:{run_id}:{number}", {"run": run_id, "shard": number})


def finish_job(run_id: int) -> Job:
    """Return the job that ends a run of which every shard is done."""
    key = f"finish:{run_id}"
    return Job(FINISH, of_run(run_id), key, {"run": run_id}, alone=key, priority=FIRST)


def refresh_job(gallery: str, schedule: str | None = None) -> Job:
    """Return the job that refreshes a gallery, for a schedule or not."""
    key = f"refresh:{gallery}"
    return Job(REFRESH, REFRESHES, key, {"gallery": gallery, "schedule": schedule}, alone=key)


# A job of the same key that is being done counts as well as one that waits.
_PUT = f"""
    INSERT INTO {SCHEMA}.procrastinate_jobs (task_name, queue_name, queueing_lock, args, lock, priority)
    SELECT j.task, j.queue, j.key, j.arguments, j.alone, j.priority
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::jsonb[], %s::text[], %s::integer[])
         WITH ORDINALITY AS j (task, queue, key, arguments, alone, priority, place)
    WHERE NOT EXISTS (
        SELECT FROM {SCHEMA}.procrastinate_jobs d WHERE d.queueing_lock = j.key AND d.status = 'doing')
    ORDER BY j.place
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
"""  # noqa: S608


def put(connection: Connection, jobs: Sequence[Job]) -> int:
    """Put jobs into the queue but for those whose key waits there or is being done; return how many were put."""
    columns = (
        [one.task for one in jobs],
        [one.queue for one in jobs],
        [one.key for one in jobs],
        [Jsonb(one.arguments) for one in jobs],
        [one.alone for one in jobs],
        [one.priority for one in jobs],
    )
    with changing(connection):
        return connection.execute(_PUT.encode(), columns).rowcount


def put_shards(connection: Connection, run_id: int, numbers: Sequence[int]) -> int:
    """Put one job for each of these shards of a run, or the job of its end where there is none; return how many."""
    return put(connection, [shard_job(run_id, number) for number in numbers] or [finish_job(run_id)])


@contextmanager
def changing(connection: Connection) -> Iterator[None]:
    """Change the queue, in one transaction; its triggers find their tables by the search path."""
    with connection.transaction():
        row = connection.execute("SELECT current_setting('search_path')").fetchone()
        connection.execute("SELECT set_config('search_path', %s, true)", (_SEARCH_PATH,))
        yield
        connection.execute("SELECT set_config('search_path', %s, true)", row)


def cancel(connection: Connection, run_id: int) -> int:
    """Take a run's jobs out of the queue and ask the workers to leave those that they are doing; return how many."""
    query = (
        "SELECT procrastinate_cancel_job_v1(id, true, false) FROM procrastinate_jobs"
        " WHERE queue_name = %s AND status IN ('todo', 'doing')"
    )
    with changing(connection):
        return connection.execute(query, (of_run(run_id),)).rowcount


def app(database: Database, *, connections: int) -> App:
    """Return procrastinate's app on the gallery database, without tasks. connections: that a worker may open."""
    from procrastinate import App, PsycopgConnector

    given = conninfo_to_dict(database.uri).get("options") or ""
    conninfo = make_conninfo(
        database.uri,
        options=f"{given} -csearch_path={_SEARCH_PATH.replace(' ', '')}".strip(),
        application_name="pfstore worker",
        connect_timeout=CONNECT_TIMEOUT,
    )
    # A pool that gives up soon asks anew; else it would ask ever more rarely for a server that is away.
    pool: dict[str, Any] = {"timeout": POOL_TIMEOUT, "reconnect_timeout": POOL_TIMEOUT, "min_size": 1}
    return App(connector=PsycopgConnector(conninfo=conninfo, max_size=connections, **pool))


class Postponed(Exception):  # noqa: N818
    """A job is to come back after so many seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds

    @property
    def until(self) -> datetime:
        """When it may begin again."""
        return datetime.now(UTC) + timedelta(seconds=self.seconds)


class Cancelled(Exception):  # noqa: N818
    """A job was taken out of the queue while it was being done."""


def back_off(failures: int, *, first: float = 2.0, most: float = 300.0) -> float:
    """Return the seconds to wait after so many failures: four times as many each time, a quarter more or less."""
    # Workers that failed together must not come back together.
    return min(most, first * 4.0 ** max(0, failures - 1)) * random.uniform(0.75, 1.25)  # noqa: S311
