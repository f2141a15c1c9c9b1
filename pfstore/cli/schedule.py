"""`pfstore schedule`: when galleries are refreshed, and what came of it."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from pfstore.cli.app import App, Group


@click.group(cls=Group)
def schedule() -> None:
    """The schedules of pfstore.toml, which workers follow."""


@schedule.command("list")
@click.pass_obj
def list_(app: App) -> None:
    """List the schedules: when each ran last and is due next, and what came of it. Cron lines are in UTC.

    Example: pfstore schedule list
    """
    from pfstore.cli.output import table
    from pfstore.jobs import schedules

    with app.connect() as connection:
        found = schedules.listed(connection, app.config, datetime.now(UTC))
    lines = [vars(one) | {"schedule": one.name} for one in found]
    shown = table(lines, ("schedule", "gallery", "cron", "next_run", "last_run", "finished_at", "run", "result"))
    app.show([one.as_dict() for one in found], shown)


@schedule.command()
@click.argument("name")
@click.pass_obj
def run(app: App, name: str) -> None:
    """Queue a schedule's refresh now, for a worker to do.

    Example: pfstore schedule run nightly
    """
    from pfstore.jobs import queue_state, schedules

    with app.connect() as connection:
        queued = schedules.run_now(connection, app.config, name)
        alive = sum(one.alive for one in queue_state.workers(connection))
    what = "queued" if queued else "queued or under way already"
    hint = "" if alive else "; no worker is alive: start one with `pfstore worker`"
    app.show({"schedule": name, "queued": queued, "workers": alive}, f"schedule {name}: {what}{hint}")
