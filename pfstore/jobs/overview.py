"""What goes on now: galleries, runs and how fast they are, workers, jobs, schedules, and what failed last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from pfstore.config import Config
from pfstore.gallery import galleries, runs, undone
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.runs import Run
from pfstore.gallery.undone import FailedShard
from pfstore.jobs import queue_state, schedules
from pfstore.jobs.queue_state import Worker
from pfstore.jobs.schedules import Schedule

Condition: TypeAlias = Literal["running", "waiting", "failed", "interrupted", "done", "abandoned"]
"""What a run is at. waiting: for a worker, or to be tried again. failed: what is left of it, or its end, was given up.
interrupted: nobody works on it and nothing of it is queued."""

WINDOW = 600.0
"""Seconds back of which a run's rate is told: long enough for several shards, short enough to see a change."""


@dataclass(frozen=True)
class Going:
    """A run and how it goes.

    failed: shards that failed and are not done. todo, doing: its jobs. rate: features read a second, in shards that
    were done lately; None where nobody can tell, as before the first one. seconds_left: at that rate.
    """

    run: Run
    condition: Condition
    failed: int = 0
    todo: int = 0
    doing: int = 0
    rate: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """The time that the run will take still."""
        return max(0, self.run.planned_features - self.run.counts.read) / self.rate if self.rate else None

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return self.run.as_dict() | {
            "condition": self.condition,
            "failed_shards": self.failed,
            "jobs": {"todo": self.todo, "doing": self.doing},
            "features_per_second": self.rate and round(self.rate, 1),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left),
        }


@dataclass(frozen=True)
class Overview:
    """What there was at a moment. templates: of each version, by version_id. jobs: by status.

    errors: failed shards of runs that are not over, each with its run.
    """

    at: datetime
    versions: list[Version]
    templates: Mapping[int, int]
    runs: list[Going]
    workers: list[Worker]
    jobs: Mapping[str, int]
    schedules: list[Schedule]
    errors: list[tuple[int, FailedShard]]

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "at": self.at.isoformat(),
            "galleries": [one.as_dict() | {"templates": self.templates[one.version_id]} for one in self.versions],
            "runs": [one.as_dict() for one in self.runs],
            "workers": [one.as_dict() for one in self.workers],
            "jobs": dict(self.jobs),
            "schedules": [one.as_dict() for one in self.schedules],
            "errors": [{"run": run, **one.as_dict()} for run, one in self.errors],
        }


def look(
    connection: Connection,
    config: Config,
    now: datetime,
    *,
    last: int = 10,
    errors: int = 5,
    templates: Mapping[int, int] | None = None,
) -> Overview:
    """Look at everything; changes nothing. last, errors: how many runs and failed shards, the newest first.

    templates: what was counted before, for who looks often: to count takes a time linear in their number. Versions
    that are not in it are counted anew, with all others.
    """
    versions = galleries.versions(connection)
    if templates is None or any(one.version_id not in templates for one in versions):
        templates = galleries.counts(connection)
    return Overview(
        at=now,
        # One that was made since has no count yet.
        versions=[one for one in versions if one.version_id in templates],
        templates=templates,
        runs=going(connection, runs.listed(connection, last=last)),
        workers=queue_state.workers(connection),
        jobs=queue_state.counts(connection),
        schedules=schedules.listed(connection, config, now),
        errors=undone.last_errors(connection, errors),
    )


# What a run that was taken up again did yesterday says nothing of its rate: there the oldest shard of the window is
# where it is counted from.
_STANDINGS = """
    SELECT r.run_id, s.failed, q.todo, q.doing, q.refused,
           (s.features / nullif(extract(epoch FROM clock_timestamp() - s.since), 0))::double precision AS rate
    FROM pfstore.runs r
    CROSS JOIN LATERAL (
        SELECT CASE WHEN r.started_at > clock_timestamp() - make_interval(secs => %(window)s) THEN r.started_at
                    ELSE min(done_at) FILTER (WHERE done_at > clock_timestamp() - make_interval(secs => %(window)s))
               END AS since
        FROM pfstore.shards WHERE run_id = r.run_id) w
    CROSS JOIN LATERAL (
        SELECT w.since, sum(read) FILTER (WHERE done_at > w.since) AS features,
               count(*) FILTER (WHERE done_at IS NULL AND failures > 0) AS failed
        FROM pfstore.shards WHERE run_id = r.run_id) s
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE status = 'todo') AS todo, count(*) FILTER (WHERE status = 'doing') AS doing,
               count(*) FILTER (WHERE status = 'failed' AND queueing_lock = 'finish:' || r.run_id) > 0 AS refused
        FROM pfstore_jobs.procrastinate_jobs WHERE queue_name = 'run:' || r.run_id) q
    WHERE r.state = 'running' AND r.run_id = ANY(%(runs)s)
"""


def going(connection: Connection, found: list[Run]) -> list[Going]:
    """Tell how runs go."""
    query = {"runs": [one.run_id for one in found], "window": WINDOW}
    standings = {row[0]: row[1:] for row in connection.execute(_STANDINGS, query)}
    return [_of(one, standings.get(one.run_id)) for one in found]


def _of(run: Run, standing: tuple[int, int, int, bool, float | None] | None) -> Going:
    # One that ended between the two queries is shown as it was.
    failed, todo, doing, refused, rate = standing or (0, 0, 0, False, None)
    if run.state != "running":
        return Going(run, run.state)
    if run.alive or doing:
        return Going(run, "running", failed, todo, doing, rate)
    condition: Condition = "waiting" if todo else "failed" if failed or refused else "interrupted"
    return Going(run, condition, failed, todo, doing)
