"""Where the time of a job goes: stages, each timed where its work is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

STAGES = {
    "planning": None,
    "waiting": "reading",
    "decoding": "reading",
    "checking": "checking",
    "fusing": "fusing",
    "writing": "writing",
    "finishing": None,
}
"""The stages of a backfill in their order, and which thread does each; None: before or after all threads.

waiting: for the source's rows. checking: the fingerprints that tell whether a subject has changed.
"""


class Stopwatch:
    """Adds up the seconds spent in each stage, those of a stage within another only to the inner one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    def enter(self, name: str) -> None:
        """Begin a stage; what is running is interrupted."""
        self._lap()
        self._running.append(name)

    def leave(self) -> None:
        """End the innermost stage; what it interrupted goes on."""
        self._lap()
        self._running.pop()

    def _lap(self) -> None:
        now = time.perf_counter()
        if self._running:
            name = self._running[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


@dataclass(frozen=True)
class Profile:
    """Where the time of a job went: the seconds busy in each stage, of STAGES; the job's wall time; features read.

    Stages of several threads overlap, so that their seconds may add up to more than the wall time.
    """

    seconds: Mapping[str, float]
    wall: float
    features: int

    @classmethod
    def of(cls, watches: Iterable[Stopwatch], wall: float, features: int) -> Profile:
        """Put together what the threads of a job measured."""
        total: dict[str, float] = {}
        for watch in watches:
            for name, seconds in watch.seconds.items():
                total[name] = total.get(name, 0.0) + seconds
        return cls({name: total.get(name, 0.0) for name in STAGES}, wall, features)

    @property
    def limit(self) -> str:
        """The longest stage of the thread that was busy longest: what would have to be faster."""
        threads: dict[str, float] = {}
        for name, thread in STAGES.items():
            if thread is not None:
                threads[thread] = threads.get(thread, 0.0) + self.seconds[name]
        busiest = max(threads, key=lambda thread: threads[thread])
        return max((name for name, thread in STAGES.items() if thread == busiest), key=lambda name: self.seconds[name])

    def rate(self, name: str) -> float | None:
        """Return the features per second that a stage alone would do; None where it did nothing."""
        seconds = self.seconds[name]
        return self.features / seconds if seconds and self.features else None

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        stages = {name: round(seconds, 4) for name, seconds in self.seconds.items()}
        return {"stages": stages, "wall": round(self.wall, 4), "features": self.features, "limit": self.limit}


_watch: ContextVar[Stopwatch | None] = ContextVar("pfstore_stopwatch", default=None)


@contextmanager
def measured(watch: Stopwatch | None = None) -> Iterator[Stopwatch]:
    """Time the stages of this thread, with a stopwatch of its own or this one, for as long as the context lasts."""
    watch = watch or Stopwatch()
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count what happens within to a stage, where anybody measures; else it costs next to nothing."""
    watch = _watch.get()
    if watch is None:
        yield
        return
    watch.enter(name)
    try:
        yield
    finally:
        watch.leave()
