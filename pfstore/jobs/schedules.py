"""Schedules: a gallery is refreshed when its cron line is due, once, whoever is there to see it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pfstore import cron
from pfstore.config import Config, ScheduleConfig, nearest
from pfstore.errors import ConfigError
from pfstore.gallery.database import Connection
from pfstore.gallery.runs import Counts
from pfstore.jobs import queue


@dataclass(frozen=True)
class Schedule:
    """A schedule of pfstore.toml and what became of it; times that are None have not come.

    next_run: when it is due next. result: of the last run, or how far it is. run: that made it, None where none did.
    """

    name: str
    gallery: str
    cron: str
    next_run: datetime
    last_run: datetime | None
    finished_at: datetime | None
    result: str | None
    run: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }


def listed(connection: Connection, config: Config, now: datetime) -> list[Schedule]:
    """Return the schedules of pfstore.toml in its order."""
    query = """
        SELECT c.name, c.started_at, c.finished_at, c.run_id,
               CASE WHEN r.state = 'running' AND NOT c.failed
                    THEN format('run %s: %s of %s shards done, %s failed', c.run_id, s.done, s.shards, s.failed)
                    WHEN r.state = 'abandoned' THEN format('run %s was abandoned', c.run_id)
                    ELSE c.result END
        FROM pfstore.schedules c
        LEFT JOIN pfstore.runs r USING (run_id)
        LEFT JOIN LATERAL (
            SELECT count(*) AS shards, count(done_at) AS done,
                   count(*) FILTER (WHERE done_at IS NULL AND failures > 0) AS failed
            FROM pfstore.shards WHERE run_id = c.run_id) s ON true
    """
    known = {row[0]: row[1:] for row in connection.execute(query)}
    found = []
    for name, one in config.schedules.items():
        started, finished, run, result = known.get(name, (None, None, None, None))
        following = cron.following(one.cron, now)
        found.append(Schedule(name, one.gallery, one.cron, following, started, finished, result, run))
    return found


def run_now(connection: Connection, config: Config, name: str) -> bool:
    """Queue the refresh of a schedule, whenever it is due; tell whether it was not queued or under way already.

    Raises ConfigError for a schedule that pfstore.toml has not.
    """
    if name not in config.schedules:
        known = nearest(name, list(config.schedules))
        raise ConfigError(f"{config.file or 'no pfstore.toml was found'}: there is no schedule {name!r}{known}")
    with connection.transaction():
        _know(connection, name, config.schedules[name], None)
        return queue.put(connection, [queue.refresh_job(config.schedules[name].gallery, name)]) > 0


def queue_due(connection: Connection, config: Config, now: datetime) -> list[str]:
    """Queue a refresh for every schedule that has been due since it was last; return the names of those queued.

    Of the times that were missed the latest counts for all. However many workers ask, each time is queued once, and
    not at all where the gallery's last refresh is queued or under way still.
    """
    queued = []
    for name, one in config.schedules.items():
        with connection.transaction():
            _know(connection, name, one, now)
            if _claim(connection, name, cron.latest(one.cron, now)):
                if queue.put(connection, [queue.refresh_job(one.gallery, name)]):
                    queued.append(name)
                else:
                    noted(connection, name, "left out: the refresh before was still queued or under way")
    return queued


def seconds_left(config: Config, now: datetime) -> float | None:
    """Return the seconds until a schedule is due next; None where there is none."""
    return min(
        ((cron.following(one.cron, now) - now).total_seconds() for one in config.schedules.values()), default=None
    )


def started(connection: Connection, name: str) -> None:
    """Note that a schedule's refresh begins."""
    connection.execute(
        "UPDATE pfstore.schedules"
        " SET started_at = now(), finished_at = NULL, result = NULL, failed = false, run_id = NULL WHERE name = %s",
        (name,),
    )


def planned(connection: Connection, name: str, run_id: int) -> None:
    """Note which run does the work of a schedule; `ended` tells the rest."""
    connection.execute("UPDATE pfstore.schedules SET run_id = %s WHERE name = %s", (run_id, name))


def noted(connection: Connection, name: str, result: str, *, failed: bool = False) -> None:
    """Note how a schedule's refresh ended that made no run."""
    connection.execute(
        "UPDATE pfstore.schedules SET finished_at = now(), result = %s, failed = %s, run_id = NULL WHERE name = %s",
        (result, failed, name),
    )


def ended(connection: Connection, run_id: int, counts: Counts) -> None:
    """Note what a run did that a schedule had asked for."""
    connection.execute(
        "UPDATE pfstore.schedules SET finished_at = now(), result = %s, failed = false WHERE run_id = %s",
        (told(counts), run_id),
    )


def refused(connection: Connection, run_id: int, error: str) -> None:
    """Note why a run that a schedule had asked for was not ended although every shard is done."""
    connection.execute(
        "UPDATE pfstore.schedules SET finished_at = now(), result = %s, failed = true WHERE run_id = %s",
        (f"run {run_id}: {error}", run_id),
    )


def told(counts: Counts) -> str:
    """Return what a refresh did, in words."""
    parts = {
        "written": counts.written,
        "unchanged": counts.unchanged,
        "removed": counts.removed,
        "rejected": counts.subjects_rejected,
    }
    return ", ".join(f"{count:,} {name}" for name, count in parts.items())


def _know(connection: Connection, name: str, one: ScheduleConfig, now: datetime | None) -> None:
    """Keep a schedule; one that is new, or comes at other times than before, is not due for times past."""
    connection.execute(
        "INSERT INTO pfstore.schedules AS s (name, gallery, cron, known_since)"
        " VALUES (%(name)s, %(gallery)s, %(cron)s, coalesce(%(now)s, now()))"
        " ON CONFLICT (name) DO UPDATE SET gallery = excluded.gallery, cron = excluded.cron,"
        " known_since = CASE WHEN s.cron = excluded.cron THEN s.known_since ELSE excluded.known_since END"
        " WHERE (s.gallery, s.cron) IS DISTINCT FROM (excluded.gallery, excluded.cron)",
        {"name": name, "gallery": one.gallery, "cron": one.cron, "now": now},
    )


def _claim(connection: Connection, name: str, due: datetime) -> bool:
    """Take the right to queue a schedule for a time, which one worker gets."""
    query = (
        "UPDATE pfstore.schedules SET due_at = %(due)s"
        " WHERE name = %(name)s AND known_since < %(due)s AND (due_at IS NULL OR due_at < %(due)s)"
    )
    return connection.execute(query, {"due": due, "name": name}).rowcount > 0
