"""`pfstore search`: who is this? (1:N)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from pfstore.cli.app import App, Command, Number


@click.command(cls=Command)
@click.argument("gallery")
@click.option(
    "--probes", required=True, metavar="FILE", help="npz, npy, HDF5 or JSON lines; - for JSON lines on stdin."
)
@click.option("--top", default=10, show_default=True, type=click.IntRange(1, 1000), help="Candidates per probe.")
@click.option("--threshold", default=-1.0, type=Number(-1, 1), help="The least score of a candidate.")
@click.option("--exact", is_flag=True, help="Compare with every template, even where there is an index.")
@click.option("--version", type=int, help="Another version than the active one.")
@click.option("--extractor", help="What made the probes' features; refused where the gallery's is another.")
@click.pass_obj
def search(
    app: App, gallery: str, probes: str, top: int, threshold: float, exact: bool, version: int | None,
    extractor: str | None,
) -> None:  # fmt: skip
    """Identify: print the candidate list of every probe in a file.

    Scores are cosines: higher is nearer.

    \b
    Example:
      pfstore search staff --probes probes.npz --top 5
      pfstore search staff --probes probes.npz --json | jq '.probes[].candidates[0]'
    """
    from pfstore.gallery import galleries, models, searching
    from pfstore.sources.probes import read_probes

    sets = read_probes(probes)
    with app.connect() as connection:
        chosen = galleries.version(connection, gallery, version)
        fuser = models.load(connection, chosen.model_digest)
        templates = searching.probe_templates(fuser, chosen, sets.features, sets.offsets, extractor or sets.extractor)
        found = list(searching.search(connection, chosen, templates, top=top, threshold=threshold, exact=exact))
    answers = [
        {"id": name, "candidates": [asdict(one) for one in candidates]}
        for name, candidates in zip(sets.ids, found, strict=True)
    ]
    app.show({"gallery": gallery, "version": chosen.number, "probes": answers}, _table(answers))


def _table(answers: list[dict[str, Any]]) -> Any:
    from pfstore.cli.output import table

    none = [{"rank": None, "subject": None, "score": None}]
    rows = [{"probe": one["id"]} | line for one in answers for line in one["candidates"] or none]
    return table(rows, ("probe", "rank", "subject", "score"))
