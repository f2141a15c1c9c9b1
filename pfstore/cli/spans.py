"""Spans of whole numbers on the command line."""

from __future__ import annotations

from typing import Any

import click


class Span(click.ParamType[tuple[int, int]]):
    """Whole numbers from one to another: "1-3", or "2" for "2-2"."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read the two numbers."""
        if isinstance(value, tuple):
            return value
        first, _, last = str(value).partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            self.fail(f"{value!r} is no span like 1-3", param, ctx)
        return int(first), int(last or first)
