"""Protocol files: CSVs with a header, and lists of names, one a line."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pfstore.config import nearest
from pfstore.errors import InputError
from pfstore.sources.arrays import first_line

_TRUE = frozenset({"true", "t", "yes", "y", "1", "1.0"})
_FALSE = frozenset({"false", "f", "no", "n", "0", "0.0", ""})


@dataclass(frozen=True)
class Sheet:
    """A CSV: the names of its columns, and its rows as text. lines: of each row, its number in the file."""

    path: Path
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]

    def place(self, row: int) -> str:
        """Return where a row is, for a message."""
        return f"{self.path}:{self.lines[row]}"

    def optional(self, *names: str) -> list[str] | None:
        """Return the column that has one of these names, in any case; None where there is none."""
        wanted = {name.lower() for name in names}
        for number, name in enumerate(self.header):
            if name.lower() in wanted:
                return [row[number].strip() for row in self.rows]
        return None

    def column(self, *names: str) -> list[str]:
        """Return the column that has one of these names, in any case. Raises InputError naming the nearest."""
        found = self.optional(*names)
        if found is None:
            others = f" (or {', '.join(names[1:])})" if len(names) > 1 else ""
            raise InputError(f"{self.path}: has no column {names[0]}{others}{nearest(names[0], list(self.header))}")
        return found

    def flags(self, *names: str) -> list[bool]:
        """Return a column of true and false. Raises InputError where one is neither."""
        values = [value.lower() for value in self.column(*names)]
        for row, value in enumerate(values):
            if value not in _TRUE | _FALSE:
                raise InputError(f"{self.place(row)}: {names[0]} is {value!r}, neither true nor false")
        return [value in _TRUE for value in values]


def read_sheet(path: Path) -> Sheet:
    """Read a CSV with a header. Raises InputError where there is no such file, or a row has another length."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            numbered = [(reader.line_num, row) for row in reader if any(row)]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV: {first_line(error)}") from None
    for line, row in numbered:
        if len(row) != len(header):
            raise InputError(f"{path}:{line}: has {len(row)} columns, the header {len(header)}")
    if not numbered:
        raise InputError(f"{path}: has no row below its header")
    return Sheet(path, header, [row for _, row in numbered], [line for line, _ in numbered])


def read_names(path: Path) -> list[str]:
    """Return the lines of a text that are not blank. Raises InputError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a text: {first_line(error)}") from None
    return [line.strip() for line in lines if line.strip()]


def bare(subject: str) -> str:
    """Return a subject without the brackets and quotes of a list of one, as some BRIAR files have it: ['G00123']."""
    listed = re.fullmatch(r"\[\s*(['\"]?)([^'\",]*)\1\s*\]", subject)
    return listed[2].strip() if listed else subject
