"""`pfstore source`: a look at legacy stores."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from pfstore.cli.app import App, Group, plural


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
            "reads": one.table or ("query" if one.query else str(one.path or f"preset {one.preset}")),
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
    from pfstore.sources.base import MarkedSource

    with app.source(name) as opened:
        sample = opened.sample(rows)
        changes = opened.marks_by if isinstance(opened, MarkedSource) else "fingerprints"
        document = {"source": name, "extractor": opened.extractor, **_described(sample, changes)}
    app.show(document, facts(_readable(document, rows)))


@source.command()
@click.argument("url")
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be given several times.")
@click.option("--name", default="found", show_default=True, help="What to call the source.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw what was found: PNG, SVG or PDF.")
@click.option("--allow-pickle", is_flag=True, help="Look into pickles too, by an allow-list that runs no code.")
@click.pass_obj
def inspect(app: App, url: str, tables: tuple[str, ...], name: str, plot: Path | None, allow_pickle: bool) -> None:
    """Find features in a database that nobody documented and print a mapping for pfstore.toml.

    Reads alone, a sample of each table. What is printed is TOML; the evidence for each choice, and what was
    weighed and not believed, stands in its comments. ${VARIABLE} in the URL is taken from the environment.

    \b
    Example:
      pfstore source inspect sqlite:///attendance.db
      pfstore source inspect 'mysql://reader:${HR_PASSWORD}@db/hr' --plot hr.png
      pfstore source inspect sqlite:///attendance.db >> pfstore.toml
    """
    from pfstore.cli.output import looking
    from pfstore.config import interpolated
    from pfstore.errors import NotFoundError
    from pfstore.sources import inspection, sql_urls
    from pfstore.sources.inspection import plotting

    if plot is not None:
        plotting.check(plot)
    given = sql_urls.of_argument(url)
    with looking(app.quiet) as observer:
        found = inspection.inspect(
            interpolated(given, "inspect", key="url"), tables=tables, allow_pickle=allow_pickle, observer=observer
        )
    if plot is not None:
        plotting.plot(found.findings, plot)
    store = {"url": sql_urls.shareable(given)}
    app.show_text(inspection.described(found), inspection.report(found, name, store))
    if not found.findings and not found.presets:
        raise NotFoundError(f"nothing that looks like features in {plural(found.tables, 'table')}")


@source.command()
@click.argument("name", required=False)
@click.pass_obj
def presets(app: App, name: str | None) -> None:
    """List the systems whose stores pfstore knows, or show what it knows of one.

    \b
    Example:
      pfstore source presets
      pfstore source presets immich
    """
    from pfstore.cli.output import table
    from pfstore.sources.presets import all_presets, named, shown

    if name is None:
        rows = [
            {"preset": one.name, "system": one.title, "lives on": ", ".join(one.engines) or f"files ({one.format})"}
            for one in all_presets().values()
        ]
        app.show(rows, table(rows, ("preset", "system", "lives on")))
        return
    chosen = named(name)
    app.show_text([one.model_dump(mode="json") for one in chosen], "\n\n".join(map(shown, chosen)))


_CHANGES = {
    "row versions": "told by the versions of rows",
    "change mark": "told by the change mark",
    "file": "told by the files' times",
    "content": "told by digests of all features; a safe change mark would spare reading them",
    "fingerprints": "not told: a refresh reads and compares everything",
}


def _described(sample: Any, changes: str) -> dict[str, Any]:
    norms = sorted(sample.norms)
    return {
        "dimension": sample.dimension,
        "read": sample.read,
        "usable": len(norms),
        "rejected": dict(Counter(str(one.reason) for one in sample.rejects).most_common()),
        "excluded": dict(sample.excluded),
        "subjects": sample.subjects,
        "media": sample.media,
        "changes": changes,
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


def _readable(document: dict[str, Any], rows: int) -> dict[str, Any]:
    norm, rejected = document["norm"], document["rejected"]
    shown = {key: value for key, value in document.items() if key not in ("norm", "rejected", "excluded", "examples")}
    shown["changes"] = _CHANGES[document["changes"]]
    shown["norm"] = norm and f"{norm['min']:.3g} … {norm['median']:.3g} (median) … {norm['max']:.3g}"
    shown["rejected"] = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items()) or 0
    if document["excluded"]:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in document["excluded"].items())
        shown["excluded"] = f"{causes} (of the first {rows:,} rows)"
    for number, one in enumerate(document["examples"], 1):
        place = f"subject {one['subject']!r}, row {one['row'] or '–'}"
        shown[f"reject {number}"] = f"{place}: {one['reason']} ({one['detail']})"
    return shown
