"""Trade-off curves and ranks. Trade-off curves are stairs as counted: nothing is interpolated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pfstore.evaluation.plots.styles import SHADE, Style, head, name_axes, note, panels, power, styles
from pfstore.evaluation.results import Curve, Doubles, Evaluation, Identification, MethodResult
from pfstore.evaluation.selecting import gallery_names, of_gallery, of_kind
from pfstore.evaluation.wording import FEW_ERRORS

_LOWEST, _HIGHEST = 1e-12, 0.5
# Points of a curve nearer to each other than this part of a decade, or of the axis, cannot be told apart.
_DECADE, _AXIS = 0.004, 0.001


def det(evaluation: Evaluation, kind: str) -> Figure | None:
    """Draw FNMR against FMR, both on log axes."""
    return _of_comparisons(evaluation, kind, is_det=True)


def roc(evaluation: Evaluation, kind: str) -> Figure | None:
    """Draw the true accept rate, 1 - FNMR, against FMR on a log axis."""
    return _of_comparisons(evaluation, kind, is_det=False)


def _of_comparisons(evaluation: Evaluation, kind: str, *, is_det: bool) -> Figure | None:
    drawn = [
        (method, scored.verification)
        for method, scored in of_kind(evaluation, kind)
        if scored.verification.mated and scored.verification.non_mated and len(scored.verification.curve.x)
    ]
    if not drawn:
        return None
    by_label = styles(evaluation)
    figure, (axes,) = panels([3.1], [by_label[method.label] for method, _ in drawn])
    for method, one in drawn:
        marks = [(at.fmr.value, at.fnmr.value) for at in one.at if at.supported]
        _draw(axes, by_label[method.label], one.curve, marks, is_det=is_det)
    # The remark stands where curves are rare: at low FMR, FNMR is high and TAR low.
    _error_axis(axes, min(one.non_mated for _, one in drawn), "false matches", is_low=is_det)
    values = np.concatenate([one.curve.y[one.curve.x <= _HIGHEST] for _, one in drawn])
    if is_det:
        _log_share(axes, values, min(one.mated for _, one in drawn))
        name_axes(axes, "FMR", "FNMR")
    else:
        _share(axes, 1 - values)
        name_axes(axes, "FMR", "TAR = 1 − FNMR")
    return figure


def fpir(evaluation: Evaluation, kind: str) -> Figure | None:
    """Draw FNIR against FPIR on log axes, a panel for each gallery that has non-mated searches."""
    drawn = [
        (one, searched)
        for one in gallery_names(evaluation)
        if (searched := [pair for pair in of_gallery(evaluation, kind, one) if _has_curve(pair[1])])
    ]
    if not drawn:
        return None
    by_label = styles(evaluation)
    figure, every = panels([2.9] * len(drawn), [by_label[method.label] for method, _ in drawn[0][1]])
    for axes, (gallery, searched) in zip(every, drawn, strict=True):
        _fpir_panel(axes, searched, by_label)
        head(axes, _title(gallery, searched[0][1]))
    return figure


def _fpir_panel(axes: Any, searched: list[tuple[MethodResult, Identification]], by_label: dict[str, Style]) -> None:
    curves = []
    for method, one in searched:
        assert one.curve is not None
        curves.append(one.curve)
        marks = [(at.fpir.value, at.fnir.value) for at in one.at if at.supported]
        _draw(axes, by_label[method.label], one.curve, marks, is_det=True)
    _error_axis(axes, min(one.non_mated for _, one in searched), "false positives", highest=1.0)
    # At FPIR 1 nothing need be returned by a threshold, so FNIR falls to what ranks alone leave.
    values = np.concatenate([curve.y[curve.x < 1] for curve in curves])
    _log_share(axes, values, min(one.mated for _, one in searched))
    name_axes(axes, "FPIR", "FNIR")


def _has_curve(one: Identification) -> bool:
    return one.curve is not None and len(one.curve.x) > 0 and one.mated > 0 and one.non_mated > 0


def cmc(evaluation: Evaluation, kind: str) -> Figure | None:
    """Draw the cumulative match characteristic: the hit rate by rank, a panel for each gallery."""
    drawn = [
        (one, searched)
        for one in gallery_names(evaluation)
        if (searched := [pair for pair in of_gallery(evaluation, kind, one) if pair[1].mated and len(pair[1].cmc)])
    ]
    if not drawn:
        return None
    by_label = styles(evaluation)
    figure, every = panels([2.6] * len(drawn), [by_label[method.label] for method, _ in drawn[0][1]])
    for axes, (gallery, searched) in zip(every, drawn, strict=True):
        for method, one in searched:
            style = by_label[method.label]
            ranks = np.arange(1, len(one.cmc) + 1)
            axes.plot(ranks, one.cmc, **style.line())
            marked = [rank for rank in one.ranks if rank <= len(one.cmc)]
            axes.plot(marked, one.cmc[np.array(marked, dtype=int) - 1], style.mark, color=style.color, markersize=4)
        _rank_axis(axes, max(len(one.cmc) for _, one in searched))
        _share(axes, np.concatenate([one.cmc for _, one in searched]))
        name_axes(axes, "rank", "hit rate")
        head(axes, _title(gallery, searched[0][1]))
    return figure


def _title(gallery: str, one: Identification) -> str:
    return f"{gallery}, N = {one.enrolled:,}"


def _draw(axes: Any, style: Style, curve: Curve, marks: Sequence[tuple[float, float]], *, is_det: bool) -> None:
    x, y = thinned(_with(curve, marks), log_y=is_det)
    values = y if is_det else 1 - y
    axes.plot(x, values, **style.line(), drawstyle="steps-post")
    at = [(one, other if is_det else 1 - other) for one, other in marks if one > 0 and (other > 0 or not is_det)]
    axes.plot([one for one, _ in at], [other for _, other in at], style.mark, color=style.color, markersize=4)


def _with(curve: Curve, marks: Sequence[tuple[float, float]]) -> Curve:
    """Return the curve with points at which there are marks; a curve has not every threshold."""
    more = np.array(marks, dtype=np.float64).reshape(-1, 2)
    unknown = np.full(len(more), np.nan)
    return Curve(
        np.concatenate([curve.thresholds, unknown]),
        np.concatenate([curve.x, more[:, 0]]),
        np.concatenate([curve.y, more[:, 1]]),
    )


def thinned(curve: Curve, *, log_y: bool) -> tuple[Doubles, Doubles]:
    """Return a curve's x and y by rising x, without points that no eye can tell apart.

    Of points with the same x only the lowest is kept: its threshold is the least that reaches x. A rate of 0 has
    no place on a log axis; it becomes one that lies outside the axes.
    """
    order = np.lexsort((curve.y, curve.x))
    order = order[np.concatenate([[True], np.diff(curve.x[order]) > 0])]
    x, y = np.maximum(curve.x[order], _LOWEST), curve.y[order]
    if log_y:
        y = np.maximum(y, _LOWEST)
    places = np.stack([np.log10(x) / _DECADE, np.log10(y) / _DECADE if log_y else y / _AXIS]).round()
    kept = np.ones(len(x), dtype=bool)
    kept[1:-1] = (np.diff(places)[:, :-1] != 0).any(axis=0)
    return x[kept], y[kept]


def _error_axis(axes: Any, trials: int, errors: str, *, highest: float = _HIGHEST, is_low: bool = True) -> None:
    """Make a log axis from the least rate that so many trials can tell; shade where errors are few."""
    lowest = 10.0 ** math.floor(math.log10(1 / trials) + 1e-9)
    axes.set_xscale("log")
    axes.set_xlim(min(lowest, highest / 10), highest)
    axes.xaxis.set_major_formatter(power)
    axes.xaxis.set_minor_formatter(NullFormatter())
    few = min(FEW_ERRORS / trials, highest)
    axes.axvspan(_LOWEST / 10, few, color=SHADE, linewidth=0, zorder=0)
    note(axes, 0.012, 0.02 if is_low else 0.97, f"< {FEW_ERRORS} {errors}", va="bottom" if is_low else "top")


def _log_share(axes: Any, values: Doubles, trials: int) -> None:
    """Make a log axis of error rates that holds these and at least one decade."""
    positive = values[values > 0]
    highest = min(1.0, 1.15 * float(positive.max())) if len(positive) else 1.0
    lowest = max(float(positive.min()) / 1.15, 0.5 / trials) if len(positive) else 0.5 / trials
    axes.set_yscale("log")
    axes.set_ylim(min(lowest, highest / 10), highest)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _share(axes: Any, values: Doubles) -> None:
    """Make an axis of rates up to 1 that starts at a tenth below these."""
    lowest = math.floor(10 * float(np.nanmin(values)) + 1e-9) / 10 if len(values) else 0.0
    lowest = min(lowest, 0.9)
    axes.set_ylim(lowest, 1 + 0.02 * (1 - lowest))


def _rank_axis(axes: Any, last: int) -> None:
    if last > 10:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value == round(value) else ""))
    axes.set_xlim(1 if last > 1 else 0.5, max(last, 1.5))
