"""`pfstore calibrate`: which score means a match, and how sure that is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import RATE, App, Command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.gallery.calibration import Calibration, Probes
    from pfstore.gallery.database import Connection
    from pfstore.gallery.galleries import Version
    from pfstore.gallery.thresholds import Threshold

SAMPLE = 3000


@click.command(cls=Command)
@click.argument("gallery")
@click.option(
    "--fmr",
    multiple=True,
    type=RATE,
    metavar="RATE",
    help="A false match rate (1:1) to keep to; may be given several times "
    "[default: those of 0.1 … 0.000001 that the comparisons support].",
)
@click.option(
    "--fpir",
    multiple=True,
    type=RATE,
    metavar="RATE",
    help="A false positive identification rate (1:N); several times [default: those of 0.1, 0.01, 0.003].",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Compare the templates of N subjects with all [default: {SAMPLE}].",
)
@click.option("--all", "everybody", is_flag=True, help="Compare all templates with all: every pair.")
@click.option(
    "--probes",
    metavar="FILE",
    help="Compare these probes instead; npz, npy, HDF5 or JSON lines, ids naming the subjects.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which subjects are in the sample.")
@click.option("--version", type=int, help="Another version than the active one.")
@click.option("--extractor", help="What made the probes' features; refused where the gallery's is another.")
@click.pass_obj
def calibrate(
    app: App, gallery: str, fmr: tuple[float, ...], fpir: tuple[float, ...], sample: int | None, everybody: bool,
    probes: str | None, seed: int, version: int | None, extractor: str | None,
) -> None:  # fmt: skip
    """Find the thresholds at which false matches keep to given rates, from non-mated comparisons.

    They are stored with the version, instead of those it has, each with its count and its interval, and serve
    `verify --fmr`, `search --fmr` and `search --fpir`. A rate is refused where not even 30 errors can be expected, and
    so are comparisons of fewer than 30 persons.

    Probes are what is compared in use, so prefer --probes: of people like those who will be searched for. The id of a
    probe whose subject is in the gallery must be that subject's key, so that it is compared with the others only.
    Without probes, the gallery's own templates stand in for them.

    \b
    Example:
      pfstore calibrate staff
      pfstore calibrate staff --probes probes.npz --fmr 0.001 --fpir 0.01
      pfstore calibrate staff --all --fmr 1e-6
    """
    from pfstore.gallery import calibration, galleries

    if extractor is not None and probes is None:
        raise click.UsageError("--extractor is for --probes; without probes it would do nothing")
    if sum((sample is not None, everybody, probes is not None)) > 1:
        raise click.UsageError("give one of --sample, --all and --probes: probes are all compared with all")
    with app.connect() as connection, progress(app.quiet) as observer:
        chosen = galleries.version(connection, gallery, version)
        found = calibration.calibrate(
            connection,
            chosen,
            fmr=fmr or None,
            fpir=fpir or None,
            sample=None if everybody else sample or SAMPLE,
            probes=fused(connection, chosen, probes, extractor) if probes else None,
            seed=seed,
            observer=observer,
        )
    if probes and not found.mated and not app.quiet:
        click.echo(
            "pfstore: no probe has the id of a subject of the gallery, so all are taken for strangers; where some show "
            "its subjects, thresholds are too high until those subjects' keys are their ids",
            err=True,
        )
    app.show(found.as_dict(), _shown(found))


def rows(known: list[Threshold]) -> list[dict[str, Any]]:
    """Return thresholds as lines of a table (see COLUMNS)."""
    return [
        {
            "rate": one.kind.upper(),
            "at_most": f"{one.target:.2g}",
            "threshold": one.threshold,
            "95_%_interval": one.interval and f"{one.interval[0]:.3g} … {one.interval[1]:.3g}",
            "of": f"{one.comparisons:,} {'searches' if one.kind == 'fpir' else 'comparisons'}",
        }
        for one in known
    ]


COLUMNS = ("rate", "at_most", "threshold", "95_%_interval", "of")


def fused(connection: Connection, version: Version, file: str, extractor: str | None) -> Probes:
    """Read a file of probes and fuse them for a version. extractor: what is said of them; else what the file says."""
    from pfstore.gallery import models, searching
    from pfstore.gallery.calibration import Probes
    from pfstore.sources.probes import read_probes

    sets = read_probes(file)
    fuser = models.fuser_of(connection, version)
    label = extractor or sets.extractor
    return Probes(sets.ids, searching.probe_templates(fuser, version, sets.features, sets.offsets, label))


def _shown(found: Calibration) -> RenderableType:
    from pfstore.cli.output import stacked, table

    head = f"version {found.version} of gallery {found.gallery}: {found.basis}, {found.seconds:.1f} s"
    return stacked(head, "", table(rows(list(found.thresholds)), COLUMNS))


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[float], None]]:
    """Give an observer of a part done: a bar on a terminal, log lines elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    from pfstore.cli.output import now_and_then

    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("comparing", total=1.0)
            yield lambda part: bar.update(task, completed=part)
    else:
        started = time.monotonic()
        yield now_and_then(
            lambda part: {
                "compared": f"{part:.0%}",
                "seconds_left": round((time.monotonic() - started) * (1 - part) / max(part, 1e-9)),
            }
        )
