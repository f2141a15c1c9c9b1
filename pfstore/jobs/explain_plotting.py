"""A picture of an explained template: each frame's share, overall and by block, and how it agrees with the others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import InputError
from pfstore.sources.inspection.plotting import check
from pfstore.text import visible

if TYPE_CHECKING:
    from pfstore.jobs.explaining import ExplainedTemplate

__all__ = ["check", "plot"]

MOST_COLUMNS = 1000
"""Columns of the picture; of more frames, consecutive ones share a column."""

_BLUE, _ORANGE, _GREY, _BAND = "#2b6cb0", "#c05621", "#4a5568", "#edf2f7"
_LEAST_SHADE = 0.01  # of an equal share: all below has the lightest colour
_FEW = 150  # columns that are wide enough for gaps and large marks
_LEAST_SEPARATED = 0.008  # of the width: between narrower media a line would hide them
_LABEL_LENGTH = 22
_LABEL_SPACE = 0.0145  # of the width, between two names of media that stand upright
_LETTER = 0.0075  # of the width, that a letter takes

Values = NDArray[np.float64]


class _Columns:
    """Frames as columns of the picture: one each, or some consecutive ones together, which then never leave a gap."""

    def __init__(self, frames: int) -> None:
        self.count = min(frames, MOST_COLUMNS)
        self._starts = np.arange(self.count) * frames // self.count
        self._frames = frames

    @property
    def single(self) -> bool:
        """Whether each column is one frame."""
        return self.count == self._frames

    def sums(self, values: Values) -> Values:
        """[..., columns], the sums of [..., frames]."""
        return np.asarray(np.add.reduceat(values, self._starts, axis=-1))

    def any(self, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[columns], whether a flag ([frames]) is set."""
        return np.asarray(np.logical_or.reduceat(flags, self._starts))

    def lowest(self, values: Values) -> Values:
        """[columns], the least of the values ([frames]), NaN left out."""
        return np.asarray(np.fmin.reduceat(values, self._starts))

    def place(self, frame: Values) -> Values:
        """Return where frames are, from 0 to the number of columns."""
        return np.asarray(frame * (self.count / self._frames))


def plot(found: ExplainedTemplate, path: Path) -> None:
    """Draw an explanation into a PNG, SVG or PDF file.

    Raises InputError where a picture cannot be of that kind or the file not be written, ConfigError without
    matplotlib.
    """
    check(path)
    from matplotlib.figure import Figure

    columns = _Columns(len(found.rows))
    blocks = len(found.explanation.weights)
    figure = Figure(figsize=(12, 6.2 + 0.25 * blocks), layout="constrained")
    ratios = [3, 0.7 + 0.35 * blocks, 2.4]
    bars, heat, cosines = figure.subplots(3, 1, sharex=True, height_ratios=ratios)
    figure.suptitle(_title(found, columns), fontsize=11, parse_math=False)
    _shares(bars, found, columns)
    _heat(figure, heat, found, columns)
    _agreement(cosines, found, columns)
    _media(heat, (bars, cosines), found, columns)
    try:
        with warnings.catch_warnings():
            # A name in a script that the font has not shows as boxes.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(path, dpi=120)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def _title(found: ExplainedTemplate, columns: _Columns) -> str:
    told, version = found.explanation, found.version
    frames, media = len(found.rows), len(found.media)
    counted = f"{frames:,} frame{'s' * (frames != 1)} in {media:,} medi{'a' if media != 1 else 'um'}"
    packed = "" if columns.single else f" ({frames / columns.count:.3g} in each column)"
    return (
        f"{_short(found.subject, 60)} in {version.gallery}, version {version.number}: {counted}{packed}, "
        f"{told.effective_frames:,.1f} effective"
    )


def _shares(axes: Any, found: ExplainedTemplate, columns: _Columns) -> None:
    told = found.explanation
    shares = 100 * columns.sums(told.overall)
    # A column of many frames is not an outlier because one of them is.
    outliers = columns.any(told.outliers) & columns.single
    places = np.arange(columns.count) + 0.5
    width = 0.9 if columns.count <= _FEW else 1.0
    axes.bar(places, shares, width, color=np.where(outliers, _ORANGE, _BLUE), linewidth=0)
    equal = 100 / columns.count
    axes.axhline(equal, color=_GREY, linewidth=1, linestyle="--", label="equal share", zorder=3)
    top = max(shares.max(), equal) * 1.15
    if outliers.any():
        above = shares[outliers] + 0.03 * top
        size = 26 if columns.count <= _FEW else 16
        axes.scatter(places[outliers], above, size, marker="v", color=_ORANGE, label="outlier", zorder=4, clip_on=False)
    axes.set_ylim(0, top)
    axes.set_ylabel("share of the\ntemplate in %", fontsize=9)
    _legend(axes)


def _heat(figure: Any, axes: Any, found: ExplainedTemplate, columns: _Columns) -> None:
    from matplotlib.colors import LogNorm

    told = found.explanation
    ratios = columns.sums(told.shares) * columns.count
    scale = LogNorm(_LEAST_SHADE, max(10.0, float(ratios.max())), clip=True)
    blocks = len(ratios)
    shades = axes.pcolormesh(
        np.arange(columns.count + 1), np.arange(blocks + 1), ratios.clip(_LEAST_SHADE), norm=scale, cmap="Blues",
        rasterized=True,
    )  # fmt: skip
    axes.invert_yaxis()
    names = ["all"] if told.experts is None else [f"expert {one}" for one in told.experts]
    axes.set_yticks(np.arange(blocks) + 0.5, names, fontsize=8)
    bar = figure.colorbar(shades, ax=axes, pad=0.01, aspect=8 + 2 * blocks)
    bar.set_label("times the\nequal share", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.minorticks_off()


def _agreement(axes: Any, found: ExplainedTemplate, columns: _Columns) -> None:
    told = found.explanation
    cosines, outliers = columns.lowest(told.cosines), columns.any(told.outliers)
    places = np.arange(columns.count) + 0.5
    size = 22 if columns.count <= _FEW else 7
    axes.scatter(places[~outliers], cosines[~outliers], size, color=_BLUE, linewidth=0)
    if outliers.any():
        axes.scatter(places[outliers], cosines[outliers], size + 8, color=_ORANGE, linewidth=0, label="outlier")
    if (alike := columns.any(told.alike >= 0)).any():
        axes.scatter(
            places[alike], cosines[alike], size + 30, facecolor="none", edgecolor=_GREY, marker="s",
            linewidth=0.8, label="same values as an earlier frame",
        )  # fmt: skip
    if told.limit is not None:
        axes.axhline(told.limit, color=_ORANGE, linewidth=1, linestyle="--", label="limit of outliers")
    if np.isnan(cosines).all():
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no other frame to compare with", ha="center", va="center", transform=axes.transAxes)
    axes.set_ylabel(f"{'' if columns.single else 'lowest '}cosine to the\nmean of the others", fontsize=9)
    _legend(axes)


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.99), borderaxespad=0)


def _media(heat: Any, others: tuple[Any, ...], found: ExplainedTemplate, columns: _Columns) -> None:
    """Set the media apart, and name those that there is room for."""
    edges = columns.place(found.explanation.media_offsets.astype(np.float64))
    wide = np.diff(edges) > _LEAST_SEPARATED * columns.count
    for edge in edges[1:-1][wide[:-1] & wide[1:]]:
        heat.axvline(edge, color="white", linewidth=1.2)
    for axes in others:
        axes.set_xlim(0, columns.count)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        for first, last in zip(edges[1:-1:2], edges[2::2], strict=False):
            axes.axvspan(first, last, color=_BAND, linewidth=0, zorder=0)
    for axes in (heat, *others):
        axes.tick_params(axis="x", length=0)
    bottom = others[-1]
    named = _named(edges / columns.count)
    names = [_short(found.media[number]) for number in named]
    widths = np.diff(edges)[named] / columns.count
    flat = all(_LETTER * (len(name) + 1) <= width for name, width in zip(names, widths, strict=True))
    centres = (edges[:-1] + edges[1:])[named] / 2
    bottom.set_xticks(centres, names, fontsize=8, rotation=0 if flat else 90, parse_math=False)
    bottom.set_xlabel("frames by medium" if any(found.media) else "frames", fontsize=9)


def _named(edges: Values) -> list[int]:
    """Choose the media to name, the widest first, so that names do not touch; edges ([M+1]) run from 0 to 1."""
    centres = (edges[:-1] + edges[1:]) / 2
    taken: list[int] = []
    for number in np.argsort(-np.diff(edges), kind="stable").tolist():
        if all(abs(centres[number] - centres[other]) >= _LABEL_SPACE for other in taken):
            taken.append(number)
    return sorted(taken)


def _short(text: str, length: int = _LABEL_LENGTH) -> str:
    shown = visible(text)
    return shown if len(shown) <= length else f"…{shown[1 - length :]}"
