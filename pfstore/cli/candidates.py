"""Candidate lists as `pfstore search` prints them."""

from __future__ import annotations

import json
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.gallery.searching import How
    from pfstore.gallery.thresholds import Threshold


class Shown:
    """Prints answers: lines at once, tables and documents when all are there.

    A table is also printed of what was answered before an error; half a document would look like a whole one.
    """

    how: How | None = None
    """How the latest ones were found."""

    def __init__(self, app: App, lines: bool, limit: Threshold | None) -> None:
        self._app, self._lines, self._limit = app, lines, limit
        self._answers: list[dict[str, Any]] = []

    def __enter__(self) -> Shown:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._answers and not self._app.json:
            self.all({})

    def add(self, answer: dict[str, Any]) -> None:
        """Take the answer to one probe."""
        if self._lines:
            click.echo(json.dumps(answer | self._told(), ensure_ascii=False))
        else:
            self._answers.append(answer)

    def all(self, facts: dict[str, Any]) -> None:
        """Print the table, or the document with these facts in front."""
        if not self._lines:
            table = _table(self._answers, self._limit, self.how)
            self._app.show(facts | self._told() | {"probes": self._answers}, table)

    def _told(self) -> dict[str, Any]:
        return {"search": self.how and self.how.as_dict()}


def _table(answers: list[dict[str, Any]], limit: Threshold | None, how: How | None) -> RenderableType:
    from pfstore.cli.output import stacked, table

    none = [{"rank": None, "subject": None, "score": None}]
    rows = [{"probe": one["id"]} | line for one in answers for line in one["candidates"] or none]
    made = table(rows, ("probe", "rank", "subject", "score"))
    limits = [f"at or above {limit.threshold:.4f}: {limit.said}"] if limit else []
    return stacked(made, "", *limits, *([how.said] if how else []))
