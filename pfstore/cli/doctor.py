"""`pfstore doctor`: everything a bug report needs, what is wrong and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Command
from pfstore.errors import ConfigError, DatabaseError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.gallery.findings import Finding
    from pfstore.gallery.health import Health


@click.command(cls=Command)
@click.pass_obj
def doctor(app: App) -> int:
    """Tell what runs here, how the database is, what is wrong and how to mend it.

    Put its output under a bug report: passwords are not in it. Exit 0 where nothing is wrong but what is only a
    warning, 4 where the database or its replica cannot be used, 3 where the configuration cannot be read.

    \b
    Example:
      pfstore doctor
      pfstore doctor --json | jq '.findings[] | select(.severity == "error")'
    """
    from pfstore.gallery import embedded, health
    from pfstore.gallery.findings import Finding, findings

    shown, folder, seen, code = None, None, None, DatabaseError.exit_code
    try:
        url = app.database_url or app.config.database.url
        if embedded.is_embedded(url):
            shown, folder = url, embedded.data_folder(url, app.config.folder).resolve()
        shown = app.database.shown
        seen = health.examine(app.database, folder)
        found = findings(seen)
    except ConfigError as error:
        found, code = [Finding(str(error), "error", "correct the configuration")], error.exit_code
    except DatabaseError as error:
        mend = "start the server, or correct the database's URL; `pfstore db status` tries it"
        found = [Finding(str(error), "error", mend)]
    replica, more = _replica(app, reached=seen is not None) if code != ConfigError.exit_code else (None, [])
    found = sorted(found + more, key=lambda one: one.severity)
    here = _here()
    document = here | {
        "database": {"url": shown, "reached": seen is not None} | (seen.as_dict() if seen else {}),
        "replica": replica,
        "findings": [asdict(one) for one in found],
    }
    app.show(document, _shown(here, shown, seen, replica, found))
    return code if any(one.severity == "error" for one in found) else 0


def _replica(app: App, *, reached: bool) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return what `--json` tells of the replica and what is wrong with it; reached: whether the primary can be."""
    from pfstore.gallery import replica
    from pfstore.gallery.findings import Finding

    shown = None
    try:
        if app.replica is None:
            return None, []
        shown = app.replica.shown
        with app.replica.connect() as connection:
            told = replica.examine(connection)
        primary = None
        if reached:
            with app.connect() as connection:
                primary = replica.system(connection)
    except DatabaseError as error:
        mend = "start the replica, or correct or take out read_url; until then search with --fresh"
        return {"url": shown, "reached": False}, [Finding(f"replica: {error}", "error", mend)]
    return {"url": shown, "reached": True} | told.as_dict(), list(replica.findings(told, shown, primary))


def _here() -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    import torch

    versions = {name: version(name) for name in ("pfstore", "torch", "psycopg", "numpy")}
    cuda = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version(), **versions},
        "platform": platform.platform(),
        "device": {"threads": torch.get_num_threads(), "cuda": cuda if torch.cuda.is_available() else []},
    }


def _shown(
    here: dict[str, Any], shown: str | None, health: Health | None, replica: dict[str, Any] | None, found: list[Finding]
) -> RenderableType:
    from pfstore.cli.output import facts, stacked
    from pfstore.gallery.replica import said

    cuda = ", ".join(here["device"]["cuda"]) or "no CUDA"
    told = here["versions"] | {"platform": here["platform"]}
    told |= {"device": f"CPU with {here['device']['threads']} threads, {cuda}", "database": shown}
    if replica and replica["reached"]:
        told |= {"replica": f"{replica['url']}, {said(replica['lag_seconds'])}"}
    parts: list[RenderableType] = [facts(told | (_of_server(health) if health else {}))]
    if health and health.versions:
        parts += ["", _of_versions(health)]
    for one in found:
        parts += ["", f"{one.severity}: {one.what}", f"  to mend it: {one.mend}"]
    return stacked(*parts, *([] if found else ["", "nothing is wrong"]))


def _of_server(health: Health) -> dict[str, Any]:
    from pfstore.gallery.findings import megabytes

    status, server = health.schema, health.server
    disk = {} if server.disk is None else {"free_disk": megabytes(server.disk)}
    return {
        "server": f"PostgreSQL {status.server}, pgvector {status.pgvector or 'missing'}",
        "schema": f"{status.schema or 'none'}, the latest is {status.latest}",
        "shared_buffers": megabytes(server.shared_buffers),
        "maintenance_work_mem": megabytes(server.maintenance_work_mem),
        "max_parallel_workers": server.max_parallel_workers,
        "clock": f"{server.clock:+.3f} s from ours",
    } | disk


def _of_versions(health: Health) -> RenderableType:
    from pfstore.cli.output import stacked, table
    from pfstore.gallery.findings import megabytes

    rows = [
        {
            "gallery": one.gallery,
            "version": one.version,
            "templates": one.templates,
            "table": megabytes(one.table_bytes),
            "index": one.index and megabytes(one.index.bytes),
            "fits_shared_buffers": one.fits,
            "search": one.search.kind,
            "planner": "see below" if one.wrong else ", ".join(one.scans),
            "tuning_outgrown": one.search.outgrown if one.search.tuning else None,
        }
        for one in health.versions
    ]
    why = [f"{one.gallery}, version {one.version}: {one.search.why}" for one in health.versions]
    return stacked(table(rows, tuple(rows[0])), *why)
