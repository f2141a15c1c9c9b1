"""The right to write a version, which one process has, or several who write a shard each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pfstore.errors import BusyError
from pfstore.gallery.database import Connection

LOCK_CLASS = 0x7066  # "pf": the first key of pfstore's advisory locks, the second is the version
LOCK_PATIENCE = 10.0
"""Seconds to wait for a run that was just killed: the server notices when its last statement ends."""


@contextmanager
def locked(connection: Connection, version_id: int, said: str, patience: float | None = None) -> Iterator[None]:
    """Hold the right to write a version; a process that dies gives it up with its connection.

    said: what the version is called in messages. Raises BusyError where another process holds it.
    """
    busy = f"another process is writing {said}: wait for it (`pfstore status` shows how far it is)"
    with held(connection, (LOCK_CLASS, version_id), busy, patience):
        yield


@contextmanager
def shared(connection: Connection, version_id: int, said: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the right to write one shard of a version beside others who do; nobody holds `locked` meanwhile.

    Raises BusyError where somebody holds that.
    """
    busy = f"another process is writing the whole of {said}"
    with held(connection, (LOCK_CLASS, version_id), busy, patience, mode="_shared"):
        yield


@contextmanager
def held(
    connection: Connection,
    key: tuple[int, int],
    busy: str,
    patience: float | None = None,
    *,
    mode: Literal["", "_shared"] = "",
) -> Iterator[None]:
    """Hold an advisory lock. Raises BusyError, saying `busy`, where another process keeps it for so many seconds."""
    deadline = time.monotonic() + (LOCK_PATIENCE if patience is None else patience)
    attempt = f"SELECT pg_try_advisory_lock{mode}(%s, %s)".encode()
    while connection.execute(attempt, key).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise BusyError(busy)
        time.sleep(0.2)
    with released(connection, "SELECT pg_advisory_unlock{}({}, {})".format(mode, *key)):
        yield


@contextmanager
def released(connection: Connection, statement: str) -> Iterator[None]:
    """Give back what the session holds by this statement in the end, or by ending the session."""
    try:
        yield
    except Exception:
        if not connection.closed:
            connection.execute(statement.encode())
        raise
    except BaseException:
        # Ctrl-C may have come in the middle of a statement, after which the connection answers to nothing.
        connection.close()
        raise
    connection.execute(statement.encode())
