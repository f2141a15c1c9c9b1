"""A limit of time for SQLite's statements, which knows none, and a way for Ctrl-C to end one."""

from __future__ import annotations

import math
import sqlite3
import time

_STEPS = 100_000  # of SQLite's virtual machine between two looks at the clock: some milliseconds


class SqliteClock:
    """Ends statements that run for longer than `timeout` seconds.

    ran_out: whether the last one did. Python hears of Ctrl-C while it looks at the clock; the driver then swallows
    that and ends the statement as well: one that was interrupted and had time left was so by Ctrl-C.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._end = math.inf
        self.ran_out = False

    def watch(self, connection: sqlite3.Connection) -> None:
        """Watch all statements of a connection."""
        connection.set_trace_callback(self._started)
        connection.set_progress_handler(self._is_over, _STEPS)

    def _started(self, statement: str) -> None:
        self._end = time.monotonic() + self._timeout
        # What clears up after a statement does not change how that ended.
        if not statement.startswith("ROLLBACK"):
            self.ran_out = False

    def _is_over(self) -> bool:
        self.ran_out = time.monotonic() > self._end
        return self.ran_out
