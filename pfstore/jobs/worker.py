"""A worker process: it takes jobs from the queue until it is told to stop, whatever becomes of the server meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from procrastinate.exceptions import ConnectorException, JobAborted
from procrastinate.job_context import AbortReason, JobContext

from pfstore.config import Config
from pfstore.errors import DatabaseError
from pfstore.gallery import undone
from pfstore.gallery.database import Database
from pfstore.gallery.runs import Counts
from pfstore.jobs import queue, queue_state, reaping
from pfstore.jobs.metrics import Meter
from pfstore.jobs.opened import Models, Sources
from pfstore.jobs.persistent import PersistentWorker, Returning, cause
from pfstore.jobs.queue import Cancelled, Postponed, back_off
from pfstore.jobs.refreshing import Refreshes
from pfstore.jobs.shards import Shards, is_transient, said
from pfstore.jobs.upkeep import Rhythm, Upkeep

if TYPE_CHECKING:
    from procrastinate import App


YEARS = 10 * 365 * 86_400.0


@dataclass(frozen=True)
class Options:
    """How a worker works.

    concurrency: jobs at the same time. grace: seconds for which a job may go on when the worker is to stop.
    cut: seconds that it then has to notice that it is given back, after which the process ends all the same.
    once: end when no job is left that may begin. run: do jobs of that run alone, and end with it.
    device: auto, cpu, cuda or cuda:1, for networks.
    """

    concurrency: int = 1
    grace: float = 30.0
    cut: float = 15.0
    once: bool = False
    run: int | None = None
    device: str = "auto"
    rhythm: Rhythm = field(default_factory=Rhythm)


def work(
    database: Database,
    config: Config,
    options: Options,
    *,
    log: Any,
    meter: Meter | None = None,
    leave: Callable[[int], object] = os._exit,
) -> int:
    """Take jobs from the queue and do them until SIGTERM or Ctrl-C; return the exit code.

    Then the jobs in hand are finished if that takes no longer than the grace, else given back for others to do; a
    second signal does not wait. While the gallery database is away, the worker keeps asking for it.
    log: a structlog logger. leave: ends the process where a job does not notice that it is to end.

    Raises DatabaseError where the database cannot be reached or has no queue, NotFoundError and ConflictError for a run
    that does not exist or is over.
    """
    with database.connect() as connection:
        queue_state.counts(connection)
        if options.run is not None:
            undone.going_run(connection, options.run)
    _share_threads(options.concurrency)
    return asyncio.run(_Process(database, config, options, log, meter or Meter(), leave).run())


class _Process:
    def __init__(
        self,
        database: Database,
        config: Config,
        options: Options,
        log: Any,
        meter: Meter,
        leave: Callable[[int], object],
    ) -> None:
        self._database = database
        self._options = options
        self._log = log
        self._meter = meter
        self._leave = leave
        self._sources = Sources(config)
        models = Models(options.device)
        self._shards = Shards(database, self._sources, models, log, meter, options.rhythm.most)
        self._refreshes = Refreshes(database, config, models, log)
        self._worker: PersistentWorker | None = None
        self._hurry = threading.Event()  # jobs in hand are to be given back
        self._code = 0
        self._config = config

    async def run(self) -> int:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._log.info("worker started", host=socket.gethostname(), pid=os.getpid(), run=self._options.run)
        upkeep = Upkeep(
            self._database,
            self._config,
            self._options.rhythm,
            self._sources,
            self._log,
            self._meter,
            worker=self._number,
            restart=self._restart,
            run=self._options.run,
            over=self._over,
        )
        with self._signals(), upkeep:
            await self._go_on()
        self._sources.close()
        self._log.info("worker stopped")
        return self._code

    async def _go_on(self) -> None:
        """Serve until there is an end, anew after each failure of the database."""
        failures = 0
        while not self._stopped.is_set():
            serving = asyncio.create_task(self._serve())
            stopping = asyncio.create_task(self._stopped.wait())
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if self._worker is None:
                # Nothing is in hand while it connects.
                serving.cancel()
            try:
                with suppress(asyncio.CancelledError):
                    await serving
                failures = 0
                if self._options.once and not await asyncio.to_thread(self._is_more):
                    return
            except (ConnectorException, psycopg.Error, DatabaseError) as error:
                failures += 1
                seconds = back_off(failures, first=0.5, most=15.0)
                self._log.warning("the gallery database is away", error=cause(error), again_in=round(seconds, 1))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), seconds)

    async def _serve(self) -> None:
        options, rhythm = self._options, self._options.rhythm
        await asyncio.to_thread(self._reach)
        app = queue.app(self._database, connections=options.concurrency + 2)
        self._teach(app)
        async with app.open_async():
            self._worker = PersistentWorker(
                app,
                queues=None if options.run is None else [queue.of_run(options.run)],
                concurrency=options.concurrency,
                wait=not options.once,
                fetch_job_polling_interval=rhythm.poll,
                abort_job_polling_interval=2 * rhythm.poll,
                # A connection that listens is one more that can break, and asking costs next to nothing.
                listen_notify=False,
                install_signal_handlers=False,
                # That it lives is for `upkeep` to say, and who is dead for `reaping`.
                update_heartbeat_interval=YEARS,
                stalled_worker_timeout=YEARS,
                log=self._log,
            )
            try:
                await self._worker.serve()
            finally:
                self._worker = None

    def _reach(self) -> None:
        with self._database.connect():
            pass

    def _is_more(self) -> bool:
        name = None if self._options.run is None else queue.of_run(self._options.run)
        with self._database.connect() as connection:
            return queue_state.ready(connection, name)

    def _teach(self, app: App) -> None:
        @app.task(name=queue.SHARD, pass_context=True, retry=Returning())
        def shard(context: JobContext, run: int, shard: int) -> None:
            with self._handling(context):
                self._shards.shard(run, shard, lambda: self._check(context))

        @app.task(name=queue.FINISH, pass_context=True, retry=Returning())
        def finish(context: JobContext, run: int) -> None:
            with self._handling(context):
                self._shards.finish(run)

        @app.task(name=queue.REFRESH, pass_context=True, retry=Returning())
        def refresh(context: JobContext, gallery: str, schedule: str | None) -> None:
            with self._handling(context):
                self._refreshes.do(gallery, schedule, context.job.attempts)

    def _check(self, context: JobContext) -> None:
        if context.abort_reason() == AbortReason.USER_REQUEST:
            raise Cancelled
        if self._hurry.is_set():
            raise Postponed("handed back", 0.0)

    @contextmanager
    def _handling(self, context: JobContext) -> Iterator[None]:
        """Turn what a job raises into what becomes of it."""
        job = context.job
        try:
            self._check(context)
            yield
        except Postponed:
            if self._hurry.is_set():
                self._log.info("handed back", task=job.task_name, **job.task_kwargs)
                if job.task_name == queue.SHARD:
                    self._meter.shard("handed_back", Counts(), 0.0)
            raise
        except Cancelled:
            self._log.info("cancelled", task=job.task_name, **job.task_kwargs)
            raise JobAborted from None
        except Exception as error:
            if job.task_name == queue.FINISH and is_transient(error) and job.attempts + 1 < self._options.rhythm.most:
                raise Postponed(said(error), back_off(job.attempts + 1)) from error
            if job.task_name == queue.FINISH:
                self._log.error("run not ended", error=said(error), **job.task_kwargs)
            raise

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop on signals, where they come to this thread."""
        mine = threading.current_thread() is threading.main_thread()
        before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)} if mine else {}
        for one in before:
            self._loop.add_signal_handler(one, self._told, one)
        try:
            yield
        finally:
            for one, handler in before.items():
                self._loop.remove_signal_handler(one)
                signal.signal(one, handler)

    def _told(self, number: signal.Signals) -> None:
        if self._stopped.is_set() and number == signal.SIGINT:
            self._code = 128 + signal.SIGINT
        if self._stopped.is_set():
            self._hurry.set()
            self._loop.call_later(self._options.cut, self._cut)
            return
        self._log.info("stopping", signal=number.name, grace=self._options.grace)
        self._stop()

    def _stop(self) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._worker is not None:
            self._worker.end()
        self._loop.call_later(self._options.grace, self._hurry.set)
        self._loop.call_later(self._options.grace + self._options.cut, self._cut)

    def _over(self) -> None:
        self._loop.call_soon_threadsafe(self._stop)

    def _number(self) -> int | None:
        worker = self._worker
        return None if worker is None else worker.worker_id

    def _restart(self) -> None:
        if (worker := self._worker) is not None:
            worker.end()

    def _cut(self) -> None:
        """End although a job goes on: nothing of it is committed, and others may begin it at once."""
        number = self._number()
        with suppress(DatabaseError), self._database.connect() as connection:
            if number is not None:
                reaping.hand_back(connection, number)
                reaping.dismiss(connection, [number])
        self._log.warning("ended with jobs in hand", grace=self._options.grace)
        self._leave(self._code)


def _share_threads(concurrency: int) -> None:
    """Give each job its part of the cores."""
    if concurrency > 1:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // concurrency))
