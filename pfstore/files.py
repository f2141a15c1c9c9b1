"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from pfstore.errors import InputError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, in place of one that is there, so that nobody ever sees a part of it. Raises OSError."""
    beside = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def check_csv(path: Path, of: str) -> None:
    """Raise InputError where write_csv could not write, or the name is none of a CSV file.

    Any other file that is there may be dear to its owner, even the store that is read. of: what it holds, in messages.
    """
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: a file of {of} ends in .csv")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} is not there")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} cannot be written to")


def write_csv(path: Path, text: str) -> None:
    """Write the text of a CSV file, whole. Raises InputError."""
    try:
        write_whole(path, text.encode(errors="backslashreplace"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
