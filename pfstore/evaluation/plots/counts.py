"""Rates with their intervals, and the distributions of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from pfstore.evaluation.plots.styles import FAINT, INK, SERIES, Style, head, name_axes, panels, power, styles
from pfstore.evaluation.results import Doubles, Evaluation, Histogram, MethodResult, Rate, Scored, Verification
from pfstore.evaluation.selecting import bands, of_band, of_kind, reference_rows
from pfstore.evaluation.wording import size, target

_MATED, _NON_MATED = SERIES[0], SERIES[1]


def intervals(evaluation: Evaluation, kind: str) -> Figure | None:
    """Draw FNMR with its interval, methods below each other, a panel for each reference FMR."""
    methods = of_kind(evaluation, kind)
    places = reference_rows(methods[0][1])
    if not places:
        return None
    by_label = styles(evaluation)
    figure, every = panels([0.62 + 0.24 * len(methods)] * len(places))
    for axes, place in zip(every, places, strict=True):
        rates = [scored.verification.at[place].fnmr for _, scored in methods]
        for height, ((method, _), rate) in enumerate(zip(methods, rates, strict=True)):
            style = by_label[method.label]
            axes.errorbar(rate.value, height, xerr=_reach([rate]), **style.point())
        axes.set_yticks(range(len(methods)), [by_label[method.label].label for method, _ in methods], parse_math=False)
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.set_xlim(0, _top(rates))
        axes.grid(visible=False, axis="y")
        name_axes(axes, f"FNMR at FMR ≤ {target(methods[0][1].verification.at[place].target)}", "")
    return figure


def sizes(evaluation: Evaluation, kind: str) -> Figure | None:
    """Draw FNMR by the features in the probe's set, a panel for each reference FMR."""
    methods = [(method, scored) for method, scored in of_kind(evaluation, kind) if scored.verification.by_size]
    places = reference_rows(methods[0][1]) if methods else []
    if not places:
        return None
    by_label = styles(evaluation)
    figure, every = panels([2.3] * len(places), [by_label[method.label] for method, _ in methods])
    for axes, place in zip(every, places, strict=True):
        _size_panel(axes, methods, place, by_label)
    name_axes(every[-1], "features in the probe's set, and mated comparisons", every[-1].get_ylabel())
    return figure


def _size_panel(
    axes: Any, methods: Sequence[tuple[MethodResult, Scored]], place: int, by_label: dict[str, Style]
) -> None:
    every = bands(methods)
    # Methods stand beside each other within a band.
    aside = (np.arange(len(methods)) - (len(methods) - 1) / 2) * min(0.14, 0.7 / len(methods))
    drawn: list[Rate] = []
    for (method, scored), shift in zip(methods, aside, strict=True):
        rates = {number: of_band(scored, band, place) for number, band in enumerate(every)}
        known = {number: rate for number, rate in rates.items() if rate is not None and rate.trials}
        style = by_label[method.label]
        places, heights = np.array(list(known)) + shift, [rate.value for rate in known.values()]
        axes.errorbar(places, heights, yerr=_reach(list(known.values())), **style.point())
        axes.plot(places, heights, **{**style.line(), "linewidth": 0.8})
        drawn += known.values()
    counts = [of_band(methods[0][1], band, place) for band in every]
    below = [f"{size(band)}\n{rate.trials if rate else 0:,}" for band, rate in zip(every, counts, strict=True)]
    axes.set_xticks(range(len(every)), below)
    axes.set_xlim(-0.6, len(every) - 0.4)
    axes.set_ylim(0, _top(drawn))
    axes.grid(visible=False, axis="x")
    name_axes(axes, "", f"FNMR at FMR ≤ {target(methods[0][1].verification.at[place].target)}")


def scores(evaluation: Evaluation, kind: str) -> Figure | None:
    """Draw histograms of mated and non-mated scores, a panel for each method."""
    methods = [(method, scored) for method, scored in of_kind(evaluation, kind) if _has_scores(scored.verification)]
    if not methods:
        return None
    by_label = styles(evaluation)
    figure, every = panels([1.15] * len(methods))
    for axes, (method, scored) in zip(every, methods, strict=True):
        one = scored.verification
        _histogram(axes, one.histogram.edges, one.histogram.mated, _MATED, "-")
        _histogram(axes, one.histogram.edges, one.histogram.non_mated, _NON_MATED, (0, (3, 1)))
        _thresholds(axes, scored)
        _score_axes(axes, one, _range([scored.verification.histogram for _, scored in methods]))
        axes.tick_params(labelbottom=axes is every[-1])
        head(axes, by_label[method.label].label)
    name_axes(every[-1], "comparison score", "")
    figure.supylabel("share of comparisons in a bin", fontsize=8.5, color=INK)
    _legend(figure)
    return figure


def _has_scores(one: Verification) -> bool:
    return bool(one.histogram.mated.sum() + one.histogram.non_mated.sum())


def _histogram(axes: Any, edges: Doubles, numbers: NDArray[np.int64], color: str, dash: Any) -> None:
    total = int(numbers.sum())
    if total:
        shares = numbers / total
        axes.stairs(shares, edges, fill=True, color=color, alpha=0.22, linewidth=0)
        axes.stairs(shares, edges, color=color, linewidth=1.1, linestyle=dash, baseline=None)


def _thresholds(axes: Any, scored: Scored) -> None:
    for place in reference_rows(scored):
        threshold = scored.verification.at[place].threshold
        if np.isfinite(threshold):
            axes.axvline(threshold, color=FAINT, linewidth=0.9, linestyle=(0, (1, 1.5)))


def _range(histograms: Sequence[Histogram]) -> tuple[float, float]:
    """The scores that there are, with a little room."""
    found = [(one.edges[:-1][one.mated + one.non_mated > 0], one.edges[1] - one.edges[0]) for one in histograms]
    low = min(float(edges.min()) for edges, _ in found)
    high = max(float(edges.max() + width) for edges, width in found)
    return low - 0.02 * (high - low), high + 0.02 * (high - low)


def _score_axes(axes: Any, one: Verification, scores: tuple[float, float]) -> None:
    axes.set_yscale("log")
    lowest = min(1 / max(one.mated, 1), 1 / max(one.non_mated, 1))
    axes.set_ylim(max(lowest / 2, 1e-9), 1)
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_major_formatter(power)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    axes.set_xlim(*scores)


def _legend(figure: Figure) -> None:
    handles = [
        Patch(facecolor=(*_rgb(_MATED), 0.22), edgecolor=_MATED),
        Patch(facecolor=(*_rgb(_NON_MATED), 0.22), edgecolor=_NON_MATED, linestyle=(0, (3, 1))),
        Line2D([], [], color=FAINT, linewidth=0.9, linestyle=(0, (1, 1.5))),
    ]
    figure.legend(handles, ["mated", "non-mated", "threshold"], loc="outside upper left", ncols=3, frameon=False,
                  fontsize=8, labelcolor=INK, borderpad=0)  # fmt: skip


def _rgb(color: str) -> tuple[float, float, float]:
    return int(color[1:3], 16) / 255, int(color[3:5], 16) / 255, int(color[5:7], 16) / 255


def _reach(rates: Sequence[Rate]) -> NDArray[np.float64]:
    """[2, n]: how far the intervals reach below and above the rates; nowhere where they are not known."""
    made = np.array([(one.value - one.low, one.high - one.value) for one in rates], dtype=np.float64)
    reach: NDArray[np.float64] = np.nan_to_num(made.reshape(-1, 2).T)
    return reach


def _top(rates: Sequence[Rate]) -> float:
    """Where an axis of rates from 0 ends: beyond all of them and their intervals."""
    highest = max((float(np.nanmax([rate.value, rate.high])) for rate in rates), default=0.0)
    return 1.06 * highest if highest else 1.0
