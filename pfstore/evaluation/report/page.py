"""The HTML page: one file that asks for nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pfstore.evaluation import wording
from pfstore.evaluation.plots.styles import DARK
from pfstore.evaluation.report import captions, grids
from pfstore.evaluation.report.definitions import definitions
from pfstore.evaluation.report.grids import Grid
from pfstore.evaluation.report.summary import summary
from pfstore.evaluation.report.svg import inline
from pfstore.evaluation.results import Evaluation
from pfstore.evaluation.selecting import gallery_names, of_gallery, of_kind, score_kinds
from pfstore.text import visible

VARIABLES = {color: f"--c{number}" for number, color in enumerate(DARK)}
"""The CSS variable of each colour that figures have."""

_KIND_NAMES = {"cohort": "cohort-normalised"}


@dataclass(frozen=True)
class Drawing:
    """A figure of the page. svg: the element. kind: of scores. part: "verification" or "identification"."""

    name: str
    number: int
    title: str
    caption: str
    svg: Markup
    kind: str
    part: str


@dataclass(frozen=True)
class Part:
    """All that the page tells of one kind of scores.

    title: to follow a heading, empty where there is one kind. details: tables for the appendix.
    """

    kind: str
    title: str
    verification: Sequence[Grid]
    identification: Sequence[Grid]
    details: Sequence[Grid]
    drawings: Sequence[Drawing]


def page(evaluation: Evaluation, pictures: Mapping[str, str]) -> str:
    """Return the page. pictures: SVG documents by the names that plots.figures gives."""
    template = _environment().get_template("report.html.j2")
    return template.render(
        evaluation=evaluation,
        paragraphs=summary(evaluation),
        parts=_parts(evaluation, _drawings(evaluation, pictures)),
        acquisition=grids.acquisition(evaluation.acquisition),
        methods=grids.methods(evaluation),
        definitions=definitions(evaluation),
        date=evaluation.settings.get("date"),
        light={name: color for color, name in VARIABLES.items()},
        dark={VARIABLES[color]: dark for color, dark in DARK.items()},
    )


def _parts(evaluation: Evaluation, drawings: Sequence[Drawing]) -> list[Part]:
    made = []
    kinds = score_kinds(evaluation)
    for kind in kinds:
        methods = of_kind(evaluation, kind)
        searched = {name: of_gallery(evaluation, kind, name) for name in gallery_names(evaluation)}
        title = f", {_KIND_NAMES.get(kind, kind)} scores" if len(kinds) > 1 else ""
        verification = [grids.fnmr(methods)]
        identification = [grids.identification(name, found) for name, found in searched.items() if found]
        details = [
            grids.operating_points(methods, title),
            grids.sizes(methods, title),
            *(grids.search_points(name, found, title) for name, found in searched.items() if found),
        ]
        shown = [one for one in drawings if one.kind == kind]
        made.append(Part(kind, title, verification, identification, [one for one in details if one.groups], shown))
    return made


class _Numbers:
    """Numbers tables in the order in which the page shows them."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self, grid: Grid) -> Grid:
        self._last += 1
        return replace(grid, number=self._last)


def _drawings(evaluation: Evaluation, pictures: Mapping[str, str]) -> list[Drawing]:
    made = []
    for number, (full, svg) in enumerate(pictures.items(), start=1):
        name, _, kind = full.partition("-")
        part = "identification" if name in ("cmc", "fpir") else "verification"
        picture = inline(svg, captions.spoken(evaluation, kind, name), VARIABLES)
        caption = captions.caption(evaluation, kind, name)
        made.append(Drawing(full, number, captions.TITLES[name], caption, picture, kind, part))
    return made


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("pfstore.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Labels and facts come from files and databases.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    made.filters |= {"decimal": wording.decimal, "plain": plain}
    made.globals |= {"count": wording.count, "numbered": _Numbers()}
    return made


def plain(value: Any, thousands: bool = False) -> str:
    """Return a fact or setting that is no mapping as text. thousands: whether they stand apart in whole numbers."""
    if value is None:
        return wording.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}" if thousands else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(plain(one, thousands) for one in value)
    return str(value)
