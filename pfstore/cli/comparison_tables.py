"""The comparison of two versions on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli import output
from pfstore.cli.app import App, plural

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.gallery.agreement import Agreement
    from pfstore.gallery.comparison import Comparison
    from pfstore.gallery.held_out import Figure


def shown(found: Comparison) -> RenderableType:
    """Return a table with a column for each version, and what is told of both."""
    names = ["", f"version_{found.version}"] + ([] if found.against is None else [f"version_{found.against}"])
    rows = [dict(zip(names, line, strict=False)) for line in _lines(found)]
    parts = [output.table(rows, names), ""]
    if found.against is None:
        return output.stacked(*parts, "there is no other active version to compare it with")
    return output.stacked(*parts, output.facts(_both(found)))


def warn(app: App, warnings: Sequence[str]) -> None:
    """Print each warning on a line of stderr, unless asked to be quiet."""
    for warning in () if app.quiet else warnings:
        click.echo(f"pfstore: warning: {warning}", err=True)


def _lines(found: Comparison) -> list[tuple[str, str, str]]:
    """Return what is told of each version: its name, of the new one, of the old one."""
    coverage, held_out, limits = found.coverage, found.held_out, found.thresholds
    lines = [
        ("subjects", coverage.new, coverage.old),
        ("features fused", coverage.features_new, coverage.features_old),
        ("newest template", coverage.newest_new, coverage.newest_old),
        ("thresholds", limits.new, limits.old),
    ]
    told = [(name, output.cell(new), output.cell(old)) for name, new, old in lines]
    if held_out:
        told.append((f"held-out FNMR at FMR {held_out.new.fmr:g}", _figure(held_out.new), _figure(held_out.old)))
    return told


def _figure(one: Figure) -> str:
    interval = "" if one.low is None or one.high is None else f" {one.low:.4f}–{one.high:.4f}"
    return f"{one.fnmr:.4f}{interval}"


def _both(found: Comparison) -> dict[str, Any]:
    """Return what is told of both versions together."""
    coverage, agreement = found.coverage, found.agreement
    more = ", …" if coverage.only_old > len(coverage.lacking) else ""
    keys = f": {', '.join(coverage.lacking)}{more}" if coverage.lacking else ""
    told = {
        "in both": plural(coverage.both, "subject"),
        f"only in version {found.version}": plural(coverage.only_new, "subject"),
        f"only in version {found.against}": f"{plural(coverage.only_old, 'subject')}{keys}",
        "agreement of scores": "too few subjects are in both to tell" if agreement is None else _agreement(agreement),
    }
    if found.held_out is None:
        told["held-out accuracy"] = "the model cards tell none of both at one FMR"
    elif not found.held_out.same_people:
        told["held-out accuracy"] = "perhaps of other people"
    return told


def _agreement(one: Agreement) -> str:
    pearson, spearman = ("none" if value is None else f"{value:.4f}" for value in (one.pearson, one.spearman))
    return (
        f"Pearson {pearson}, Spearman {spearman} over {plural(one.pairs, 'non-mated pair')} of "
        f"{plural(one.subjects, 'subject')}; the same nearest other for {one.nearest:.1%}"
    )
