"""Tables on stdout, progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import structlog
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pfstore.jobs.summary import Progress as RunProgress
from pfstore.text import visible

Seen = TypeVar("Seen")

LOG_EVERY = 5.0
"""Seconds between two log lines of progress where there is no terminal."""

PIPE_WIDTH = 200
"""Columns of a table that goes into a pipe, where nothing tells the reader's width."""


def stdout() -> Console:
    """Return the console of results; as wide as the terminal, wide in a pipe."""
    # What is printed comes from databases: "[red]" in a key is text, not markup.
    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> RenderableType:
    """Return a table of these columns of the rows; numbers stand to the right.

    Where the terminal is too narrow for whole cells, each row becomes a block of "name  value" lines.
    """
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    heads = [name.replace("_", " ") for name in names]
    columns = zip(heads, *cells, strict=True)
    if sum(max(map(cell_len, column)) + 1 for column in columns) - 1 > stdout().width:
        blocks = [facts(dict(zip(heads, line, strict=True))) for line in cells]
        return stacked(*(part for block in blocks for part in (block, "")))
    made = Table(box=None, pad_edge=False, header_style="bold")
    for head, name in zip(heads, names, strict=True):
        numeric = any(isinstance(row.get(name), int | float) for row in rows)
        made.add_column(head, justify="right" if numeric else "left", overflow="fold")
    for line in cells:
        made.add_row(*map(Text, line))
    return made


def facts(pairs: Mapping[str, Any]) -> RenderableType:
    """Return "name  value" lines."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        made.add_row(name, Text(cell(value)))
    return made


def stacked(*parts: RenderableType) -> RenderableType:
    """Return the parts one below the other."""
    return Group(*parts)


def cell(value: Any) -> str:
    """Return a value as a reader likes it: thousands apart, scores to four places, times to the second."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2g}"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return visible(str(value))


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[RunProgress], None]]:
    """Give an observer of a run: a bar with rate and time left on a terminal, log lines elsewhere."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield _Bar(bar)
    else:
        yield _LogLines()


def now_and_then(told: Callable[[Seen], Mapping[str, Any]]) -> Callable[[Seen], None]:
    """Return an observer that logs what `told` makes of what it sees, every LOG_EVERY seconds."""
    logger, due = log(), time.monotonic() + LOG_EVERY

    def observe(seen: Seen) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + LOG_EVERY
            logger.info("progress", **told(seen))

    return observe


@contextmanager
def looking(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Give an observer that is told what is looked at: a line on a terminal that is gone in the end."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    with Console(stderr=True, highlight=False, markup=False).status("…") as status:
        yield lambda what: status.update(Text(visible(what)))


def _bar() -> Progress:
    parts = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[subjects]:,} subjects"),
        TextColumn("{task.fields[rate]:,.0f} features/s"),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*parts, console=Console(stderr=True), transient=True)


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._start = (time.monotonic(), 0)

    def __call__(self, now: RunProgress) -> None:
        counts = now.counts
        if self._task is None:
            self._start = (time.monotonic(), counts.read)
            self._task = self._bar.add_task("fusing", total=now.planned_features, subjects=0, rate=0.0)
        rate = (counts.read - self._start[1]) / max(time.monotonic() - self._start[0], 1e-3)
        self._bar.update(self._task, completed=counts.read, subjects=counts.seen, rate=rate)


class _LogLines:
    def __init__(self) -> None:
        self._log = log()
        self._due = time.monotonic() + LOG_EVERY
        self._start: tuple[float, int] | None = None

    def __call__(self, now: RunProgress) -> None:
        clock, counts = time.monotonic(), now.counts
        if self._start is None:
            # What a resumed run had done before, and the time of planning, say nothing of the rate.
            self._start = (clock, counts.read)
        elif clock >= self._due:
            self._report(now, clock)

    def _report(self, now: RunProgress, clock: float) -> None:
        assert self._start is not None
        counts = now.counts
        self._due = clock + LOG_EVERY
        rate = (counts.read - self._start[1]) / max(clock - self._start[0], 1e-3)
        left = {"seconds_left": round(max(0, now.planned_features - counts.read) / rate)} if rate else {}
        self._log.info(
            "progress", read=counts.read, planned=now.planned_features, subjects=counts.seen,
            rejected=counts.rejected, features_per_second=round(rate), **left,
        )  # fmt: skip


def log() -> Any:
    """Return the logger of the command line: key=value lines on stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    return structlog.get_logger()
