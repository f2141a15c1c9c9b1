"""`pfstore refresh`: a gallery is brought up to date with its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pfstore.cli.app import App, Command, Number
from pfstore.cli.backfill import tell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.config import GalleryConfig
    from pfstore.jobs.refresh import Preview, RefreshSummary


@click.command(cls=Command)
@click.argument("gallery")
@click.option("--dry-run", is_flag=True, help="List who would be fused and removed; write nothing.")
@click.option("--full", is_flag=True, help="Read everything and compare it, whatever the source says has changed.")
@click.option("--version", type=int, metavar="N", help="Another version than the one that answers searches.")
@click.option(
    "--removals",
    type=Number(0, 1),
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="The share of the subjects that may vanish at once.",
)
@click.option("--strict", is_flag=True, help="Exit 11 where rows were rejected.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1, for networks.")
@click.option("--profile", is_flag=True, help="Tell where the time went, and which stage is the limit.")
@click.pass_obj
def refresh(
    app: App,
    gallery: str,
    dry_run: bool,
    full: bool,
    version: int | None,
    removals: float,
    strict: bool,
    device: str,
    profile: bool,
) -> None:
    """Fuse who is new or has changed since, remove who has vanished, and leave everybody else alone.

    Who has changed is told by versions of rows (tables of PostgreSQL), by the source's change mark where it is safe, by
    the times of files, or else by digests of the features, which the database computes. A template is written where
    the features are others than before. The active version is refreshed by the model that made it; a gallery without
    a version is filled.

    \b
    Example:
      pfstore refresh staff --dry-run
      pfstore refresh staff --json | jq .subjects
    """
    named = app.config.gallery(gallery)
    if dry_run:
        _preview(app, gallery, named, version)
        return
    try:
        summary = _run(app, gallery, named, version, full, removals, device)
    except KeyboardInterrupt:
        click.echo(f"\nWhat is done stays: `pfstore refresh {gallery}` finds out what is left.", err=True)
        raise
    tell(app, summary, _said(summary), profile=profile, strict=strict)


def _run(
    app: App, gallery: str, named: GalleryConfig, version: int | None, full: bool, removals: float, device: str
) -> RefreshSummary:
    from pfstore.cli.output import progress
    from pfstore.fusion.devices import placed
    from pfstore.gallery import models
    from pfstore.jobs import refresh as job

    with app.source(named.source) as source, app.connect() as connection, progress(app.quiet) as observer:
        target = job.target(connection, gallery, version)
        digest = target.model_digest if target else models.resolve(connection, named.model).digest
        fuser = placed(models.load(connection, digest), device)
        if target is None:
            target = job.first(connection, source, fuser, gallery, strategy=named.strategy, compact=named.compact)
        return job.refresh(
            connection,
            source,
            fuser,
            target,
            source_name=named.source,
            mapping=app.mapping(named.source).identity,
            full=full,
            removals=removals,
            observer=observer,
        )


def _preview(app: App, gallery: str, named: GalleryConfig, version: int | None) -> None:
    from pfstore.errors import NotFoundError
    from pfstore.jobs import refresh as job

    with app.source(named.source) as source, app.connect() as connection:
        target = job.target(connection, gallery, version)
        if target is None:
            raise NotFoundError(f"gallery {gallery!r} has no version yet: `pfstore backfill {gallery} --dry-run`")
        found = job.preview(connection, source, target)
    app.show(found.as_dict(), _previewed(found))


def _previewed(preview: Preview) -> RenderableType:
    from pfstore.cli.output import stacked, table

    found = preview.found
    if found is None:
        return f"the source of {preview.gallery} cannot tell who has changed: a refresh reads and compares everything"
    head = (
        f"gallery {preview.gallery}, version {preview.version}, by {preview.by}: {found.new:,} new, "
        f"{found.changed:,} changed or not certain, {found.vanished:,} vanished, {found.unchanged:,} unchanged, "
        f"{found.rejected:,} without a usable feature; nothing was written"
    )
    rows = [{"state": state, "subject": one} for state, subjects in preview.subjects.items() for one in subjects]
    return stacked(head, "", table(rows, ("state", "subject"))) if rows else head


def _said(summary: RefreshSummary) -> str:
    counts = summary.counts
    how = "everything was read" if summary.whole else f"by {summary.by}"
    lines = [
        f"run {summary.run}: gallery {summary.gallery}, version {summary.version}, {how}",
        f"subjects  {counts.seen:,} seen = {counts.written:,} written + {counts.unchanged:,} unchanged"
        f" + {counts.subjects_rejected:,} rejected",
        f"removed   {counts.removed:,} templates of subjects that the source no longer gives",
        f"features  {counts.read:,} read = {counts.fused:,} fused + {counts.rejected:,} rejected",
    ]
    if summary.rejects:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.rejects.items())
        lines.append(f"rejected  {reasons}; `pfstore status --rejects` lists them")
    if summary.excluded:
        left_out = ", ".join(f"{count:,} {cause}" for cause, count in summary.excluded.items())
        lines.append(f"excluded  {left_out}: of what was read, left out by the mapping")
    lines.append(f"time      {summary.seconds:.1f} s")
    if summary.by == "content" and not summary.whole:
        lines.append("Every feature was read for its digest; README tells how a change mark spares that.")
    return "\n".join(lines)
