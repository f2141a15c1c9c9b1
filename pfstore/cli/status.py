"""`pfstore status`: what is there, what is running, what was rejected, and how far a gallery covers its source."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Command, Number
from pfstore.errors import DatabaseError, NotFoundError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.jobs.coverage import Coverage
    from pfstore.jobs.overview import Going, Overview

ALL = ""
"""Stands for every gallery."""

COUNT_EVERY = 30.0
"""Seconds between two counts of all templates while watching: of millions, that takes longer than the rest."""


@click.command(cls=Command)
@click.option(
    "--watch",
    is_flag=False,
    flag_value=2.0,
    type=Number(0.1),
    metavar="[SECONDS]",
    help="Show it again every so many seconds [default: 2], until Ctrl-C.",
)
@click.option(
    "--coverage",
    is_flag=False,
    flag_value=ALL,
    metavar="[GALLERY]",
    help="Also ask the source who is covered, stale, missing or orphaned; of all galleries where none is named.",
)
@click.option("--rejects", is_flag=True, help="List the rejected rows of a run instead.")
@click.option("--run", "run_id", type=int, help="The run to list rejects of [default: the last].")
@click.option("--last", default=10, show_default=True, type=click.IntRange(min=1), help="How many runs to show.")
@click.pass_obj
def status(
    app: App, watch: float | None, coverage: str | None, rejects: bool, run_id: int | None, last: int
) -> None:  # fmt: skip
    """Show the galleries, the last runs and how far they are, workers, jobs, schedules and the last errors.

    With --watch and --json, one document a line. A subject is covered where its template is as it should be, stale
    where its rows have changed or nobody can tell, missing where it is new, and orphaned where the source no longer
    has it.

    \b
    Example:
      pfstore status
      pfstore status --watch
      pfstore status --coverage staff
      pfstore status --rejects --json | jq '.rejects[] | select(.reason == "zero norm")'
    """
    if sum((watch is not None, coverage is not None, rejects)) > 1:
        raise click.UsageError("give one of --watch, --coverage and --rejects")
    if rejects:
        _rejects(app, run_id)
    elif watch is not None:
        _watch(app, last, watch)
    else:
        _once(app, last, coverage)


def _once(app: App, last: int, coverage: str | None) -> None:
    from pfstore.cli.output import looking, stacked
    from pfstore.jobs import overview
    from pfstore.jobs.coverage import covered

    found: list[Coverage] = []
    with app.connect() as connection:
        seen = overview.look(connection, app.config, datetime.now(UTC), last=last)
        if coverage is not None:
            names = list(app.config.galleries) if coverage == ALL else [coverage]
            with looking(app.quiet) as told:
                found = list(covered(connection, app.config, names, told))
    if coverage is None:
        app.show(seen.as_dict(), _shown(seen))
    else:
        document = seen.as_dict() | {"coverage": [one.as_dict() for one in found]}
        app.show(document, stacked(_shown(seen), "", _coverage(found)))
    for one in found:
        # Everything that could be told is told by now; the exit code says that it is not all.
        if one.error is not None:
            raise one.error


def _watch(app: App, last: int, seconds: float) -> None:
    from pfstore.jobs import overview

    seen: Overview | None = None
    counted = 0.0
    with _screen(app) as (show, tell):
        while True:
            known = seen.templates if seen is not None and time.monotonic() < counted + COUNT_EVERY else None
            if known is None:
                counted = time.monotonic()
            try:
                with app.connect() as connection:
                    seen = overview.look(connection, app.config, datetime.now(UTC), last=last, templates=known)
                show(seen)
            except DatabaseError as error:
                # One that was never there is a mistake; one that is restarted comes back.
                if seen is None:
                    raise
                tell(f"pfstore: {error}")
            time.sleep(seconds)


@contextmanager
def _screen(app: App) -> Iterator[tuple[Callable[[Overview], None], Callable[[str], None]]]:
    """Give what shows an overview, in place of the one before where there is a terminal, and what tells of an error."""
    from rich.live import Live

    from pfstore.cli.output import stacked, stdout

    if app.json or not sys.stdout.isatty():
        yield (
            lambda seen: app.show(seen.as_dict(), stacked(_caption(seen), _shown(seen), "")),
            lambda error: click.echo(error, err=True),
        )
        return
    with Live(console=stdout(), auto_refresh=False) as live:
        yield (
            lambda seen: live.update(stacked(_shown(seen), "", f"{_caption(seen)}; Ctrl-C ends"), refresh=True),
            live.console.print,
        )


def _caption(seen: Overview) -> str:
    return seen.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _shown(seen: Overview) -> RenderableType:
    from pfstore.cli.output import stacked, table

    versions = [one.as_dict() | {"templates": seen.templates[one.version_id]} for one in seen.versions]
    parts = [
        table(versions, ("gallery", "number", "state", "templates", "model", "strategy", "extractor")),
        "",
        table(
            [_line(one) for one in seen.runs],
            ("run", "gallery", "version", "kind", "state", "done", "read", "rejected", "excluded", "subjects",
             "features/s", "left", "started"),
        ),
    ]  # fmt: skip
    if seen.workers:
        workers = [vars(one) | {"worker": one.worker_id} for one in seen.workers]
        parts += ["", table(workers, ("worker", "host", "pid", "alive", "doing", "last_heartbeat", "pfstore"))]
    if seen.schedules:
        schedules = [vars(one) | {"schedule": one.name} for one in seen.schedules]
        parts += ["", table(schedules, ("schedule", "gallery", "cron", "last_run", "next_run", "result"))]
    if seen.errors:
        errors = [vars(one) | {"run": run, "shard": one.number} for run, one in seen.errors]
        parts += ["", table(errors, ("run", "shard", "failures", "error"))]
    if jobs := ", ".join(f"{count:,} {state}" for state, count in seen.jobs.items() if count):
        alive = sum(one.alive for one in seen.workers)
        parts += ["", f"jobs: {jobs}" + ("" if alive or not seen.jobs["todo"] else "; no worker is alive")]
    return stacked(*parts)


def _line(one: Going) -> dict[str, Any]:
    run, left = one.run, one.seconds_left
    return {
        "run": run.run_id,
        "gallery": run.gallery,
        "version": run.version,
        "kind": run.kind,
        "state": one.condition,
        "done": f"{run.shards_done:,}/{run.shards:,} shards" + (f", {one.failed:,} failed" if one.failed else ""),
        "read": run.counts.read,
        "rejected": run.counts.rejected,
        "excluded": sum(run.excluded.values()),
        "subjects": run.counts.seen,
        "features/s": one.rate and round(one.rate),
        "left": None if left is None else str(timedelta(seconds=round(left))),
        "started": run.started_at,
    }


def _coverage(found: list[Coverage]) -> RenderableType:
    from pfstore.cli.output import stacked, table

    numbers = ("covered", "stale", "missing", "orphaned", "rejected", "templates")
    shown = table([vars(one) for one in found], ("gallery", "version", *numbers, "by"))
    return stacked(shown, *(f"{one.gallery}: {one.said}" for one in found if one.said))


def _rejects(app: App, run_id: int | None) -> None:
    from pfstore.cli.output import table
    from pfstore.gallery import runs

    with app.connect() as connection:
        found = runs.listed(connection, run_id=run_id, last=1)
        if not found:
            raise NotFoundError("there is no run yet" if run_id is None else f"there is no run {run_id}")
        rows = runs.rejects(connection, found[0].run_id)
    names = ("subject", "medium", "row", "reason", "detail")
    app.show({"run": found[0].run_id, "rejects": rows}, table(rows, names))
