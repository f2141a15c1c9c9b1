"""`pfstore source`: a look at legacy stores."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from pfstore.cli.app import App, Group


@click.group(cls=Group)
def source() -> None:
    """Look at the legacy stores that pfstore.toml names."""


@source.command("list")
@click.pass_obj
def list_(app: App) -> None:
    """List the sources of pfstore.toml.

    Example: pfstore source list
    """
    from pfstore.cli.output import table

    rows = [
        {
            "name": name,
            "reads": one.table or ("query" if one.query else str(one.path)),
            "extractor": one.extractor,
        }
        for name, one in app.config.sources.items()
    ]
    app.show(rows, table(rows, ("name", "reads", "extractor")))


@source.command()
@click.argument("name")
@click.option("--rows", default=1000, show_default=True, type=click.IntRange(min=1), help="How many rows to read.")
@click.pass_obj
def check(app: App, name: str, rows: int) -> None:
    """Read a sample through the mapping and show what it gives.

    Example: pfstore source check hr
    """
    from pfstore.cli.output import facts

    with app.source(name) as opened:
        sample = opened.sample(rows)
        document = {"source": name, "extractor": opened.extractor, **_described(sample)}
    app.show(document, facts(_readable(document)))


def _described(sample: Any) -> dict[str, Any]:
    norms = sorted(sample.norms)
    return {
        "dimension": sample.dimension,
        "read": sample.read,
        "usable": len(norms),
        "rejected": dict(Counter(str(one.reason) for one in sample.rejects).most_common()),
        "subjects": sample.subjects,
        "media": sample.media,
        "norm": {"min": norms[0], "median": norms[len(norms) // 2], "max": norms[-1]} if norms else None,
        "examples": [
            {
                "subject": one.subject,
                "medium": one.medium,
                "row": one.row,
                "reason": one.reason,
                "detail": one.detail,
            }
            for one in sample.rejects[:5]
        ],
    }


def _readable(document: dict[str, Any]) -> dict[str, Any]:
    norm, rejected = document["norm"], document["rejected"]
    shown = {key: value for key, value in document.items() if key not in ("norm", "rejected", "examples")}
    shown["norm"] = norm and f"{norm['min']:.3g} … {norm['median']:.3g} (median) … {norm['max']:.3g}"
    shown["rejected"] = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items()) or 0
    for number, one in enumerate(document["examples"], 1):
        place = f"subject {one['subject']!r}, row {one['row'] or '–'}"
        shown[f"reject {number}"] = f"{place}: {one['reason']} ({one['detail']})"
    return shown
