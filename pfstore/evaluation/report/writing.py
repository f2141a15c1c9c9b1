"""The report's folder, which appears whole or not at all."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pfstore.errors import ConfigError, InputError
from pfstore.evaluation import plots
from pfstore.evaluation.results import Evaluation
from pfstore.evaluation.tables import csv_text

PAGE, JSON_FILE, CSV_FILE, FIGURES = "report.html", "results.json", "results.csv", "figures"

MARK = '<meta name="generator" content="pfstore evaluation report">'
"""Stands in each page, so that an earlier report is known and may be replaced."""

_MARK_WITHIN = 1000
_DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Report:
    """What was written. page: the HTML file. files: all of them, the page first."""

    folder: Path
    page: Path
    files: Sequence[Path]


def check(folder: Path) -> None:
    """Say what write_report would refuse, before hours are spent.

    Raises ConfigError without matplotlib or Jinja2, InputError where folder is a file, or holds something else
    than an earlier report.
    """
    plots.check()
    if find_spec("jinja2") is None:
        raise ConfigError("a report needs Jinja2: pip install 'pfstore[report]'")
    try:
        refused = folder.exists() and not _is_ours(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from None
    if refused:
        raise InputError(
            f"{folder}: holds something that is no earlier report; choose a folder that is empty or not there"
        )


def write_report(evaluation: Evaluation, folder: Path) -> Report:
    """Write report.html, results.json, results.csv and figures/*.svg and *.png.

    report.html needs no other file and no network. results.json is Evaluation.as_dict, results.csv the rows of
    tables.csv_rows. The folder takes its place when all is written; an earlier report there is replaced. The same
    evaluation gives the same bytes. Raises what check raises, and InputError where the folder cannot be written.
    """
    check(folder)
    from pfstore.evaluation.report.page import page
    from pfstore.evaluation.report.svg import drawn

    with _appearing(folder) as unfinished:
        figures = unfinished / FIGURES
        figures.mkdir()
        pictures = {}
        for name, figure in plots.figures(evaluation).items():
            pictures[name] = drawn(figure, name)
            (figures / f"{name}.svg").write_text(pictures[name], encoding="utf-8", newline="\n")
            figure.set_layout_engine("none")  # what stands where is settled, and costs as much as the drawing
            figure.savefig(figures / f"{name}.png", dpi=_DOTS_PER_INCH)
        (unfinished / PAGE).write_text(page(evaluation, pictures), encoding="utf-8", newline="\n")
        _write_json(evaluation, unfinished / JSON_FILE)
        (unfinished / CSV_FILE).write_bytes(csv_text(evaluation).encode(errors="backslashreplace"))
        written = sorted(path.relative_to(unfinished) for path in unfinished.rglob("*") if path.is_file())
    written.sort(key=lambda path: path != Path(PAGE))
    return Report(folder, folder / PAGE, [folder / path for path in written])


def _write_json(evaluation: Evaluation, path: Path) -> None:
    text = json.dumps(evaluation.as_dict(), allow_nan=False, default=_plain)
    path.write_text(text + "\n", encoding="ascii", newline="\n")


def _plain(value: Any) -> Any:
    """Return a number of numpy, which facts and settings may hold, as Python's."""
    return value.item() if hasattr(value, "item") else str(value)


def _is_ours(folder: Path) -> bool:
    """Whether the folder is empty or holds an earlier report and nothing besides."""
    if not folder.is_dir():
        return False
    there = {path.name for path in folder.iterdir()}
    if not there:
        return True
    if PAGE not in there or not there <= {PAGE, JSON_FILE, CSV_FILE, FIGURES}:
        return False
    with (folder / PAGE).open(encoding="utf-8", errors="replace") as file:
        if MARK not in file.read(_MARK_WITHIN):
            return False
    figures = folder / FIGURES
    return all(path.suffix in (".svg", ".png") for path in figures.iterdir()) if figures.is_dir() else True


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give a folder to write in that takes folder's place when all went well, and vanishes when not."""
    target = folder.resolve()
    tag = uuid.uuid4().hex[:8]
    unfinished, former = (target.with_name(f".{target.name}.{tag}.{end}") for end in ("partial", "former"))
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if target.exists():
            target.rename(former)
        try:
            unfinished.rename(target)
        except OSError:
            if former.exists():
                former.rename(target)
            raise
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
