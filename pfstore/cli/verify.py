"""`pfstore verify`: is this the one? (1:1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Command, Number
from pfstore.cli.search import FRESH, SECONDS
from pfstore.errors import InputError

if TYPE_CHECKING:
    from pfstore.gallery.thresholds import Threshold


@click.command(cls=Command)
@click.argument("gallery")
@click.argument("subject")
@click.option("--probe", required=True, metavar="FILE", help="One probe: npy, npz, HDF5 or JSON lines; - for stdin.")
@click.option("--threshold", type=Number(-1, 1), help="The least score of a match.")
@click.option(
    "--fmr",
    type=Number(0, 1, min_open=True),
    help="The false match rate to keep to [default: 0.001].",
)
@click.option("--deadline", type=SECONDS, metavar="SECONDS", help="Fail where the comparison takes longer.")
@click.option("--fresh", is_flag=True, help=FRESH)
@click.option("--version", type=int, help="Another version than the active one.")
@click.option("--extractor", help="What made the probe's features; refused where the gallery's is another.")
@click.pass_context
def verify(
    context: click.Context, gallery: str, subject: str, probe: str, threshold: float | None, fmr: float | None,
    deadline: float | None, fresh: bool, version: int | None, extractor: str | None,
) -> None:  # fmt: skip
    """Verify: compare a probe with one subject's template. Exits 0 for a match, 1 for none.

    Without --threshold the one at --fmr decides, as `pfstore calibrate` stored it, or before that the backfill from
    the gallery's own non-mated comparisons; `pfstore gallery show` lists them. What it rests on is printed.

    Example: pfstore verify staff alice --probe alice.npy --fmr 0.001
    """
    from pfstore.gallery import deadlines, galleries, models, searching, thresholds
    from pfstore.sources.probes import read_probes

    app: App = context.obj
    if threshold is not None and fmr is not None:
        raise click.UsageError("give --threshold or --fmr, not both")
    sets = read_probes(probe)
    if len(sets.ids) != 1:
        raise InputError(f"{probe}: verify takes one probe, there are {len(sets.ids)}; use `pfstore search` for many")
    with app.connect_reading(fresh=fresh) as connection:
        with deadlines.limited(connection, deadline, f"gallery {gallery!r}"):
            lag = app.lag(connection, fresh=fresh)
            chosen = galleries.version(connection, gallery, version)
        fuser = models.fuser_of(connection, chosen)
        template = searching.probe_templates(fuser, chosen, sets.features, sets.offsets, extractor or sets.extractor)
        score = searching.verify(connection, chosen, subject, template[0], deadline=deadline)
        asked = threshold is None
        if threshold is None:
            threshold = (stored := thresholds.at(connection, chosen, fmr)).threshold
            limit: Threshold | None = stored
        else:
            limit = thresholds.kept_by(connection, chosen, threshold)
    match = score >= threshold
    document = {
        "subject": subject,
        "score": score,
        "threshold": threshold,
        "fmr": limit and limit.target,
        "match": match,
    }
    app.show(document | _basis(limit, asked) | lag, _said(subject, score, threshold, _rate(limit, asked), match))
    context.exit(0 if match else 1)


def _basis(limit: Threshold | None, asked: bool) -> dict[str, Any]:
    """Return what --json tells of a threshold; the interval is of the FMR at a stored one only."""
    if limit is None:
        return {"interval": None, "comparisons": None, "basis": None}
    return {"interval": limit.interval if asked else None, "comparisons": limit.comparisons, "basis": limit.basis}


def _rate(limit: Threshold | None, asked: bool) -> str:
    if limit is None:
        return "FMR unknown"
    return limit.said if asked else f"FMR at most {limit.target:.2g}, {limit.basis_said}"


def _said(subject: str, score: float, threshold: float, rate: str, match: bool) -> str:
    from pfstore.text import visible

    relation = "at or above" if match else "below"
    decision = "match" if match else "no match"
    return f"{decision}: {visible(subject)}, score {score:.4f}, {relation} {threshold:.4f} ({rate})"
