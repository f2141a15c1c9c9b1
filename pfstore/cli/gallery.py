"""`pfstore gallery`: galleries and their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Group, plural

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.gallery.galleries import Version
    from pfstore.gallery.thresholds import Threshold

_COLUMNS = (
    "gallery",
    "number",
    "state",
    "templates",
    "model",
    "strategy",
    "extractor",
    "dimension",
    "blocks",
    "indexed",
)


@click.group(cls=Group)
def gallery() -> None:
    """Make, show, promote and drop galleries and their versions."""


@gallery.command()
@click.argument("name")
@click.pass_obj
def create(app: App, name: str) -> None:
    """Make an empty gallery. One that pfstore.toml names is made by its first backfill.

    Example: pfstore gallery create staff
    """
    from pfstore.gallery import galleries

    with app.connect() as connection:
        galleries.create(connection, name)
    app.show({"gallery": name}, f"gallery {name}: made, empty")


@gallery.command("list")
@click.pass_obj
def list_(app: App) -> None:
    """List all galleries with their versions.

    Example: pfstore gallery list --json | jq '.[] | select(.state == "active")'
    """
    from pfstore.cli.output import table
    from pfstore.gallery import galleries

    with app.connect() as connection:
        counts = galleries.counts(connection)
        rows = [one.as_dict() | {"templates": counts[one.version_id]} for one in galleries.versions(connection)]
        empty = set(galleries.names(connection)) - {row["gallery"] for row in rows}
    rows += [{"gallery": name, "state": "empty", "templates": 0} for name in sorted(empty)]
    app.show(rows, table(rows, _COLUMNS))


@gallery.command()
@click.argument("name")
@click.pass_obj
def show(app: App, name: str) -> None:
    """Show a gallery's versions, their contracts and thresholds, and what these rest on.

    Example: pfstore gallery show staff
    """
    from pfstore.gallery import galleries, thresholds

    with app.connect() as connection:
        counts = galleries.counts(connection)
        rows, known = [], []
        for one in galleries.versions(connection, name):
            limits = thresholds.stored(connection, one)
            since = thresholds.written_since(connection, one, limits[0].created_at) if limits else 0
            told = {"templates": counts[one.version_id], "thresholds": [limit.as_dict() for limit in limits]}
            rows.append(one.as_dict() | told | {"written_since": since})
            known.append(limits)
    app.show({"gallery": name, "versions": rows}, _with_thresholds(rows, known))


def _with_thresholds(rows: list[dict[str, Any]], known: list[list[Threshold]]) -> RenderableType:
    from pfstore.cli import calibrate
    from pfstore.cli.output import cell, stacked, table

    parts = [table(rows, _COLUMNS)]
    for row, limits in zip(rows, known, strict=True):
        if limits:
            older = f", older than {plural(row['written_since'], 'template')}" if row["written_since"] else ""
            made = "by backfill" if limits[0].automatic else "by calibrate"
            head = f"version {row['number']}: {limits[0].basis}, {made}, {cell(limits[0].created_at)}{older}"
            parts += ["", head, table(calibrate.rows(limits), calibrate.COLUMNS)]
    return stacked(*parts)


@gallery.command()
@click.argument("name")
@click.argument("version", type=int)
@click.option("--force", is_flag=True, help="Even if no run over the whole source has ended in it.")
@click.pass_obj
def promote(app: App, name: str, version: int, force: bool) -> None:
    """Let a version answer the searches; the one before stays for a rollback.

    Example: pfstore gallery promote staff 2
    """
    from pfstore.gallery import galleries

    with app.connect() as connection:
        _active(app, galleries.promote(connection, name, version, force=force))


@gallery.command()
@click.argument("name")
@click.pass_obj
def rollback(app: App, name: str) -> None:
    """Let the version before the present one answer the searches again.

    Example: pfstore gallery rollback staff
    """
    from pfstore.gallery import galleries

    with app.connect() as connection:
        _active(app, galleries.rollback(connection, name))


@gallery.command()
@click.argument("name")
@click.option("--version", type=int, help="Only this version, which must not be the active one.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def drop(app: App, name: str, version: int | None, yes: bool) -> None:
    """Drop a gallery, or one version of it, with all templates in it.

    Example: pfstore gallery drop staff --version 1 --yes
    """
    from pfstore.gallery import galleries

    what = f"version {version} of gallery {name}" if version else f"gallery {name} with all versions"
    if not yes:
        click.confirm(f"Drop {what}?", abort=True, err=True)
    with app.connect() as connection:
        dropped = galleries.drop(connection, name, version)
    document = {"gallery": name, "version": version, "templates": dropped}
    app.show(document, f"{what}: dropped, {plural(dropped, 'template')}")


@gallery.command()
@click.argument("name")
@click.option("--version", type=int, help="Another version than the active one.")
@click.option("--drop", "dropping", is_flag=True, help="Drop the index instead: searches are exhaustive again.")
@click.pass_obj
def index(app: App, name: str, version: int | None, dropping: bool) -> None:
    """Build an HNSW index, for searches that are fast and approximate; `search --exact` goes round it.

    Example: pfstore gallery index staff
    """
    from pfstore.gallery import galleries

    with app.connect() as connection:
        chosen = galleries.version(connection, name, version)
        (galleries.drop_index if dropping else galleries.build_index)(connection, chosen)
    document = {"gallery": name, "version": chosen.number, "indexed": not dropping}
    app.show(document, f"version {chosen.number} of gallery {name}: index {'dropped' if dropping else 'built'}")


def _active(app: App, version: Version) -> None:
    said = f"version {version.number} of gallery {version.gallery} answers searches"
    app.show(version.as_dict(), said)
