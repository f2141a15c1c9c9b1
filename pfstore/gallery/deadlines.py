"""Statements that end in time, and that end on the server as well when their client gives up or is gone."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import ceil
from types import TracebackType

import psycopg
from psycopg.pq import TransactionStatus

from pfstore.errors import DeadlineError
from pfstore.gallery.database import Connection

GRACE = 0.2
"""Seconds that a server which is well has for saying itself that it is too late."""

CANCELLING = 0.5
"""Seconds within which a server takes a cancellation."""

PATIENCE = 1.0
"""Seconds that a cancelled statement has to end; then the connection is cut."""

_LONGEST = 2**31 - 1  # milliseconds, of statement_timeout


@contextmanager
def limited(connection: Connection, seconds: float | None, what: str) -> Iterator[None]:
    """Let each statement inside take so many seconds, and all of them no longer; None: any time.

    The server is told the limit and stops by itself. Where it does not answer, the statement is cancelled, and where
    that does nothing the connection is cut and closed, so that nobody waits longer than about two seconds more.
    what: of whom the error speaks. Raises DeadlineError.
    """
    if seconds is None:
        yield
        return
    watchdog = _Watchdog(connection, seconds)
    try:
        with watchdog, _told(connection, seconds):
            yield
    except psycopg.OperationalError as error:
        if not (watchdog.barked or (isinstance(error, psycopg.errors.QueryCanceled) and watchdog.late)):
            raise
        raise DeadlineError(f"{what}: the gallery database gave no answer within {seconds:g} s") from None


def end_with_client(connection: Connection) -> None:
    """Let the server stop a statement within a second when this client dies, where its system can tell."""
    query = (
        "SELECT set_config(name, '1s', false) FROM pg_settings"
        " WHERE name = 'client_connection_check_interval' AND setting = '0'"
    )
    # A server on a system that cannot tell refuses every value but 0.
    with suppress(psycopg.errors.DataError), connection.transaction():
        connection.execute(query)


def free(connection: Connection, over: Callable[[float], object]) -> None:
    """Free another thread from the statement that it waits for: it is cancelled, or else the connection is cut.

    over: waits so many seconds for the other thread's statement to end and tells whether it did.
    """
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=CANCELLING)
    if not over(PATIENCE):
        # psycopg waits on this socket and finds it closed; a duplicate, because libpq closes its own.
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)


@contextmanager
def _told(connection: Connection, seconds: float) -> Iterator[None]:
    query = "SELECT current_setting('statement_timeout'), set_config('statement_timeout', %s, false)"
    row = connection.execute(query, (f"{min(_LONGEST, ceil(1000 * seconds))}ms",)).fetchone()
    assert row is not None
    try:
        yield
    finally:
        # A failed transaction takes the setting back by itself.
        if connection.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS):
            connection.execute("SELECT set_config('statement_timeout', %s, false)", (row[0],))


class _Watchdog:
    """A thread that frees its maker from a connection which does not answer."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        self.barked = False
        self._connection = connection
        self._seconds = seconds
        self._started = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pfstore-deadline", daemon=True)

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() - self._started >= self._seconds

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        # A cancellation on its way would hit the connection's next statement.
        self._thread.join()

    def _watch(self) -> None:
        if self._over.wait(min(self._seconds + GRACE, threading.TIMEOUT_MAX)):
            return
        self.barked = True
        free(self._connection, self._over.wait)
