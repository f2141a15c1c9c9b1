"""How figures look: colours that colour-blind readers tell apart, doubled by dashes and marks; light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath

from pfstore.evaluation.results import Evaluation
from pfstore.evaluation.selecting import is_average
from pfstore.evaluation.wording import target
from pfstore.text import visible

INK, FAINT, GRID, SHADE, PAPER = "#1d2329", "#59636d", "#dfe3e8", "#eef1f4", "#fefefe"
AVERAGE = "#565e66"
SERIES = ("#0b62a4", "#c2410c", "#007a5a", "#93358d", "#936000", "#0b7084", "#b0224f", "#5b55c8")
"""Colours of methods. Contrast to white is at least 4.5."""

DARK = {
    INK: "#e3e7eb", FAINT: "#a3adb7", GRID: "#333b43", SHADE: "#1f262c", PAPER: "#14181c", AVERAGE: "#b3bcc5",
    "#0b62a4": "#66b3f3", "#c2410c": "#ff9460", "#007a5a": "#3ecfa0", "#93358d": "#e291da", "#936000": "#e3b341",
    "#0b7084": "#5fd0e6", "#b0224f": "#ff86a5", "#5b55c8": "#aaa5ff",
}  # fmt: skip
"""What stands for each colour on a dark page; no other colours are drawn."""

_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1.2, 1.2, 1.2)))
_MARKS = "osD^vPX"
_LONGEST_LABEL = 34
_LEGEND_SIZE = 8
# Points that a legend's entry takes besides its label.
_LEGEND_HANDLE = 45
WIDTH = 4.6
"""Inches of every figure."""


@dataclass(frozen=True)
class Style:
    """How one method is drawn in every figure."""

    label: str
    color: str
    dash: Any
    mark: str

    def handle(self) -> Line2D:
        """What the legend shows."""
        return Line2D([], [], **self.line(), marker=self.mark, markersize=4)

    def line(self) -> dict[str, Any]:
        """How a curve is drawn."""
        return {"color": self.color, "linestyle": self.dash, "linewidth": 1.5}

    def point(self) -> dict[str, Any]:
        """How a point with its interval is drawn."""
        return {"color": self.color, "fmt": self.mark, "markersize": 4.5, "elinewidth": 1.4, "capsize": 2.5}


def styles(evaluation: Evaluation) -> dict[str, Style]:
    """Return each method's style by its label; averaging is grey."""
    labels = drawable([method.label for method in evaluation.methods])
    made: dict[str, Style] = {}
    colored = 0
    for number, (method, label) in enumerate(zip(evaluation.methods, labels, strict=True)):
        grey = is_average(method) and not any(style.color == AVERAGE for style in made.values())
        color = AVERAGE if grey else SERIES[colored % len(SERIES)]
        colored += not grey
        made[method.label] = Style(label, color, _DASHES[number % len(_DASHES)], _MARKS[number % len(_MARKS)])
    return made


def drawable(labels: Sequence[str]) -> list[str]:
    """Return labels that a figure can show: of signs in the font, not too long, each once."""
    font = get_font(findfont(FontProperties()))
    made: list[str] = []
    for label in labels:
        shown = shorter("".join(one if _is_in(font, one) else "□" for one in visible(label)))
        same = sum(shown == other.partition("\u2003")[0] for other in made)
        # An em space parts the number from the label, so that no label looks like another with its number.
        made.append(f"{shown}\u2003({same + 1})" if same else shown)
    return made


def _is_in(font: FT2Font, sign: str) -> bool:
    return bool(font.get_char_index(ord(sign)))


def shorter(label: str) -> str:
    """Return a label without its middle, if it is long: labels of files differ at the end."""
    if len(label) <= _LONGEST_LABEL:
        return label
    half = (_LONGEST_LABEL - 1) // 2
    return f"{label[:half]}…{label[-half:]}"


def panels(rows: Sequence[float], legend: Sequence[Style] = ()) -> tuple[Figure, list[Any]]:
    """Make a figure of one column of panels, so many inches high each, with a legend above them."""
    columns = _columns([style.label for style in legend])
    lines = -(-len(legend) // columns)
    height = sum(rows) + 0.17 * lines + (0.1 if legend else 0)
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.04)  # type: ignore[union-attr, call-arg]
    every = figure.subplots(len(rows), 1, squeeze=False, height_ratios=list(rows))[:, 0]
    for axes in every:
        _dress(axes)
    if legend:
        made = figure.legend(
            [style.handle() for style in legend], [style.label for style in legend], loc="outside upper left",
            ncols=columns, frameon=False, fontsize=_LEGEND_SIZE, labelcolor=INK, handlelength=3.2, columnspacing=1.6,
            borderpad=0,
        )  # fmt: skip
        for text in made.get_texts():
            text.set_parse_math(False)
    return figure, list(every)


def _columns(labels: Sequence[str]) -> int:
    """How many columns of these labels the legend can have; it fills one column after the other."""
    widths = [TextPath((0, 0), label, size=_LEGEND_SIZE).get_extents().width + _LEGEND_HANDLE for label in labels]
    for columns in (3, 2):
        split = np.array_split(widths, columns)
        if len(labels) >= columns and sum(part.max() for part in split) < 72 * WIDTH:
            return columns
    return 1


def _dress(axes: Any) -> None:
    axes.set_facecolor(PAPER)
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.tick_params(which="both", colors=FAINT, labelcolor=INK, labelsize=8, width=0.7)
    axes.tick_params(which="minor", length=2)
    for side, spine in axes.spines.items():
        spine.set_color(FAINT)
        spine.set_linewidth(0.7)
        spine.set_visible(side in ("left", "bottom"))


def power(value: float, _: int | None = None) -> str:
    """Return the label of a tick on a log axis. It is no formula: only one thread at a time may set formulas."""
    return target(value)


def name_axes(axes: Any, x: str, y: str) -> None:
    """Write on the axes what they measure."""
    axes.set_xlabel(x, fontsize=8.5, color=INK)
    axes.set_ylabel(y, fontsize=8.5, color=INK)


def head(axes: Any, text: str) -> None:
    """Write a panel's title; signs that the font lacks are replaced."""
    axes.set_title(drawable([text])[0], fontsize=8.5, color=INK, loc="left", parse_math=False, pad=4)


def note(axes: Any, x: float, y: float, text: str, **options: Any) -> None:
    """Write a small remark at a place given in parts of the axes' width and height."""
    axes.text(x, y, text, fontsize=7, color=FAINT, transform=axes.transAxes, parse_math=False, **options)
