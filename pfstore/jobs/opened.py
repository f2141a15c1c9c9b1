"""What a worker keeps between two jobs: open sources, each checked against the plan of its run, and models."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pfstore.config import Config
from pfstore.errors import ConflictError
from pfstore.gallery import models
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.undone import StoredRun
from pfstore.jobs.contracts import plan_of
from pfstore.sources import complete_source, open_source
from pfstore.sources.base import FeatureSource

if TYPE_CHECKING:
    from pfstore.fusion import Fuser

IDLE = 60.0
"""Seconds after which a source that nobody reads is closed: a legacy store has better uses for its connections."""


@dataclass
class _Open:
    source: FeatureSource
    name: str
    run_id: int
    identity: str
    used: float


class Sources:
    """The sources of a pfstore.toml, each opened when it is first read and for one job at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._free: list[_Open] = []
        self._lock = threading.Lock()

    @contextmanager
    def of(self, run: StoredRun, version: Version) -> Iterator[FeatureSource]:
        """Give the source of a run, open; after an error it is closed, as nobody knows in what state it is.

        No run gets one that was opened before it was planned: what files hold is known from then on.

        Raises ConflictError where this pfstore.toml maps it otherwise than the run was planned with, and what opening
        it raises.
        """
        taken = self._take(run.source, run.run_id) or self._opened(run.source, run.run_id)
        try:
            contract = replace(version.contract, extractor=taken.source.extractor)
            if plan_of(contract, run.source, taken.identity) != run.plan:
                raise ConflictError(
                    f"run {run.run_id} was planned with another mapping of source {run.source!r}, or another pfstore, "
                    "than this worker has: give every worker the same pfstore.toml"
                )
            yield taken.source
        except BaseException:
            _close(taken)
            raise
        taken.used = time.monotonic()
        with self._lock:
            self._free.append(taken)

    def close(self, idle: float = 0.0) -> None:
        """Close what nobody has read for so many seconds."""
        before = time.monotonic() - idle
        with self._lock:
            closing = [one for one in self._free if one.used <= before]
            self._free = [one for one in self._free if one.used > before]
        for one in closing:
            _close(one)

    def _take(self, name: str, run_id: int) -> _Open | None:
        with self._lock:
            found = next((one for one in self._free if (one.name, one.run_id) == (name, run_id)), None)
            if found:
                self._free.remove(found)
        return found

    def _opened(self, name: str, run_id: int) -> _Open:
        mapping, folder = self._config.source(name), self._config.folder
        identity = complete_source(mapping, name, folder).identity
        return _Open(open_source(mapping, name, folder).__enter__(), name, run_id, identity, time.monotonic())


class Models:
    """The models of the versions that a worker writes, on one device; the last one used stays."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._kept: tuple[str, Fuser] | None = None
        self._lock = threading.Lock()

    def of(self, connection: Connection, version: Version) -> Fuser:
        """Return the model that makes a version's templates, in the form that does."""
        from pfstore.fusion import compacted
        from pfstore.fusion.devices import placed

        with self._lock:
            if self._kept is None or self._kept[0] != version.model_digest:
                self._kept = version.model_digest, placed(models.load(connection, version.model_digest), self._device)
            fuser = self._kept[1]
        return compacted(fuser) if version.compact else fuser


def _close(one: _Open) -> None:
    # What fails while it is closed is of no interest: nothing is written there.
    with suppress(Exception):
        one.source.__exit__(None, None, None)
