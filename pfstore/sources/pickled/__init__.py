"""Pickled lists, dicts, numpy arrays and pandas frames, read without running them.

A pickle is a program, so none is ever run, nor is Python's unpickler used. What a pickle may ask for by name is on a
list, and is answered by stand-ins: they take bytes and a type of value and give values. No function of numpy, of
pandas or of anyone else is ever called because a pickle says so.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pfstore.errors import SourceError
from pfstore.sources.arrays import first_line
from pfstore.sources.pickled import arrays, frames
from pfstore.sources.pickled.frames import Frame
from pfstore.sources.pickled.machine import Machine
from pfstore.sources.pickled.standins import Damaged, Name, Refused, Unreadable

__all__ = ["MOST_BYTES", "Damaged", "Frame", "Refused", "Unreadable", "load", "read"]

MOST_BYTES = 2**30
"""Bytes of the largest pickle that is read: the objects in it take several times as much memory."""

_LONGEST_NAME = 200


def load(data: bytes) -> Any:
    """Return the value of a pickle, of any protocol.

    Lists, tuples, dicts (with text, bytes or whole numbers for keys), text, bytes, numbers and None come as they are;
    numpy's arrays of numbers, text or objects as read-only arrays, its scalars as Python's; a pandas DataFrame as a
    Frame. What else may be part of a frame, as a date, comes as an object without content.

    Raises Damaged where it is no whole pickle, Refused where it asks for anything else or for too much memory.
    """
    return Machine(data, _find).run()


def read(path: Path) -> Any:
    """Return the value of a file's pickle, as load does.

    Raises Unreadable where load does and where the file is too large, SourceError where it cannot be read at all.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise Refused(f"has {size:,} bytes, of which at most {MOST_BYTES:,} are read")
        data = path.read_bytes()
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {first_line(error)}") from None
    return load(data)


@lru_cache(1024)  # a pickle may ask for one name again and again
def _find(module: str, name: str) -> Name:
    make = arrays.NAMES.get((module, name)) or frames.find(module, name)
    text = f"{module}.{name}"
    if make is None or len(text) > _LONGEST_NAME:
        raise Refused(f"asks for {text!r:.100}")
    return Name(text, make)
