"""The jobs of a run: one shard of it, done by whichever worker takes it, and its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pfstore.errors import BusyError, DatabaseError, MappingError, NotFoundError, SourceError
from pfstore.gallery import galleries, runs, undone
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Version
from pfstore.gallery.locking import locked, shared
from pfstore.gallery.runs import Counts
from pfstore.gallery.undone import StoredRun
from pfstore.gallery.writing import staging
from pfstore.jobs import queue, queue_state, schedules, working
from pfstore.jobs.fusing import Fused, ShardFuser
from pfstore.jobs.metrics import Meter
from pfstore.jobs.opened import Models, Sources
from pfstore.jobs.queue import Cancelled, Postponed, back_off
from pfstore.jobs.refresh import TOLERANCE
from pfstore.sources.base import SourceBatch

MOST_FAILURES = 5
"""How often a shard may fail, or its worker die, before it is given up until somebody asks for it again."""

BUSY = 5.0
"""Seconds after which a job asks again whether a command in a terminal still writes the version."""

PATIENCE = 1.0
"""Seconds to wait for the right to write; then the job gives way to others."""

Check = Callable[[], None]
"""Asked between two batches; raises where the job is to be left."""


@dataclass(frozen=True)
class _Watched(ShardFuser):
    """Asks before each batch; what that raises ends the shard, and nothing of it is committed."""

    check: Check

    def fuse(self, batch: SourceBatch, prints: Sequence[bytes], known: Mapping[str, bytes]) -> Fused:
        """Fuse a batch."""
        self.check()
        return super().fuse(batch, prints, known)


class Shards:
    """Does jobs of runs for one worker.

    Whatever happens in one, a shard is written once: its "done" is committed with its templates.
    """

    def __init__(
        self, database: Database, sources: Sources, models: Models, log: Any, meter: Meter, most: int = MOST_FAILURES
    ) -> None:
        self._database = database
        self._sources = sources
        self._models = models
        self._log = log
        self._meter = meter
        self._most = most

    def shard(self, run_id: int, number: int, check: Check) -> None:
        """Do one shard of a run, if it is still to be done, and see whether the run has come to its end.

        Raises Postponed where it is to be tried again, else what went wrong, which is kept with the shard.
        """
        try:
            with self._database.connect() as connection:
                if (found := undone.run(connection, run_id)) is not None:
                    version = _version(connection, found)
                    with shared(connection, version.version_id, version.said, patience=PATIENCE):
                        # Nobody can begin another run meanwhile, beside which this one would do harm.
                        self._do(connection, version, run_id, number, check)
                    self._end(connection, run_id)
        except Exception as error:
            self._failed(run_id, number, error)

    def finish(self, run_id: int) -> None:
        """End a run of which every shard is done, unless that has been done already.

        Raises Postponed where a command in a terminal writes the version, else what went wrong, as ConflictError where
        more templates would go than the run may remove. What will not go well later either is noted with its schedule.
        """
        try:
            with self._database.connect() as connection:
                found = undone.run(connection, run_id)
                if found is None or undone.numbers(connection, run_id):
                    return
                version = _version(connection, found)
                with locked(connection, version.version_id, version.said, patience=PATIENCE):
                    # What was true before the lock need not be so now.
                    if found := undone.run(connection, run_id):
                        self._finish(connection, found, version)
        except BusyError as error:
            raise Postponed(str(error), BUSY) from error
        except Exception as error:
            if not is_transient(error):
                with suppress(DatabaseError), self._database.connect() as connection:
                    schedules.refused(connection, run_id, said(error))
            raise

    def _do(self, connection: Connection, version: Version, run_id: int, number: int, check: Check) -> None:
        started = time.monotonic()
        run, planned = undone.run(connection, run_id), undone.shard(connection, run_id, number)
        if run is None or run.state != "running" or planned is None or planned.done:
            self._log.info("nothing to do", run=run_id, shard=number)
            return
        with self._sources.of(run, version) as source, staging(connection, version, run_id) as writer:
            counts, _ = working.work(
                connection,
                source,
                _Watched(self._models.of(connection, version), version.strategy, check),
                writer,
                [planned],
                marks=run.kind == "refresh" or working.tells_cheaply(source),
            )
        seconds = time.monotonic() - started
        self._meter.shard("done", counts, seconds)
        self._log.info(
            "shard done",
            gallery=run.gallery,
            run=run_id,
            shard=number,
            features=counts.read,
            subjects=counts.seen,
            seconds=round(seconds, 3),
        )

    def _end(self, connection: Connection, run_id: int) -> None:
        found = undone.run(connection, run_id)
        if found is not None and found.state == "running" and not undone.numbers(connection, run_id):
            queue.put(connection, [queue.finish_job(run_id)])

    def _failed(self, run_id: int, number: int, error: Exception) -> None:
        """Keep what went wrong with a shard, unless another worker has done it meanwhile; raise what follows."""
        if isinstance(error, (Postponed, Cancelled)):
            raise error
        told = said(error)
        if isinstance(error, BusyError) and not self._is_done(run_id, number):
            # Whoever writes the version now is likely to do this shard as well.
            self._log.info("shard waits", run=run_id, shard=number, error=told)
            raise Postponed(told, BUSY) from error
        try:
            with self._database.connect() as connection:
                failures = undone.note_failure(connection, run_id, number, told)
                if failures is None:
                    self._log.info("shard done elsewhere", run=run_id, shard=number)
                    self._end(connection, run_id)
                    return
        except DatabaseError as away:
            raise Postponed(said(away), back_off(1)) from error
        again = is_transient(error) and failures < self._most
        self._meter.shard("retried" if again else "failed", Counts(), 0.0)
        seconds = back_off(failures)
        told_too = {"again_in": round(seconds)} if again else {}
        report = self._log.warning if again else self._log.error
        report("shard failed", run=run_id, shard=number, error=told, failures=failures, **told_too)
        if again:
            raise Postponed(told, seconds) from error
        raise error

    def _is_done(self, run_id: int, number: int) -> bool:
        with suppress(DatabaseError), self._database.connect() as connection:
            planned = undone.shard(connection, run_id, number)
            return planned is None or planned.done
        return False

    def _finish(self, connection: Connection, run: StoredRun, version: Version) -> None:
        if run.state == "abandoned" or queue_state.was_done(connection, queue.finish_job(run.run_id).key):
            return
        removed = runs.finish(connection, run.run_id) if run.state == "running" else 0
        [ended] = runs.listed(connection, run_id=run.run_id)
        # What rests on an active version's templates stands while few of them are new.
        tolerance = TOLERANCE if run.kind == "refresh" and version.state == "active" else 0.0
        promote = run.whole and run.kind != "try"
        promoted = working.complete(connection, version, ended.counts, promote=promote, tolerance=tolerance)
        schedules.ended(connection, run.run_id, ended.counts)
        self._meter.succeeded(run.gallery)
        self._log.info(
            "run done",
            gallery=run.gallery,
            run=run.run_id,
            features=ended.counts.read,
            subjects=ended.counts.seen,
            removed=removed,
            promoted=promoted,
        )


def is_transient(error: Exception) -> bool:
    """Tell whether the same may go well later, as after a server or file was away, but not with a wrong mapping."""
    return isinstance(error, (DatabaseError, SourceError, BusyError, OSError)) and not isinstance(error, MappingError)


def said(error: BaseException) -> str:
    """Return an error's kind and words in one line, as they are kept and logged."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]


def _version(connection: Connection, run: StoredRun) -> Version:
    for one in galleries.versions(connection, run.gallery):
        if one.version_id == run.version_id:
            return one
    raise NotFoundError(f"version {run.version} of gallery {run.gallery!r} was dropped meanwhile")
