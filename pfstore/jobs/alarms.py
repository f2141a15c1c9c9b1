"""Whether all goes well, for probes that ask every minute: what does not, in words and by kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from pfstore import cron
from pfstore.config import Config
from pfstore.errors import DatabaseError
from pfstore.gallery import galleries, replica
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.replica import MOST_LAG
from pfstore.jobs import queue_state

Kind: TypeAlias = Literal[
    "workers", "jobs_waiting", "failed_shards", "schedule_failed", "schedule_overdue", "gallery_old", "replica"
]

PATIENCE = 10.0
"""Seconds that one statement may take: what locks a table must not hold up a probe for ever."""


@dataclass(frozen=True)
class Alarm:
    """Something that is not well. about: the run, schedule, gallery or replica."""

    kind: Kind
    about: str | None
    what: str


@dataclass(frozen=True)
class Limits:
    """What counts as well. workers: so many are alive. age: since each gallery was last brought up to date.

    lag: seconds that the replica may be behind.
    """

    workers: int = 0
    age: timedelta | None = None
    lag: float = MOST_LAG


@dataclass(frozen=True)
class Report:
    """What a probe is told. workers: alive ones. jobs: by status. lag: of the replica, in seconds."""

    workers: int
    jobs: Mapping[str, int]
    lag: float | None = None
    alarms: list[Alarm] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.alarms

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "status": "healthy" if self.healthy else "degraded",
            "alarms": [asdict(one) for one in self.alarms],
            "workers": self.workers,
            "jobs": dict(self.jobs),
            "replica": None if self.lag is None else {"lag_seconds": self.lag},
        }


def report(
    connection: Connection, config: Config, limits: Limits, now: datetime, reading: Database | None = None
) -> Report:
    """Look whether all goes well; reads no template and no source, and changes nothing.

    reading: the replica that searches are sent to. Raises DatabaseError where the gallery database cannot tell.
    """
    connection.execute("SELECT set_config('statement_timeout', %s, false)", (f"{PATIENCE:g}s",))
    alive = sum(one.alive for one in queue_state.workers(connection))
    jobs = queue_state.counts(connection)
    lag, behind = (None, []) if reading is None else _replica(reading, limits.lag)
    found = [*_workers(alive, jobs, limits.workers), *_failed_shards(connection), *_schedules(connection, config, now)]
    if limits.age is not None:
        found += _old_galleries(connection, config, limits.age)
    return Report(alive, jobs, lag, [*found, *behind])


def _workers(alive: int, jobs: Mapping[str, int], least: int) -> Iterator[Alarm]:
    if alive < least:
        yield Alarm("workers", None, f"{_count(alive, 'worker')} alive, not {least:,}")
    # Those that are "doing" belong to workers that died.
    left = jobs["todo"] + jobs["doing"]
    if left and not alive:
        yield Alarm("jobs_waiting", None, f"{_count(left, 'job')} in the queue and no worker alive")


# One that waits to be tried again has its job still.
_FAILED = """
    SELECT r.run_id, g.name, count(*), min(s.number), (array_agg(s.error ORDER BY s.number))[1]
    FROM pfstore.runs r
    JOIN pfstore.versions v USING (version_id)
    JOIN pfstore.galleries g USING (gallery_id)
    JOIN pfstore.shards s USING (run_id)
    WHERE r.state = 'running' AND s.done_at IS NULL AND s.failures > 0 AND NOT EXISTS (
        SELECT FROM pfstore_jobs.procrastinate_jobs j
        WHERE j.queue_name = 'run:' || r.run_id AND j.status IN ('todo', 'doing')
          AND j.queueing_lock = 'shard:' || r.run_id || ':' || s.number)
    GROUP BY r.run_id, g.name ORDER BY r.run_id
"""


def _failed_shards(connection: Connection) -> Iterator[Alarm]:
    for run, gallery, count, number, error in connection.execute(_FAILED):
        what = f"{_count(count, 'shard')} of run {run}, gallery {gallery!r}, failed for good; shard {number}: {error}"
        yield Alarm("failed_shards", str(run), f"{what}; `pfstore run retry {run}` tries again")


def _schedules(connection: Connection, config: Config, now: datetime) -> Iterator[Alarm]:
    query = "SELECT name, cron, coalesce(due_at, known_since), finished_at, failed, result FROM pfstore.schedules"
    for name, line, since, finished, failed, result in connection.execute(query):
        if name not in config.schedules:
            continue
        if failed:
            yield Alarm("schedule_failed", name, f"schedule {name!r} failed at {_time(finished)}: {result}")
        # It was due next after it was last queued; that another time has come since is a whole period too late.
        due = cron.following(line, since)
        if cron.following(line, due) <= now:
            yield Alarm("schedule_overdue", name, f"schedule {name!r} was due at {_time(due)}, and no worker queued it")


def _old_galleries(connection: Connection, config: Config, most: timedelta) -> Iterator[Alarm]:
    query = """
        SELECT g.name, now() - max(r.finished_at) FILTER (WHERE r.state = 'done' AND r.kind <> 'try')
        FROM pfstore.galleries g JOIN pfstore.versions v USING (gallery_id) LEFT JOIN pfstore.runs r USING (version_id)
        WHERE v.state = 'active' GROUP BY g.name
    """
    ages = dict(connection.execute(query).fetchall())
    for name in config.galleries or galleries.names(connection):
        age = ages.get(name)
        if name not in ages:
            yield Alarm("gallery_old", name, f"gallery {name!r} has no version that answers searches")
        elif age is None or age > most:
            when = "never" if age is None else f"{_hours(age)} ago"
            what = f"gallery {name!r} was last backfilled or refreshed to the end {when}, not within {_hours(most)}"
            yield Alarm("gallery_old", name, what)


def _replica(database: Database, most: float) -> tuple[float | None, list[Alarm]]:
    try:
        with database.connect() as connection:
            lag = replica.lag(connection)
    except DatabaseError as error:
        return None, [Alarm("replica", database.shown, f"replica {error}")]
    if lag is not None and lag <= most:
        return lag, []
    what = f"the replica {database.shown} is {replica.said(lag)}"
    if lag is None:
        return lag, [Alarm("replica", database.shown, f"{what}; `pfstore doctor` tells more")]
    return lag, [Alarm("replica", database.shown, f"{what}, more than {most:g} s")]


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _hours(age: timedelta) -> str:
    return f"{age.total_seconds() / 3600:,.4g} h"


def _time(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds")
