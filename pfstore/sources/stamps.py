"""What a file's system tells of it: whether it may be another, or may have been written to, since one looked."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

from pfstore.errors import SourceError

YOUNG = 3600.0
"""Seconds for which a file's times are not believed: it could be written to again within the same tick of a clock, and
the clock may be a file server's."""


def stamp(paths: Iterable[Path]) -> bytes:
    """Return 16 bytes over name, size, number and times of files, b"" where one was changed just now.

    The time of the last change of status counts as well, which no program can set back. Raises SourceError.
    """
    digest, latest = hashlib.blake2b(digest_size=16), 0.0
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
        told = (path.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        digest.update(repr(told).encode("utf-8", "surrogatepass"))
        latest = max(latest, found.st_mtime, found.st_ctime)
    return b"" if latest > time.time() - YOUNG else digest.digest()
