"""What a worker does beside its jobs: it says that it lives, looks after the dead, and queues what is due."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pfstore
from pfstore.config import Config
from pfstore.errors import DatabaseError
from pfstore.gallery import undone
from pfstore.gallery.database import Connection, Database
from pfstore.jobs import queue, queue_state, reaping, schedules
from pfstore.jobs.metrics import Meter
from pfstore.jobs.opened import IDLE, Sources
from pfstore.jobs.shards import MOST_FAILURES, said

LEAST, SOON = 0.05, 0.2
"""Seconds of rest between two rounds: always, and where there is something to wait for."""

HOUR = 3600.0


@dataclass(frozen=True)
class Rhythm:
    """How often a worker does what, in seconds.

    heartbeat: it says that it lives. silence: without one, others take it for dead. look: it looks for such others.
    poll: it asks for jobs while there is none. most: how often a job may fail, or its worker die.
    """

    heartbeat: float = 10.0
    silence: float = queue_state.ALIVE
    look: float = 60.0
    poll: float = 1.0
    most: int = MOST_FAILURES


class Upkeep:
    """A thread with a connection of its own, so that jobs and their length do not matter to it.

    worker: gives the number of the worker in the queue, None while it has none. restart: to be called where others
    took it for dead. run: the one run that the worker is there for, else it also sees to the schedules; over: to be
    called when nothing of that is left.
    """

    def __init__(
        self,
        database: Database,
        config: Config,
        rhythm: Rhythm,
        sources: Sources,
        log: Any,
        meter: Meter,
        *,
        worker: Callable[[], int | None],
        restart: Callable[[], None],
        run: int | None,
        over: Callable[[], None],
    ) -> None:
        self._database = database
        self._config = config
        self._rhythm = rhythm
        self._sources = sources
        self._log = log
        self._meter = meter
        self._worker = worker
        self._restart = restart
        self._run = run
        self._over = over
        self._known: int | None = None
        self._dead: int | None = None
        self._reap_at = self._clean_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, name="pfstore-upkeep", daemon=True)

    def __enter__(self) -> Upkeep:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _live(self) -> None:
        away = 0
        while not self._stopped.is_set():
            try:
                with self._database.connect() as connection:
                    self._meter.up(True)
                    if away:
                        # Nobody could say that they live while the database was away.
                        self._reap_at = time.monotonic() + max(self._rhythm.silence, 2 * self._rhythm.heartbeat)
                        self._log.info("the gallery database is back")
                    away = 0
                    while not self._stopped.is_set():
                        self._stopped.wait(self._round(connection))
                    if self._known is not None:
                        reaping.dismiss(connection, [self._known])
            except Exception as error:
                self._meter.up(False)
                away += 1
                if not isinstance(error, DatabaseError):
                    self._log.error("upkeep failed", error=said(error))
                elif away == 1:
                    self._log.warning("the gallery database is away", error=said(error))
                self._stopped.wait(min(queue.back_off(away, first=0.5, most=30.0), self._rhythm.silence / 2))

    def _round(self, connection: Connection) -> float:
        """Do what is to be done now and return the seconds until there is more."""
        now = time.monotonic()
        self._beat(connection)
        self._meter.jobs(queue_state.counts(connection))
        self._sources.close(IDLE)
        if now >= self._reap_at:
            self._reap_at = now + self._rhythm.look
            self._reap(connection)
        if now >= self._clean_at:
            self._clean_at = now + HOUR
            reaping.delete_old(connection)
        # A worker that has just been given its number is introduced soon.
        is_known = self._known is not None and self._known == self._worker()
        rest = min(self._rhythm.heartbeat, self._rhythm.look) if is_known else SOON
        if self._run is not None:
            self._see_to_the_run(connection, self._run)
            return min(rest, 1.0)
        for name in schedules.queue_due(connection, self._config, datetime.now(UTC)):
            self._log.info("schedule due", schedule=name)
        due = schedules.seconds_left(self._config, datetime.now(UTC))
        return max(LEAST, rest if due is None else min(rest, due + LEAST))

    def _beat(self, connection: Connection) -> None:
        number = self._worker()
        if number is None:
            return
        if number != self._known:
            # Of the same process there can be no two.
            if self._known is not None:
                reaping.dismiss(connection, [self._known])
            connection.execute(
                "INSERT INTO pfstore.workers (worker_id, host, pid, pfstore) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (worker_id) DO NOTHING",
                (number, socket.gethostname(), os.getpid(), pfstore.__version__),
            )
            self._known = number
        beat = "UPDATE pfstore_jobs.procrastinate_workers SET last_heartbeat = now() WHERE id = %s"
        is_dead = not connection.execute(beat, (number,)).rowcount and number == self._worker()
        if is_dead and number != self._dead:
            self._dead = number
            self._log.warning("taken for dead", worker=number, seconds=self._rhythm.silence)
            self._restart()

    def _reap(self, connection: Connection) -> None:
        for one in reaping.reap(connection, silence=self._rhythm.silence, most=self._rhythm.most):
            report = self._log.warning if one.comes_back else self._log.error
            report(
                "job came back" if one.comes_back else "job given up", task=one.task, deaths=one.deaths, **one.arguments
            )

    def _see_to_the_run(self, connection: Connection, run_id: int) -> None:
        found = undone.run(connection, run_id)
        if found is None or found.state != "running" or not queue_state.left(connection, queue.of_run(run_id)):
            self._over()
