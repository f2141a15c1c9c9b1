"""The job that refreshes a gallery: it finds out who has changed, and leaves the work to jobs of a run's shards."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

from pfstore.config import Config
from pfstore.errors import BusyError, DatabaseError, NotFoundError
from pfstore.gallery import undone
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Version
from pfstore.gallery.locking import locked
from pfstore.jobs import queue, queue_state, refresh, schedules
from pfstore.jobs.opened import Models
from pfstore.jobs.queue import Postponed, back_off
from pfstore.jobs.refresh import Planned
from pfstore.jobs.shards import MOST_FAILURES, PATIENCE, is_transient, said
from pfstore.sources import complete_source, open_source
from pfstore.sources.base import MarkedSource

BUSY = 30.0
"""Seconds after which a refresh asks again whether another process still writes the version."""


class Refreshes:
    """Plans refreshes for one worker."""

    def __init__(self, database: Database, config: Config, models: Models, log: Any) -> None:
        self._database = database
        self._config = config
        self._models = models
        self._log = log

    def do(self, gallery: str, schedule: str | None, attempts: int) -> None:
        """Plan the refresh of a gallery and put its shards into the queue, unless a run of it is still going.

        attempts: how often the job was begun before. Raises Postponed where it is to be tried again, else what went
        wrong; either is noted with the schedule.
        """
        try:
            with self._database.connect() as connection:
                if schedule is not None:
                    schedules.started(connection, schedule)
                self._refresh(connection, gallery, schedule)
        except Exception as error:
            again = is_transient(error) and (isinstance(error, BusyError) or attempts + 1 < MOST_FAILURES)
            report = self._log.warning if again else self._log.error
            report("refresh failed", gallery=gallery, schedule=schedule, error=said(error), tried_again=again)
            if schedule is not None:
                # It may be the database that is away.
                with suppress(DatabaseError), self._database.connect() as connection:
                    schedules.noted(connection, schedule, said(error), failed=True)
            if again:
                seconds = BUSY if isinstance(error, BusyError) else back_off(attempts + 1)
                raise Postponed(said(error), seconds) from error
            raise

    def _refresh(self, connection: Connection, gallery: str, schedule: str | None) -> None:
        version = refresh.target(connection, gallery)
        if version is None:
            raise NotFoundError(f"gallery {gallery!r} has no version to refresh: run `pfstore backfill {gallery}`")
        with locked(connection, version.version_id, version.said, patience=PATIENCE):
            # Between the shards of a run nobody has the lock.
            if (going := queue_state.going(connection, version.version_id)) is not None:
                self._log.info("refresh left out", gallery=gallery, schedule=schedule, run=going)
                if schedule is not None:
                    schedules.noted(connection, schedule, f"left out: run {going} is still going")
                return
            planned = self._plan(connection, gallery, version, schedule)
            count = queue.put_shards(connection, planned.run_id, undone.numbers(connection, planned.run_id))
        if schedule is not None:
            schedules.planned(connection, schedule, planned.run_id)
        self._log.info("refresh planned", gallery=gallery, schedule=schedule, run=planned.run_id, jobs=count)

    def _plan(self, connection: Connection, gallery: str, version: Version, schedule: str | None) -> Planned:
        name, folder = self._config.gallery(gallery).source, self._config.folder
        mapping = self._config.source(name)
        with open_source(mapping, name, folder) as source:
            refresh.check(source, self._models.of(connection, version), version)
            with source.snapshot() if isinstance(source, MarkedSource) else nullcontext():
                identity = complete_source(mapping, name, folder).identity
                known = self._config.schedules.get(schedule or "")
                removals = known.removals if known else refresh.REMOVALS
                return refresh.plan(connection, source, version, source_name=name, mapping=identity, removals=removals)
