"""Files that appear whole or not at all."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, in place of one that is there, so that nobody ever sees a part of it. Raises OSError."""
    beside = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
