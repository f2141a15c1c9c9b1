"""`pfstore backfill`: a legacy store becomes a gallery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pfstore.cli.app import App, Command
from pfstore.errors import RejectsError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.config import GalleryConfig
    from pfstore.jobs.summary import Summary
    from pfstore.stages import Profile


@click.command(cls=Command)
@click.argument("gallery")
@click.option("--dry-run", is_flag=True, help="Read, check and count everything; fuse and write nothing.")
@click.option(
    "--compact/--no-compact",
    default=None,
    help="Keep the sum of the model's blocks, instead of what pfstore.toml says.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only N subjects, for a try.")
@click.option("--restart", is_flag=True, help="Begin anew, even where an interrupted run could go on.")
@click.option(
    "--workers", type=click.IntRange(1, 256), metavar="N", help="By N processes here, and any others there are."
)
@click.option("--strict", is_flag=True, help="Exit 11 where rows were rejected.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1, for networks.")
@click.option("--profile", is_flag=True, help="Tell where the time went, and which stage is the limit.")
@click.pass_obj
def backfill(
    app: App,
    gallery: str,
    dry_run: bool,
    compact: bool | None,
    limit: int | None,
    restart: bool,
    workers: int | None,
    strict: bool,
    device: str,
    profile: bool,
) -> None:
    """Fuse every subject of a gallery's source into templates.

    Interrupted or killed, the same command goes on where it stopped. Rows that cannot be used are kept as
    rejects with their key and reason and do not stop the run; `pfstore status --rejects` lists them.

    Compact templates take a fraction of the room: of a model of several blocks their sum alone is kept.
    `pfstore evaluate --compact` tells what that costs.

    \b
    Example:
      pfstore backfill staff --dry-run
      pfstore backfill staff
      pfstore backfill staff --workers 4
    """
    if workers is not None and (dry_run or limit is not None or profile):
        raise click.UsageError("--workers goes with neither --dry-run, --limit nor --profile")
    named = app.config.gallery(gallery)
    if compact is not None:
        named = named.model_copy(update={"compact": compact})
    try:
        if workers is not None:
            summary = _by_workers(app, gallery, named, restart, device, workers)
        elif dry_run:
            summary = _dry(app, gallery, named, limit, device)
        else:
            summary = _run(app, gallery, named, limit, restart, device)
    except KeyboardInterrupt:
        if not dry_run and limit is None:
            form = {None: "", True: " --compact", False: " --no-compact"}[compact]
            click.echo(f"\nWhat is done stays: `pfstore backfill {gallery}{form}` goes on from there.", err=True)
        raise
    tell(app, summary, _said(summary), profile=profile, strict=strict)


def tell(app: App, summary: Summary, said: str, *, profile: bool, strict: bool) -> None:
    """Print what a run did, with its profile where that is wanted. Raises RejectsError where it was to be strict."""
    document = summary.as_dict()
    if profile:
        from pfstore.cli.output import stacked

        app.show(document | {"profile": summary.profile.as_dict()}, stacked(said, "", _profiled(summary.profile)))
    else:
        app.show(document, said)
    if strict and summary.counts.rejected:
        raise RejectsError(f"{summary.counts.rejected:,} rows were rejected, and --strict was asked for")


def _run(app: App, gallery: str, named: GalleryConfig, limit: int | None, restart: bool, device: str) -> Summary:
    from pfstore.cli.output import progress
    from pfstore.fusion.devices import placed
    from pfstore.gallery import models
    from pfstore.jobs.backfill import backfill as run

    with app.source(named.source) as source, app.connect() as connection, progress(app.quiet) as observer:
        model = models.resolve(connection, named.model)
        return run(
            connection,
            source,
            placed(models.load(connection, model.digest), device),
            gallery=gallery,
            source_name=named.source,
            mapping=app.mapping(named.source).identity,
            strategy=named.strategy,
            compact=named.compact,
            limit=limit,
            restart=restart,
            observer=observer,
        )


def _by_workers(app: App, gallery: str, named: GalleryConfig, restart: bool, device: str, workers: int) -> Summary:
    import sys

    from pfstore.cli.output import progress
    from pfstore.gallery import models
    from pfstore.jobs import fleet

    with app.source(named.source) as source, app.connect() as connection:
        planned = fleet.plan(
            connection,
            source,
            models.load(connection, models.resolve(connection, named.model).digest),
            gallery=gallery,
            source_name=named.source,
            mapping=app.mapping(named.source).identity,
            strategy=named.strategy,
            compact=named.compact,
            restart=restart,
        )
    assert app.config.file is not None  # where the gallery is named
    worker = ["--config", str(app.config.file), "--quiet", "worker", "--log", "text", "--device", device]
    # Everybody can read a command line, and nobody else the environment.
    where = {"PFSTORE_DATABASE": app.database_url} if app.database_url else {}
    with progress(app.quiet) as observer:
        return fleet.carry_out(
            app.database,
            planned,
            [sys.executable, "-m", "pfstore", *worker],
            workers,
            environment=where,
            observer=observer,
        )


def _dry(app: App, gallery: str, named: GalleryConfig, limit: int | None, device: str) -> Summary:
    from pfstore.cli.output import progress
    from pfstore.fusion import BASELINES, load_model
    from pfstore.fusion.devices import device_of
    from pfstore.gallery import models
    from pfstore.jobs.backfill import dry_run

    device_of(device)
    if named.model in BASELINES:
        fuser = load_model(named.model)
    else:
        with app.connect() as connection:
            fuser = models.load(connection, models.find(connection, named.model).digest)
    with app.source(named.source) as source, progress(app.quiet) as observer:
        return dry_run(
            source,
            fuser,
            gallery=gallery,
            strategy=named.strategy,
            compact=named.compact,
            limit=limit,
            observer=observer,
        )


def _said(summary: Summary) -> str:
    counts = summary.counts
    # The counts of a resumed run are of all its parts, the seconds of this one alone.
    rate = "" if summary.resumed else f", {counts.read / max(summary.seconds, 1e-3):,.0f} features/s"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.rejects.items())
    left_out = ", ".join(f"{count:,} {cause}" for cause, count in summary.excluded.items())
    kept = "`pfstore status --rejects` lists them" if summary.run else "a run would keep each with its key"
    lines = [
        _head(summary),
        f"features  {counts.read:,} read = {counts.fused:,} fused + {counts.rejected:,} rejected",
        f"subjects  {counts.seen:,} seen = {counts.written:,} written + {counts.unchanged:,} unchanged"
        f" + {counts.subjects_rejected:,} rejected",
        *([f"rejected  {reasons}; {kept}"] if reasons else []),
        *([f"excluded  {left_out}: left out by the mapping, not read"] if left_out else []),
        *(
            [f"removed   {counts.removed:,} templates of subjects that the source no longer gives"]
            if counts.removed
            else []
        ),
        f"time      {summary.seconds:.1f} s{rate}",
    ]
    return "\n".join([*lines, *_what_now(summary)])


def _profiled(profile: Profile) -> RenderableType:
    """Return a table of the stages; those of several threads overlap, so that they add up to more than the whole."""
    from pfstore.cli.output import table

    lines = []
    for name, seconds in profile.seconds.items():
        rate = profile.rate(name)
        lines.append(
            {
                "stage": name,
                "seconds": f"{seconds:.2f}",
                "share": f"{seconds / max(profile.wall, 1e-9):.0%}",
                "features/s alone": None if rate is None else round(rate),
                "": "the limit" if name == profile.limit else "",
            }
        )
    return table(lines, list(lines[0]))


def _what_now(summary: Summary) -> list[str]:
    name, version = summary.gallery, summary.version
    if summary.promoted:
        return [f"Searches answer from it now: pfstore search {name} --probes FILE"]
    if summary.run is None or summary.active == version:
        return []
    if summary.active is None:
        return [
            f"No version answers searches yet; to try this one: pfstore search {name} --version {version} --probes FILE"
        ]
    return [f"Searches still answer from version {summary.active}; to switch: pfstore gallery promote {name} {version}"]


def _head(summary: Summary) -> str:
    if summary.run is None:
        return f"dry run for gallery {summary.gallery}: nothing was written"
    resumed = ", resumed" if summary.resumed else ""
    return f"run {summary.run}: gallery {summary.gallery}, version {summary.version}{resumed}"
