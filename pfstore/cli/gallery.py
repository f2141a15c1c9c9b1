"""`pfstore gallery`: galleries and their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Group, Number, plural

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.gallery.galleries import Version
    from pfstore.gallery.paths import Path
    from pfstore.gallery.thresholds import Threshold
    from pfstore.gallery.tuning import Tuning

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
    "compact",
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
    """Show a gallery's versions, their contracts and thresholds, how they are searched, and what all this rests on.

    Which way a search takes is asked of the server's planner as well.

    Example: pfstore gallery show staff
    """
    from pfstore.gallery import galleries, paths, thresholds

    with app.connect() as connection:
        rows, known, ways = [], [], []
        for one in galleries.versions(connection, name):
            limits = thresholds.stored(connection, one)
            since = thresholds.written_since(connection, one, limits[0].created_at) if limits else 0
            way, wrong = paths.path(connection, one), paths.checked(connection, one)
            told = {"templates": way.templates, "thresholds": [limit.as_dict() for limit in limits]}
            rows.append(one.as_dict() | told | {"written_since": since, "search": way.as_dict() | {"wrong": wrong}})
            known.append(limits)
            ways.append((way, wrong))
    app.show({"gallery": name, "versions": rows}, _shown(rows, known, ways))


def _shown(
    rows: list[dict[str, Any]], known: list[list[Threshold]], ways: list[tuple[Path, str | None]]
) -> RenderableType:
    from pfstore.cli import calibrate
    from pfstore.cli.output import cell, stacked, table

    parts = [table(rows, _COLUMNS), ""]
    for row, (way, wrong) in zip(rows, ways, strict=True):
        kind = "through its index" if way.kind == "index" else "exhaustively"
        parts.append(f"version {row['number']} is searched {kind}: {way.why}{f'; but {wrong}' if wrong else ''}")
    for row, limits in zip(rows, known, strict=True):
        if limits:
            older = f", older than {plural(row['written_since'], 'template')}" if row["written_since"] else ""
            made = "by backfill" if limits[0].automatic else "by calibrate"
            head = f"version {row['number']}: {limits[0].basis}, {made}, {cell(limits[0].created_at)}{older}"
            parts += ["", head, table(calibrate.rows(limits), calibrate.COLUMNS)]
    return stacked(*parts)


@gallery.command()
@click.argument("name")
@click.argument("version", type=int, required=False)
@click.option(
    "--sample", type=click.IntRange(3, 2000), default=300, show_default=True, metavar="N", help="Subjects compared."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which subjects.")
@click.pass_obj
def compare(app: App, name: str, version: int | None, sample: int, seed: int) -> None:
    """Compare a version, or the newest that is not active, with the active one: whom they hold and how they score.

    Scores are of pairs of subjects that are in both, within each version: templates of two versions are not comparable.
    What is amiss is said on stderr, as by `promote`.

    Example: pfstore gallery compare staff 2
    """
    from pfstore.cli import comparison_tables
    from pfstore.gallery import comparison

    with app.connect() as connection:
        found = comparison.compare(connection, *comparison.pair(connection, name, version), sample=sample, seed=seed)
    app.show(found.as_dict(), comparison_tables.shown(found))
    comparison_tables.warn(app, found.warnings)


@gallery.command()
@click.argument("name")
@click.argument("version", type=int)
@click.option(
    "--force", is_flag=True, help="Even if no run over the whole source has ended in it, or it lacks many subjects."
)
@click.option("--no-compare", is_flag=True, help="Do not compare it with the active one.")
@click.pass_obj
def promote(app: App, name: str, version: int, force: bool, no_compare: bool) -> None:
    """Let a version answer the searches; the one before stays for a rollback.

    It is compared with the active one first, as by `pfstore gallery compare`, and refused where it lacks more than 1 %
    of the subjects. What else is amiss is a warning on stderr: that it has no thresholds, which belong to a version, or
    that scores or accuracy are far from those of the active one.

    Example: pfstore gallery promote staff 2
    """
    from pfstore.cli import comparison_tables
    from pfstore.cli.output import stacked
    from pfstore.gallery import comparison, galleries

    with app.connect() as connection:
        if no_compare:
            active, found = galleries.promote(connection, name, version, force=force), None
            warnings = comparison.of_thresholds(connection, active)
        else:
            active, found = comparison.promote(connection, name, version, force=force)
            warnings = list(found.warnings)
    document = active.as_dict() | {"comparison": found and found.as_dict()}
    told = [comparison_tables.shown(found), ""] if found else []
    app.show(document, stacked(*told, _answers(active)))
    comparison_tables.warn(app, warnings)


@gallery.command()
@click.argument("name")
@click.pass_obj
def rollback(app: App, name: str) -> None:
    """Let the version before the present one answer the searches again.

    Example: pfstore gallery rollback staff
    """
    from pfstore.gallery import galleries

    with app.connect() as connection:
        active = galleries.rollback(connection, name)
    app.show(active.as_dict(), _answers(active))


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
@click.option(
    "--m",
    type=click.IntRange(2, 100),
    metavar="N",
    help="Edges of each template in the graph; more find more, take more room and time [default: 16].",
)
@click.option(
    "--ef-construction",
    type=click.IntRange(4, 1000),
    metavar="N",
    help="The breadth of the search for them, at least twice --m [default: 64, or that].",
)
@click.option("--drop", "dropping", is_flag=True, help="Drop the index instead: searches are exhaustive again.")
@click.pass_obj
def index(app: App, name: str, version: int | None, m: int | None, ef_construction: int | None, dropping: bool) -> None:
    """Build an HNSW index on what the first stage of a search reads; `search --exact` goes round it.

    Searches use it once `pfstore gallery tune` has found out what it gives. A backfill that makes a large
    gallery does both.

    \b
    Example:
      pfstore gallery index staff
      pfstore gallery index staff --m 32 --ef-construction 200
    """
    from pfstore.gallery import galleries, indexing

    edges = m or indexing.M
    if dropping and (m or ef_construction):
        raise click.UsageError("--m and --ef-construction are for building; give none with --drop")
    if ef_construction is not None and ef_construction < 2 * edges:
        raise click.UsageError(f"--ef-construction {ef_construction} is less than twice --m {edges}")
    with app.connect() as connection:
        chosen = galleries.version(connection, name, version)
        if dropping:
            indexing.drop(connection, chosen)
        else:
            breadth = ef_construction or indexing.EF_CONSTRUCTION
            indexing.build(connection, chosen, m=edges, ef_construction=breadth)
    document = {"gallery": name, "version": chosen.number, "indexed": not dropping}
    said = "dropped" if dropping else f"built; searches use it once `pfstore gallery tune {name}` knows what it finds"
    app.show(document, f"version {chosen.number} of gallery {name}: index {said}")


@gallery.command()
@click.argument("name")
@click.option(
    "--target",
    type=Number(0, 1, min_open=True),
    default=0.999,
    show_default=True,
    help="The share of searches in which the index must find first what the exhaustive search finds first.",
)
@click.option(
    "--probes", metavar="FILE", help="Measure it with these; npz, npy, HDF5 or JSON lines, ids naming the subjects."
)
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="Measure it with N worn templates [default: 2000]."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which templates, and how they are worn.")
@click.option("--version", type=int, help="Another version than the active one.")
@click.option("--extractor", help="What made the probes' features; refused where the gallery's is another.")
@click.pass_obj
def tune(
    app: App, name: str, target: float, probes: str | None, sample: int | None, seed: int, version: int | None,
    extractor: str | None,
) -> None:  # fmt: skip
    """Find the fastest way of searching an index that keeps to a recall, and use it from then on.

    Measured on the gallery itself, against its exhaustive search. The target is for the probes whose own subject is
    what that finds first. A search whose best score is lower than the sure one, at which the index was never wrong but
    for what the target allows, goes on exhaustively. Where that would take as long, all searches are exhaustive.

    Prefer --probes: held-out ones of the gallery's subjects. Without them, the gallery's own templates are worn: mixed
    with others until their scores are as low as those of real probes.

    \b
    Example:
      pfstore gallery tune staff
      pfstore gallery tune staff --probes probes.npz --target 0.99
    """
    from pfstore.cli import calibrate
    from pfstore.gallery import galleries, paths, tuning

    if probes is None and extractor is not None:
        raise click.UsageError("--extractor is for --probes; without probes it would do nothing")
    if probes is not None and sample is not None:
        raise click.UsageError("give one of --sample and --probes: probes are all searched")
    with app.connect() as connection, calibrate.progress(app.quiet) as observer:
        chosen = galleries.version(connection, name, version)
        found = tuning.tune(
            connection,
            chosen,
            target=target,
            probes=calibrate.fused(connection, chosen, probes, extractor) if probes else None,
            sample=sample or tuning.SAMPLE,
            seed=seed,
            observer=observer,
        )
        way = paths.path(connection, chosen)
    document = {"gallery": name, "version": chosen.number, "why": way.why} | found.as_dict()
    app.show(document, _tuned(chosen, found, way))


def _tuned(version: Version, found: Tuning, way: Path) -> RenderableType:
    from pfstore.cli.output import facts, stacked

    kind = "through its index" if found.path == "index" else "exhaustively"
    bounds = f"{found.low:.4f} … {found.high:.4f}"
    told = {
        "recall": f"{found.reached:.4f}, 95 % interval {bounds}; asked for: {found.target:g}",
        "measured with": found.basis,
        "ef_search": found.ef_search,
        "candidates": found.candidates,
        "sure from": "any score on" if found.sure is None else f"{found.sure:.4f} on",
        "answered by the index": f"{100 * found.answered:.1f} %, the others exhaustively",
        "a search by the index": f"{found.index_seconds * 1000:.1f} ms on average, with the others",
        "an exhaustive search": f"{found.exhaustive_seconds * 1000:.1f} ms",
    }
    head = f"version {version.number} of gallery {version.gallery} is searched {kind} from now on: {way.why}"
    return stacked(head, "", facts(told))


def _answers(version: Version) -> str:
    return f"version {version.number} of gallery {version.gallery} answers searches"
