"""`pfstore health`: whether all goes well, as an exit code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from pfstore.cli.app import App, Command, Number, plural


@click.command(cls=Command)
@click.option(
    "--max-age",
    type=Number(0, min_open=True),
    metavar="HOURS",
    help="Each gallery of pfstore.toml had a backfill or refresh that ended well within.",
)
@click.option("--workers", type=click.IntRange(min=0), metavar="N", help="At least so many workers are alive.")
@click.option(
    "--max-lag",
    type=Number(min=0),
    metavar="SECONDS",
    help="The replica of [database] read_url is no further behind [default: 60].",
)
@click.pass_obj
def health(app: App, max_age: float | None, workers: int | None, max_lag: float | None) -> int:
    """Tell probes of systemd, Kubernetes, Nagios or cron whether all goes well; reads no template and no source.

    \b
    Exit codes:
      0  healthy
      1  degraded: a schedule failed, or is late by more than its period; shards
         of a run failed for good; jobs wait and no worker is alive; the replica
         is too far behind or cannot be reached; or an option is not met
      2  wrong usage     3  configuration     4  the gallery database is away

    \b
    Example:
      pfstore health --max-age 26 --workers 2
      pfstore health --json | jq -r '.alarms[].what'
    """
    from pfstore.gallery.replica import MOST_LAG
    from pfstore.jobs.alarms import Limits, report

    age = None if max_age is None else timedelta(hours=max_age)
    limits = Limits(workers or 0, age, MOST_LAG if max_lag is None else max_lag)
    with app.connect() as connection:
        found = report(connection, app.config, limits, datetime.now(UTC), app.replica)
    alive, jobs = plural(found.workers, "worker"), found.jobs
    told = f"healthy: {alive} alive, {plural(jobs['todo'], 'job')} to do, {jobs['doing']:,} in hand"
    lines = [f"degraded: {one.what}" for one in found.alarms] or [told]
    app.show_text(found.as_dict(), "\n".join(lines))
    return 0 if found.healthy else 1
