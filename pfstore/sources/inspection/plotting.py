"""A picture of what an inspection found: norms, features per subject, similarity within and between subjects."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pfstore.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pfstore.sources.inspection.inspecting import Finding

SUFFIXES = (".png", ".svg", ".pdf")

MOST_DRAWN = 12
"""Findings in a picture; a database may have a thousand tables that are alike."""

_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "#4a5568"


def check(path: Path) -> None:
    """Raise InputError where a picture cannot be of that kind, ConfigError without matplotlib."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a picture ends in {', '.join(SUFFIXES)}")
    if find_spec("matplotlib") is None:
        raise ConfigError("drawing needs matplotlib: pip install 'pfstore[report]'")


def plot(findings: Sequence[Finding], path: Path) -> None:
    """Draw the first MOST_DRAWN findings into a PNG, SVG or PDF file, a row for each.

    Raises what check raises, and InputError where the file cannot be written.
    """
    check(path)
    from matplotlib.figure import Figure

    drawn = findings[:MOST_DRAWN]
    figure = Figure(figsize=(12, 3.4 * max(1, len(drawn))), layout="constrained")
    rows = figure.subplots(max(1, len(drawn)), 3, squeeze=False)
    for axes, finding in zip(rows, drawn, strict=False):
        _norms(axes[0], finding)
        _per_subject(axes[1], finding)
        _cosines(axes[2], finding)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def _norms(axes: Any, finding: Finding) -> None:
    axes.hist(finding.norms, bins=40, color=_GREY)
    axes.set_title(f"{finding.table.label}.{finding.column}: norms", fontsize=10, parse_math=False)
    axes.set_xlabel("norm of a feature")
    axes.set_ylabel("features in the sample")


def _per_subject(axes: Any, finding: Finding) -> None:
    counts = finding.statistics.counts
    axes.set_title("features per subject", fontsize=10)
    if not counts:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not known: the subject is in another table" if finding.subject else "no subject found",
                  ha="center", va="center", transform=axes.transAxes)  # fmt: skip
        return
    edges = np.unique(np.geomspace(1, max(counts) + 1, 25).astype(int))
    axes.hist(counts, bins=edges if len(edges) > 1 else 1, color=_GREY)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("features")
    axes.set_ylabel("subjects")


def _cosines(axes: Any, finding: Finding) -> None:
    axes.set_title("similarity of two features", fontsize=10)
    if finding.subject is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no subject found", ha="center", va="center", transform=axes.transAxes)
        return
    bins = np.linspace(-1, 1, 81).tolist()
    for scores, color, label in (
        (finding.between, _ORANGE, "of two subjects"),
        (finding.within, _BLUE, "of one subject"),
    ):
        axes.hist(scores, bins=bins, density=True, alpha=0.7, color=color, label=label)
    low = float(np.quantile(finding.between, 0.001))
    axes.set_xlim(min(-0.3, low), 1)
    axes.set_xlabel("cosine")
    axes.set_yticks([])
    axes.legend(frameon=False, fontsize=9)
