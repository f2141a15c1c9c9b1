"""`pfstore search`: who is this? (1:N)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import RATE, App, Command, Number

if TYPE_CHECKING:
    from pfstore.gallery.database import Connection
    from pfstore.gallery.galleries import Version
    from pfstore.gallery.thresholds import Kind, Threshold

SECONDS = Number(0, min_open=True)

FRESH = "Ask the primary, which has what was just written, even where [database] has a read_url."


@click.command(cls=Command)
@click.argument("gallery")
@click.option("--probes", metavar="FILE", help="npz, npy, HDF5 or JSON lines; - for JSON lines on stdin, as they come.")
@click.option("--source", metavar="NAME", help="Search for every subject of a source of pfstore.toml instead.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(1, 10_000), help="Candidates per probe.")
@click.option("--threshold", type=Number(-1, 1), help="The least score of a candidate [default: -1].")
@click.option(
    "--fpir", type=RATE, help="The false positive identification rate to keep to: how many strangers find anybody."
)
@click.option("--fmr", type=RATE, help="The false match rate to keep to: how many comparisons with others match.")
@click.option(
    "--among",
    metavar="@FILE|SQL",
    help="Only these subjects: a file of keys, one a line, or a query of one column in the galleries' database.",
)
@click.option("--exact", is_flag=True, help="Compare with every template, even where there is an index.")
@click.option("--deadline", type=SECONDS, metavar="SECONDS", help="Fail where one search takes longer.")
@click.option("--fresh", is_flag=True, help=FRESH)
@click.option("--jsonl", is_flag=True, help="Print one JSON line per probe, as soon as it is answered.")
@click.option("--version", type=int, help="Another version than the active one.")
@click.option("--extractor", help="What made the probes' features; refused where the gallery's is another.")
@click.pass_obj
def search(
    app: App, gallery: str, probes: str | None, source: str | None, top: int, threshold: float | None,
    fpir: float | None, fmr: float | None, among: str | None, exact: bool, deadline: float | None, fresh: bool,
    jsonl: bool, version: int | None, extractor: str | None,
) -> None:  # fmt: skip
    """Identify: print the candidate list of every probe in a file, or of every subject of a source.

    Scores are cosines: higher is nearer. With --fpir or --fmr only candidates at or above the threshold that
    `pfstore calibrate` stored for that rate are listed, and what it rests on is printed. With --jsonl each probe is
    answered as it comes, so that pfstore can stand in a pipe. Where [database] has a read_url, that replica answers;
    -v and --json tell how far it is behind.

    \b
    Example:
      pfstore search staff --probes probes.npz --top 5
      pfstore search staff --probes probes.npz --fpir 0.01
      pfstore search staff --probes probes.npz --json | jq '.probes[].candidates[0]'
      producer | pfstore search staff --probes - --jsonl --deadline 2 | consumer
      pfstore search staff --source visitors --among @on-site.txt
      pfstore search staff --probes probes.npz \\
        --among "SELECT person_id FROM hr.people WHERE site = 4"
    """
    from pfstore.cli import probing
    from pfstore.cli.candidates import Shown
    from pfstore.gallery import deadlines, galleries, models, searching

    if sum(one is not None for one in (threshold, fpir, fmr)) > 1:
        raise click.UsageError("give one of --threshold, --fpir and --fmr")
    probing.checked_use(probes, source, among, extractor)
    with ExitStack() as stack:
        # A file that is not there is said before a server is started.
        given = None if probes is None else probing.of_file(probes, extractor)
        connection = stack.enter_context(app.connect_reading(fresh=fresh))
        with deadlines.limited(connection, deadline, f"gallery {gallery!r}"):
            lag = app.lag(connection, fresh=fresh)
            chosen = galleries.version(connection, gallery, version)
        limit, rate = _limit(app, connection, chosen, fpir, fmr)
        least = limit.threshold if limit else -1.0 if threshold is None else threshold
        fuser = models.fuser_of(connection, chosen)
        only = None if among is None else probing.named(app, connection, chosen, among)
        names = None if only is None else only.names
        if given is None:
            given = stack.enter_context(probing.of_source(app, str(source), chosen))
        with Shown(app, jsonl, limit) as shown:
            for ids, templates in given.templates(fuser, chosen):
                # Asked anew, because whoever answers from a pipe may go on for weeks.
                with deadlines.limited(connection, deadline, f"probe {ids[0]!r}"):
                    shown.how = searching.how(
                        connection, chosen, exact=exact, among=None if names is None else len(names)
                    )
                lists = searching.search(
                    connection, chosen, templates, top=top, threshold=least, among=names, exact=exact,
                    deadline=deadline, names=ids,
                )  # fmt: skip
                for name, candidates in zip(ids, lists, strict=True):
                    shown.add({"id": name, "candidates": [asdict(one) for one in candidates]})
    more = ({"among": only.as_dict()} if only else {}) | ({"rejected": dict(given.rejected)} if source else {})
    shown.all({"gallery": gallery, "version": chosen.number} | lag | rate | more)


def _limit(
    app: App, connection: Connection, chosen: Version, fpir: float | None, fmr: float | None
) -> tuple[Threshold | None, dict[str, Any]]:
    """Return the stored threshold at a rate and what --json tells of it; say so where the gallery has outgrown it."""
    from pfstore.gallery import galleries, thresholds

    if fpir is None and fmr is None:
        return None, {}
    kind: Kind = "fmr" if fpir is None else "fpir"
    limit = thresholds.at(connection, chosen, fmr if fpir is None else fpir, kind)
    told = {"threshold": limit.threshold, kind: limit.target, "interval": limit.interval}
    if kind == "fmr":
        return limit, told | {"comparisons": limit.comparisons, "basis": limit.basis}
    now = galleries.size(connection, chosen)
    if limit.outgrown(now) and not app.quiet:
        click.echo(
            f"pfstore: the gallery had {limit.templates:,} templates when it was calibrated and has {now:,} now, so "
            f"the FPIR is higher than said: run `pfstore calibrate {chosen.gallery}` again",
            err=True,
        )
    sizes = {"calibrated": limit.templates, "now": now}
    return limit, told | {"searches": limit.comparisons, "basis": limit.basis, "templates": sizes}
