"""`pfstore dedupe`: who is perhaps enrolled twice."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import RATE, App, Command, Number, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from pfstore.gallery.database import Connection
    from pfstore.gallery.duplicates import Cluster, Pair
    from pfstore.gallery.galleries import Version
    from pfstore.gallery.thresholds import Threshold
    from pfstore.jobs.dedupe import Summary

NAMED = 20  # subjects of a cluster in the table


@click.command(cls=Command)
@click.argument("gallery")
@click.option("--threshold", type=Number(-1, 1), help="The least score of a pair.")
@click.option(
    "--fmr",
    type=RATE,
    help="The false match rate to keep to: how many comparisons of different persons give a pair [default: the least "
    "that the version is calibrated for].",
)
@click.option("--version", type=int, help="Another version than the active one.")
@click.option("--clusters", "by_cluster", is_flag=True, help="Put the subjects together whom pairs hold together.")
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write all pairs there."
)
@click.option("--top", default=50, show_default=True, type=click.IntRange(min=1), help="How many to show in the table.")
@click.option("--restart", is_flag=True, help="Compare all again, even what an earlier run has compared.")
@click.pass_obj
def dedupe(
    app: App, gallery: str, threshold: float | None, fmr: float | None, version: int | None, by_cluster: bool,
    csv_file: Path | None, top: int, restart: bool,
) -> None:  # fmt: skip
    """Find subjects who are perhaps one person: all pairs whose templates reach a score.

    Every template is compared with every other one. Pairs stay in the database (pfstore.dedupe_pairs); the same
    command shows them again at once while no template is written, and goes on where it was interrupted or killed.

    At a false match rate, so many of all comparisons are of different persons all the same: in a large gallery these
    can be most of the pairs. Each wants somebody to look at it. A cluster with fewer pairs than its subjects could
    make is a chain, perhaps of several persons.

    \b
    Example:
      pfstore dedupe staff
      pfstore dedupe staff --fmr 1e-6 --csv pairs.csv
      pfstore dedupe staff --threshold 0.6 --clusters --json | jq '.clusters[].subjects'
    """
    from pfstore.cli.calibrate import progress
    from pfstore.files import check_csv, write_csv
    from pfstore.gallery import galleries
    from pfstore.jobs.dedupe import dedupe as run

    if threshold is not None and fmr is not None:
        raise click.UsageError("give one of --threshold and --fmr")
    if csv_file is not None:
        check_csv(csv_file, "pairs")
    with app.connect() as connection, progress(app.quiet) as observer:
        chosen = galleries.version(connection, gallery, version)
        limit = _limit(connection, chosen, fmr) if threshold is None else None
        least = limit.threshold if limit else threshold
        assert least is not None
        try:
            found = run(connection, chosen, least, restart=restart, observer=observer)
        except KeyboardInterrupt:
            click.echo("\nFinished blocks stay: the same command, without --restart, goes on from there.", err=True)
            raise
    if csv_file is not None:
        write_csv(csv_file, _csv(found.pairs))
    clusters = found.clusters() if by_cluster else None
    listed = {} if clusters is None else {"clusters": [one.as_dict() for one in clusters]}
    document = found.as_dict() | {"fmr": limit and limit.target} | listed if app.json else None
    app.show(document, _shown(found, limit, clusters, top))


def _limit(connection: Connection, chosen: Version, fmr: float | None) -> Threshold:
    from pfstore.gallery import duplicates, thresholds

    return duplicates.strictest(connection, chosen) if fmr is None else thresholds.at(connection, chosen, fmr)


def _csv(pairs: Sequence[Pair]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("subject_a", "subject_b", "score"))
    writer.writerows(pairs)
    return text.getvalue()


def _shown(found: Summary, limit: Threshold | None, clusters: Sequence[Cluster] | None, top: int) -> RenderableType:
    from pfstore.cli.output import stacked, table

    if clusters is None:
        rows = [one._asdict() for one in found.pairs[:top]]
        listed, what, count = table(rows, ("subject_a", "subject_b", "score")), "pair", len(found.pairs)
    else:
        lines = [_line(one) for one in clusters[:top]]
        listed, what, count = table(lines, ("subjects", "pairs", "best", "weakest")), "cluster", len(clusters)
    parts: list[RenderableType] = [_head(found), *_rate(found, limit)]
    if count:
        parts += ["", listed]
    if count > top:
        parts += ["", f"{plural(count - top, what)} more: --top shows more, --json all and --csv all pairs"]
    return stacked(*parts)


def _line(one: Cluster) -> dict[str, Any]:
    pairs = f"{one.pairs:,}" if one.pairs == one.possible else f"{one.pairs:,} of {one.possible:,}"
    more = f" … and {len(one.subjects) - NAMED:,} more" if len(one.subjects) > NAMED else ""
    return {
        "subjects": ", ".join(one.subjects[:NAMED]) + more,
        "pairs": pairs,
        "best": one.best,
        "weakest": one.weakest,
    }


def _head(found: Summary) -> str:
    resumed = ", all or part of it compared by an earlier call" if found.resumed else ""
    return (
        f"version {found.version} of gallery {found.gallery}: {plural(len(found.pairs), 'pair')} at or above "
        f"{found.threshold:.4f} in {plural(found.comparisons, 'comparison')} of {plural(found.templates, 'template')}, "
        f"{found.seconds:.1f} s{resumed}"
    )


def _rate(found: Summary, limit: Threshold | None) -> list[str]:
    if limit is None:
        return []
    expected = limit.target * found.comparisons
    return [
        f"threshold: {limit.said}",
        f"At this rate up to about {expected:,.0f} pairs of different persons are to be expected.",
    ]
