"""Procrastinate's worker, made to tell the queue what became of a job however long the server is away."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from procrastinate import App, BaseRetryStrategy, RetryDecision
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.job_context import JobContext, JobResult
from procrastinate.jobs import Job, Status
from procrastinate.worker import Worker

from pfstore.jobs.queue import Postponed, back_off


class Returning(BaseRetryStrategy):
    """Lets a job come back that says so itself, and no other."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:  # noqa: ARG002
        """Return when it comes back; None: not at all."""
        return RetryDecision(retry_at=exception.until) if isinstance(exception, Postponed) else None


class PersistentWorker(Worker):
    """A worker whose jobs do not stay "doing" for ever where the server went away as they ended."""

    def __init__(self, app: App, *, log: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self._log = log

    async def serve(self) -> None:
        """Take jobs and do them until `end`. Raises ConnectorException where the server is away for long."""
        await self.run()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """Take no more jobs; may be called in any thread."""
        self.stop()  # type: ignore[no-untyped-call]

    async def _persist_job_status(
        self,
        job: Job,
        status: Status,
        retry_decision: RetryDecision | None,
        context: JobContext,
        job_result: JobResult | None,
    ) -> None:
        failures = 0
        while True:
            try:
                await super()._persist_job_status(job, status, retry_decision, context, job_result)
                return
            except UniqueViolation:
                # It was to come back, but another job of the same key waits already.
                retry_decision = None
            except ConnectorException as error:
                if not isinstance(error.__cause__, psycopg.OperationalError):
                    # Others took it for dead and did something else with it.
                    self._log.warning("job is not ours any more", job=job.id, error=cause(error))
                    return
                failures += 1
                await asyncio.sleep(back_off(failures, first=0.2, most=10.0))


def cause(error: BaseException) -> str:
    """Return what the server or the way to it said, in one line."""
    found = error.__cause__ or error
    return (str(found).splitlines() or [type(found).__name__])[0].strip() or type(found).__name__
