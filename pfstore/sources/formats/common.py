"""What several formats need: the extractor's label, a file's bytes, and a subject found in a name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.config import subject_expression
from pfstore.errors import ConfigError, SourceError
from pfstore.features import Floats
from pfstore.sources import pickled
from pfstore.sources.arrays import first_line
from pfstore.sources.assembly import Fault
from pfstore.sources.encodings import Undecodable
from pfstore.sources.encodings.pickles import vector

_MOST_GROWTH = 8
_FREE_BYTES = 2**20
_ROW_BYTES = 64  # that a row takes whatever is in it


def labelled(extractor: str | None, name: str, path: Path) -> str:
    """Return the extractor that the configuration names. Raises ConfigError where it names none."""
    if extractor is None:
        raise ConfigError(f'sources.{name}: {path} does not say what made its features; set extractor = "…"')
    return extractor


def pattern(text: str | None, name: str) -> re.Pattern[str] | None:
    """Return the expression whose first group is a subject, None where there is none. Raises ConfigError."""
    if text is None:
        return None
    try:
        return subject_expression(text)
    except ValueError as error:
        raise ConfigError(f"sources.{name}: subject_pattern {error}") from None


def subject_in(text: str, expression: re.Pattern[str]) -> str:
    """Return what the first group finds in a text, "" where it finds nothing."""
    found = expression.search(text)
    return (found[1] or "") if found else ""


def mapped(path: Path) -> NDArray[np.uint8]:
    """Return the bytes of a file, which are not read before they are used. Raises SourceError."""
    try:
        if path.stat().st_size == 0:  # cannot be mapped
            return np.empty(0, dtype=np.uint8)
        # A slice of a memmap costs ten times that of an array.
        return np.asarray(np.memmap(path, np.uint8, "r"))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {first_line(error)}") from None


def vectors(values: Iterable[Any], size: int) -> list[Floats | Fault]:
    """Return the feature of each unpickled value, or why there is none. size: of the pickle, in bytes.

    Raises pickled.Refused where they take much more memory than the pickle, as one value may be in it many times.
    """
    found: list[Floats | Fault] = []
    room = _MOST_GROWTH * size + _FREE_BYTES
    for value in values:
        room -= max(_ROW_BYTES, 4 * _length(value))
        if room < 0:
            raise _grown(size)
        try:
            found.append(vector(value))
        except Undecodable as error:
            found.append(Fault(error.reason, error.detail))
    return found


def check_texts(values: Iterable[Any], size: int) -> None:
    """Raise pickled.Refused where text takes much more memory than its pickle. size: of the pickle, in bytes."""
    if sum(len(value) for value in values if isinstance(value, str | bytes)) > _MOST_GROWTH * size + _FREE_BYTES:
        raise _grown(size)


def _grown(size: int) -> pickled.Refused:
    return pickled.Refused(f"has {size:,} bytes and claims to hold more than {_MOST_GROWTH} times as many")


def _length(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.size
    return len(value) if isinstance(value, list | tuple) else 1
