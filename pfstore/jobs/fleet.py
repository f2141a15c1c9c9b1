"""A backfill by several processes: one plans it, workers on this machine do it, and any others help."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pfstore import errors
from pfstore.errors import ConflictError, DatabaseError, PfstoreError
from pfstore.gallery import galleries, runs, undone
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Strategy, Version
from pfstore.gallery.locking import locked
from pfstore.jobs import queue, queue_state, working
from pfstore.jobs.contracts import contract_of, form, plan_of
from pfstore.jobs.summary import Observer, Progress, Summary
from pfstore.sources.base import FeatureSource
from pfstore.stages import Profile

if TYPE_CHECKING:
    from pfstore.fusion import Fuser

LOOK = 0.3
"""Seconds between two looks at how far the run is."""

PATIENCE = 60.0
"""Seconds in which workers that are told to stop have to end; then they are killed."""


@dataclass(frozen=True)
class Planned:
    """A run whose shards are in the queue. resumed: it was begun before."""

    run_id: int
    version: Version
    resumed: bool


def plan(
    connection: Connection,
    source: FeatureSource,
    fuser: Fuser,
    *,
    gallery: str,
    source_name: str,
    mapping: str,
    strategy: Strategy | None = None,
    compact: bool = False,
    restart: bool = False,
) -> Planned:
    """Plan a backfill, or take up one that was interrupted, and put what is left of it into the queue for workers.

    What failed before is tried again. The parameters, and what is raised, are those of `backfill.backfill`, and
    ConflictError where another run of the version has jobs in the queue: the end of one would undo some of the other.
    """
    fuser = form(fuser, compact)
    contract = contract_of(source, fuser, strategy)
    version = galleries.ensure(connection, gallery, contract, fuser.blocks)
    digest = plan_of(contract, source_name, mapping)
    with locked(connection, version.version_id, version.said):
        run_id = None if restart else runs.resumable(connection, version, "backfill", digest)
        resumed = run_id is not None
        _refuse_another(connection, version, run_id, restart)
        if run_id is None:
            shards = source.shards(working.SHARD_FEATURES)
            run_id = runs.start(connection, version, kind="backfill", source=source_name, plan=digest, shards=shards)
        undone.forgive(connection, run_id)
        queue.put_shards(connection, run_id, undone.numbers(connection, run_id))
    return Planned(run_id, version, resumed)


def _refuse_another(connection: Connection, version: Version, run_id: int | None, restart: bool) -> None:
    going = queue_state.going(connection, version.version_id, other_than=run_id)
    # One of the same kind is given up where another begins.
    if going is not None and not (restart and undone.known_run(connection, going).kind == "backfill"):
        raise ConflictError(
            f"run {going} of {version.said} is still going: wait for it, or `pfstore run cancel {going}`"
        )


def carry_out(
    database: Database,
    planned: Planned,
    command: Sequence[str],
    workers: int,
    *,
    environment: Mapping[str, str] | None = None,
    observer: Observer = lambda _: None,
) -> Summary:
    """Start so many workers for a run and wait until it is done.

    command: that starts a worker, to which `--run` is added. environment: for it, beside this process's own.

    Raises the error of a shard that failed for good, once no other is left to do, or of the workers where all of them
    ended; what is done stays. After Ctrl-C the workers are told to stop and the run's jobs leave the queue.
    """
    started = time.monotonic()
    with database.connect() as connection:
        active = galleries.active_number(connection, planned.version.gallery)
        before = undone.standing(connection, planned.run_id).counts
        try:
            with _workers([*command, "--run", str(planned.run_id)], workers, environment or {}) as processes:
                _wait(connection, planned.run_id, processes, observer)
        except BaseException:
            # Ctrl-C may have come in the middle of a statement, after which that connection answers to nothing.
            with suppress(DatabaseError), database.connect() as another:
                queue.cancel(another, planned.run_id)
            raise
        return _summary(connection, planned, active, before.read, time.monotonic() - started)


@contextmanager
def _workers(
    command: Sequence[str], count: int, environment: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start workers, and stop those that are left in the end."""
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
    threads = {"OMP_NUM_THREADS": str(max(1, (cores or 1) // count))}
    env = {**threads, **os.environ, **environment}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL))  # noqa: PERF401, S603
        yield processes
    finally:
        _end(processes)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for one in processes:
        if one.poll() is None:
            one.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    for one in processes:
        try:
            one.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()


def _wait(
    connection: Connection, run_id: int, processes: Sequence[subprocess.Popen[bytes]], observer: Observer
) -> None:
    """Wait for the end of a run. Raises where it does not come."""
    while True:
        # In this order: a run whose last job is over before it is seen to be done is done.
        left = queue_state.left(connection, queue.of_run(run_id))
        ended = [one.poll() for one in processes]
        found, standing = undone.known_run(connection, run_id), undone.standing(connection, run_id)
        observer(Progress(standing.counts, standing.planned_features, standing.planned_subjects))
        # The job that ends a run still makes it ready for searches.
        if found.state == "done" and (not left or None not in ended):
            return
        if found.state not in ("running", "done"):
            raise ConflictError(f"run {run_id} was cancelled; what is done stays")
        if not left:
            raise _failed(connection, run_id, standing.shards)
        if None not in ended:
            raise _ended(run_id, next((code for code in ended if code), 0))
        time.sleep(LOOK)


def _failed(connection: Connection, run_id: int, shards: int) -> PfstoreError:
    failed = undone.failed(connection, run_id)
    if not failed:
        return ConflictError(f"the jobs of run {run_id} were taken out of the queue; what is done stays")
    name, _, words = failed[0].error.partition(": ")
    kind = getattr(errors, name, PfstoreError)
    return _error(
        kind.exit_code,
        f"{len(failed):,} of {shards:,} shards of run {run_id} failed, the first as {words}; "
        f"`pfstore run show {run_id}` lists them, and `pfstore run retry {run_id}` tries them again",
    )


def _ended(run_id: int, code: int) -> PfstoreError:
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return _error(code, f"all workers of run {run_id} ended before it did ({how}); what is done stays")


def _error(code: int, message: str) -> PfstoreError:
    """Return the error that has this exit code."""
    kinds = {kind.exit_code: kind for kind in PfstoreError.__subclasses__()}
    return kinds.get(code, PfstoreError)(message)


def _summary(connection: Connection, planned: Planned, active: int | None, before: int, wall: float) -> Summary:
    [run] = runs.listed(connection, run_id=planned.run_id)
    now = galleries.active_number(connection, run.gallery)
    return Summary(
        planned.run_id,
        run.gallery,
        run.version,
        planned.resumed,
        run.counts,
        runs.reasons(connection, planned.run_id),
        run.excluded,
        now == run.version and active != now,
        now,
        Profile.of([], wall, run.counts.read - before),
    )
