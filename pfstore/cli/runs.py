"""`pfstore run`: the runs of backfills and refreshes, what failed in them, and how to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Group, plural
from pfstore.errors import NotFoundError

if TYPE_CHECKING:
    from pfstore.jobs.overview import Going


@click.group(cls=Group)
def run() -> None:
    """List runs, show what failed, try it again, or give a run up."""


@run.command("list")
@click.option("--last", default=20, show_default=True, type=click.IntRange(min=1), help="How many runs to list.")
@click.pass_obj
def list_(app: App, last: int) -> None:
    """List the last runs: running, waiting for a worker, failed, interrupted, done or abandoned.

    Example: pfstore run list --last 5
    """
    from pfstore.cli.output import table
    from pfstore.gallery import runs
    from pfstore.jobs import overview

    with app.connect() as connection:
        found = overview.going(connection, runs.listed(connection, last=last))
    lines = [_facts(one) for one in found]
    names = ("run", "gallery", "version", "kind", "state", "shards", "read", "rejected", "subjects", "started")
    app.show([one.as_dict() for one in found], table(lines, names))


@run.command()
@click.argument("run_id", metavar="RUN", type=int)
@click.pass_obj
def show(app: App, run_id: int) -> None:
    """Show how far a run is, its jobs in the queue, and its failed shards with their errors.

    Example: pfstore run show 12
    """
    from pfstore.cli.output import facts, stacked, table
    from pfstore.gallery import runs, undone
    from pfstore.jobs import overview, queue, queue_state

    with app.connect() as connection:
        if not (found := runs.listed(connection, run_id=run_id)):
            raise NotFoundError(f"there is no run {run_id}; `pfstore run list` shows those there are")
        [going] = overview.going(connection, found)
        failed = undone.failed(connection, run_id)
        jobs = queue_state.counts(connection, queue.of_run(run_id))
    document = going.as_dict() | {"jobs": jobs, "failed": [one.as_dict() for one in failed]}
    lines = [one.as_dict() | {"shard": one.number, "features": one.planned_features} for one in failed]
    left = {"jobs": ", ".join(f"{count:,} {status}" for status, count in jobs.items() if count) or None}
    about = facts(_facts(going) | left)
    app.show(
        document, stacked(about, "", table(lines, ("shard", "features", "failures", "error"))) if failed else about
    )


@run.command()
@click.argument("run_id", metavar="RUN", type=int)
@click.option("--shard", type=click.IntRange(min=0), metavar="N", help="That shard alone.")
@click.pass_obj
def retry(app: App, run_id: int, shard: int | None) -> None:
    """Queue the failed shards of a run again, and any others that are left and nobody has.

    \b
    Example:
      pfstore run retry 12
      pfstore run retry 12 --shard 3
    """
    from pfstore.jobs import queue_state, steering

    with app.connect() as connection:
        queued = steering.retry(connection, run_id, shard)
        alive = sum(one.alive for one in queue_state.workers(connection))
    hint = "" if alive else f"; no worker is alive: start one with `pfstore worker --run {run_id}`"
    app.show({"run": run_id, "queued": queued, "workers": alive}, f"run {run_id}: {plural(queued, 'job')} queued{hint}")


@run.command()
@click.argument("run_id", metavar="RUN", type=int)
@click.pass_obj
def cancel(app: App, run_id: int) -> None:
    """Give a run up; what it has done stays, and the gallery's next run begins anew.

    Example: pfstore run cancel 12
    """
    from pfstore.jobs import steering

    with app.connect() as connection:
        jobs = steering.cancel(connection, run_id)
    app.show({"run": run_id, "cancelled": jobs}, f"run {run_id}: given up; {plural(jobs, 'job')} left the queue")


def _facts(going: Going) -> dict[str, Any]:
    one = going.run
    return {
        "run": one.run_id,
        "gallery": one.gallery,
        "version": one.version,
        "kind": one.kind,
        "source": one.source,
        "state": going.condition,
        "shards": f"{one.shards_done:,}/{one.shards:,}",
        "read": one.counts.read,
        "rejected": one.counts.rejected,
        "subjects": one.counts.seen,
        "started": one.started_at,
        "finished": one.finished_at,
    }
