"""`pfstore status`: what is there, what is running, what was rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Command
from pfstore.errors import NotFoundError

if TYPE_CHECKING:
    from pfstore.gallery.runs import Run


@click.command(cls=Command)
@click.option("--rejects", is_flag=True, help="List the rejected rows of a run instead.")
@click.option("--run", "run_id", type=int, help="The run to list rejects of [default: the last].")
@click.option("--last", default=10, show_default=True, type=click.IntRange(min=1), help="How many runs to show.")
@click.pass_obj
def status(app: App, rejects: bool, run_id: int | None, last: int) -> None:
    """Show the galleries, the last runs and how far they are.

    \b
    Example:
      pfstore status
      pfstore status --rejects --json | jq '.rejects[] | select(.reason == "zero norm")'
    """
    if rejects:
        _rejects(app, run_id)
    else:
        _overview(app, last)


def _overview(app: App, last: int) -> None:
    from pfstore.cli.output import stacked, table
    from pfstore.gallery import galleries, runs

    with app.connect() as connection:
        counts = galleries.counts(connection)
        versions = [one.as_dict() | {"templates": counts[one.version_id]} for one in galleries.versions(connection)]
        found = runs.listed(connection, last=last)
    shown = [_line(run) for run in found]
    about = table(versions, ("gallery", "number", "state", "templates", "model", "strategy", "extractor"))
    done = table(
        shown, ("run", "gallery", "version", "state", "done", "read", "rejected", "excluded", "subjects", "started")
    )
    app.show({"galleries": versions, "runs": [run.as_dict() for run in found]}, stacked(about, "", done))


def _line(run: Run) -> dict[str, Any]:
    state = run.state if run.state != "running" or run.alive else "interrupted"
    return {
        "run": run.run_id,
        "gallery": run.gallery,
        "version": run.version,
        "state": state,
        "done": f"{run.shards_done}/{run.shards} shards",
        "read": run.counts.read,
        "rejected": run.counts.rejected,
        "excluded": sum(run.excluded.values()),
        "subjects": run.counts.seen,
        "started": run.started_at,
    }


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
