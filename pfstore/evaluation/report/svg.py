"""Figures as SVG: the same bytes for the same figure, and fit to stand within a page that may be dark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_ID = re.compile(r'\s+id="([^"]+)"')
_REFERENCE = re.compile(r'((?:url\(|href=")#)([^")]+)')
_OWN_PLACE = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>\s*|<style[^>]*>.*?</style>\s*", re.DOTALL)
_COLOR = re.compile(r"#[0-9a-f]{6}\b")
_PATH = re.compile(r'\bd="([^"]*)"')
_DECIMALS = re.compile(r"-?\d+\.\d+")
_PLACES = re.compile(r'(?<=\b[xy]=")-?\d+\.\d+(?=")')
_VIEW = re.compile(r'viewBox="([^"]+)"')


def drawn(figure: Figure, name: str) -> str:
    """Return a figure as an SVG document without a date.

    Letters are outlines, so that it looks alike on every machine. name: a word that starts every id in it, so that
    several of them can stand in one page.
    """
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    # Comments hold what is written as outlines, which may be any text.
    return _renumbered(_shortened(_COMMENT.sub("", file.getvalue().decode())), name)


def _shortened(svg: str) -> str:
    """Leave out what no eye sees: more than two decimals of a point, and lines within a path."""
    svg = _PATH.sub(lambda found: f'd="{_DECIMALS.sub(_rounded, " ".join(found[1].split()))}"', svg)
    return _PLACES.sub(_rounded, re.sub(r"\n\s*", "\n", svg))


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def _renumbered(svg: str, name: str) -> str:
    # matplotlib makes ids at random unless a setting of the whole process says otherwise.
    referred = {found[2] for found in _REFERENCE.finditer(svg)}
    numbers: dict[str, str] = {}

    def named(one: str) -> str:
        return numbers.setdefault(one, f"{name}-{len(numbers)}")

    svg = _ID.sub(lambda found: f' id="{named(found[1])}"' if found[1] in referred else "", svg)
    return _REFERENCE.sub(lambda found: found[1] + named(found[2]), svg)


def inline(svg: str, label: str, variables: Mapping[str, str]) -> Markup:
    """Return the element to put into a page for an SVG document of drawn.

    label: what a screen reader says. variables: by colour, the CSS variable that stands for it.
    """
    bare = _OWN_PLACE.sub("", svg).replace("xlink:href", "href").strip()
    view = _VIEW.search(bare)
    assert view is not None
    head = f'<svg role="img" aria-label="{escape(label)}" viewBox="{view[1]}">'
    body = _COLOR.sub(lambda found: f"var({variables[found[0]]})", bare[bare.index(">") + 1 :])
    return Markup(head + body)  # noqa: S704  # matplotlib's own output, which holds text as outlines only
