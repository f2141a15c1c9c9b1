"""`pfstore search`: who is this? (1:N)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Command, Number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.gallery.database import Connection
    from pfstore.gallery.galleries import Version
    from pfstore.gallery.thresholds import Kind, Threshold

RATE = Number(0, 1, min_open=True, max_open=True)


@click.command(cls=Command)
@click.argument("gallery")
@click.option(
    "--probes", required=True, metavar="FILE", help="npz, npy, HDF5 or JSON lines; - for JSON lines on stdin."
)
@click.option("--top", default=10, show_default=True, type=click.IntRange(1, 1000), help="Candidates per probe.")
@click.option("--threshold", type=Number(-1, 1), help="The least score of a candidate [default: -1].")
@click.option(
    "--fpir", type=RATE, help="The false positive identification rate to keep to: how many strangers find anybody."
)
@click.option("--fmr", type=RATE, help="The false match rate to keep to: how many comparisons with others match.")
@click.option("--exact", is_flag=True, help="Compare with every template, even where there is an index.")
@click.option("--version", type=int, help="Another version than the active one.")
@click.option("--extractor", help="What made the probes' features; refused where the gallery's is another.")
@click.pass_obj
def search(
    app: App, gallery: str, probes: str, top: int, threshold: float | None, fpir: float | None, fmr: float | None,
    exact: bool, version: int | None, extractor: str | None,
) -> None:  # fmt: skip
    """Identify: print the candidate list of every probe in a file.

    Scores are cosines: higher is nearer. With --fpir or --fmr only candidates at or above the threshold that
    `pfstore calibrate` stored for that rate are listed, and what it rests on is printed.

    \b
    Example:
      pfstore search staff --probes probes.npz --top 5
      pfstore search staff --probes probes.npz --fpir 0.01
      pfstore search staff --probes probes.npz --json | jq '.probes[].candidates[0]'
    """
    from pfstore.gallery import galleries, models, searching
    from pfstore.sources.probes import read_probes

    if sum(one is not None for one in (threshold, fpir, fmr)) > 1:
        raise click.UsageError("give one of --threshold, --fpir and --fmr")
    sets = read_probes(probes)
    with app.connect() as connection:
        chosen = galleries.version(connection, gallery, version)
        limit, rate = _limit(app, connection, chosen, fpir, fmr)
        least = limit.threshold if limit else -1.0 if threshold is None else threshold
        fuser = models.load(connection, chosen.model_digest)
        templates = searching.probe_templates(fuser, chosen, sets.features, sets.offsets, extractor or sets.extractor)
        found = list(searching.search(connection, chosen, templates, top=top, threshold=least, exact=exact))
    answers = [
        {"id": name, "candidates": [asdict(one) for one in candidates]}
        for name, candidates in zip(sets.ids, found, strict=True)
    ]
    document = {"gallery": gallery, "version": chosen.number} | rate | {"probes": answers}
    app.show(document, _table(answers, limit))


def _limit(
    app: App, connection: Connection, chosen: Version, fpir: float | None, fmr: float | None
) -> tuple[Threshold | None, dict[str, Any]]:
    """Return the stored threshold at a rate and what --json tells of it; say so where the gallery has outgrown it."""
    from pfstore.gallery import thresholds

    if fpir is None and fmr is None:
        return None, {}
    kind: Kind = "fmr" if fpir is None else "fpir"
    limit = thresholds.at(connection, chosen, fmr if fpir is None else fpir, kind)
    told = {"threshold": limit.threshold, kind: limit.target, "interval": limit.interval}
    if kind == "fmr":
        return limit, told | {"comparisons": limit.comparisons, "basis": limit.basis}
    now = thresholds.size(connection, chosen)
    if limit.outgrown(now) and not app.quiet:
        click.echo(
            f"pfstore: the gallery had {limit.templates:,} templates when it was calibrated and has {now:,} now, so "
            f"the FPIR is higher than said: run `pfstore calibrate {chosen.gallery}` again",
            err=True,
        )
    sizes = {"calibrated": limit.templates, "now": now}
    return limit, told | {"searches": limit.comparisons, "basis": limit.basis, "templates": sizes}


def _table(answers: list[dict[str, Any]], limit: Threshold | None) -> RenderableType:
    from pfstore.cli.output import stacked, table

    none = [{"rank": None, "subject": None, "score": None}]
    rows = [{"probe": one["id"]} | line for one in answers for line in one["candidates"] or none]
    made = table(rows, ("probe", "rank", "subject", "score"))
    return stacked(made, "", f"at or above {limit.threshold:.4f}: {limit.said}") if limit else made
