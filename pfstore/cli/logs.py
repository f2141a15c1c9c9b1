"""The log of a worker: one line an event on stderr, with the same keys wherever they occur."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

KEYS = (
    "timestamp",
    "level",
    "event",
    "gallery",
    "schedule",
    "run",
    "shard",
    "features",
    "subjects",
    "seconds",
    "error",
)
"""The order of keys; others follow."""

SAID = ("job_error", "job_error_retry", "job_aborted", "poll_jobs_to_abort_error")
"""What became of a job, and that the database is away, as procrastinate calls it."""


def worker_log(form: Literal["json", "text"], *, quiet: bool = False) -> Any:
    """Return a logger. quiet: warnings and errors alone."""
    render = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if form == "json"
        else structlog.processors.LogfmtRenderer(key_order=KEYS[:3], sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _ordered,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    log = structlog.get_logger()
    for name in ("procrastinate", "asyncio"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        logger.handlers, logger.propagate = [_Bridge(log)], False
    # What the pool says of a server that is away, the worker says itself.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    return log


def _ordered(_logger: object, _method: str, event: Any) -> Any:
    known = {key: event[key] for key in KEYS if key in event}
    return known | {key: value for key, value in event.items() if key not in known}


class _Bridge(logging.Handler):
    """Gives what libraries log the form of our log, but for what the worker logs itself."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log one line, without a traceback."""
        if getattr(record, "action", "") in SAID:
            return
        error = record.exc_info[1] if record.exc_info else None
        told = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"} if error else {}
        self._log.log(record.levelno, " ".join(record.getMessage().split()), library=record.name, **told)
