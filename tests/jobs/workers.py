"""Worker processes for tests: forked from one that has imported everything, so that they start at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from pfstore.config import Config
from pfstore.gallery import models
from pfstore.gallery.database import Connection, Database
from pfstore.jobs import fleet, queue_state
from pfstore.jobs.fleet import Planned
from pfstore.jobs.upkeep import Rhythm
from pfstore.jobs.worker import Options, work
from pfstore.sources import complete_source, open_source

SHARD_FEATURES, BATCH_FEATURES = 25, 10

# Told what to work on, it forks a worker with small shards and a quick pulse and prints its number. A batch takes
# `pause` seconds more than it needs.
PROGRAM = f"""
import json, os, signal, sys, time
from pfstore import config
from pfstore.cli.logs import worker_log
from pfstore.gallery.database import Database
from pfstore.jobs import working
from pfstore.jobs.upkeep import Rhythm
from pfstore.jobs.worker import Options, work
import pfstore.fusion, pfstore.sources.sql, pfstore.gallery.calibration, pfstore.gallery.tuning

working.SHARD_FEATURES, working.BATCH_FEATURES = {SHARD_FEATURES}, {BATCH_FEATURES}
rhythm = Rhythm(heartbeat=0.2, silence=2.0, look=0.5, poll=0.05)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
read = working.read

def worker(folder, uri, log, pause, **options):
    def slowly(*arguments, **more):
        for batch in read(*arguments, **more):
            time.sleep(pause)
            yield batch

    def leave(code):
        log.info("left", code=code)
        os._exit(code)

    working.read = slowly
    os.chdir(folder)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = worker_log("json")
    options = Options(rhythm=rhythm, **options)
    leave(work(Database(uri, "the test database"), config.load(), options, log=log, leave=leave))

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            worker(**json.loads(line))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        os._exit(99)
    print(pid, flush=True)
"""

QUICK = Rhythm(heartbeat=0.2, silence=2.0, look=0.5, poll=0.05)


class Log:
    """Keeps what is logged: level, event and the rest."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **told: Any) -> None:
        """Keep it."""
        self.lines.append(("info", event, told))

    def warning(self, event: str, **told: Any) -> None:
        """Keep it."""
        self.lines.append(("warning", event, told))

    def error(self, event: str, **told: Any) -> None:
        """Keep it."""
        self.lines.append(("error", event, told))

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return what was logged of an event."""
        return [told for _, name, told in self.lines if name == event]


def work_once(database: Database, config: Config, **options: Any) -> Log:
    """Let a worker in this process do every job that may begin, and return its log."""
    log = Log()
    assert work(database, config, Options(once=True, rhythm=QUICK, **options), log=log) == 0
    return log


class Crew:
    """Workers on one database, and their log."""

    def __init__(self, nursery: subprocess.Popen[str], log: Path, **told: Any) -> None:
        self._nursery = nursery
        self._log = log
        self._told = json.dumps(told | {"log": str(log)})
        self._pids: list[int] = []

    def start(self) -> int:
        """Start a worker and return the number of its process."""
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(self._told + "\n")
        self._nursery.stdin.flush()
        self._pids.append(int(self._nursery.stdout.readline()))
        return self._pids[-1]

    def kill(self) -> None:
        """Kill those that are left."""
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            until(partial(is_gone, pid), "a killed worker is gone")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return what all workers have logged of an event."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    @property
    def log(self) -> str:
        """All that they have logged, but for a line that is being written."""
        text = self._log.read_text() if self._log.exists() else ""
        return text[: text.rfind("\n") + 1]


Hire = Callable[..., AbstractContextManager[Crew]]


@contextmanager
def hiring() -> Iterator[Hire]:
    """Give a function that hires a crew for a database and the pfstore.toml of a folder."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as nursery:

        @contextmanager
        def hire(
            uri: str, folder: Path, *, pause: float = 0.0, grace: float = 30.0, cut: float = 15.0
        ) -> Iterator[Crew]:
            options = {"pause": pause, "grace": grace, "cut": cut}
            crew = Crew(nursery, folder / "workers.log", uri=uri, folder=str(folder), **options)
            try:
                yield crew
            finally:
                crew.kill()

        try:
            yield hire
        finally:
            nursery.kill()


def until(holds: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


def has_job(connection: Connection, pid: int) -> bool:
    """Tell whether the worker of this process has a job in hand."""
    return any(one.pid == pid and one.doing for one in queue_state.workers(connection))


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def plan(connection: Connection, config: Config, gallery: str = "staff") -> Planned:
    """Plan the backfill of a gallery of pfstore.toml for workers."""
    named = config.gallery(gallery)
    mapping = config.source(named.source)
    with open_source(mapping, named.source, config.folder) as source:
        return fleet.plan(
            connection,
            source,
            models.load(connection, models.resolve(connection, named.model).digest),
            gallery=gallery,
            source_name=named.source,
            mapping=complete_source(mapping, named.source, config.folder).identity,
        )


def table(uri: str, gallery: str) -> list[tuple[object, ...]]:
    """Return a gallery's templates in the order of their subjects."""
    query = (
        "SELECT subject_id, template::text, features, media, fingerprint FROM pfstore.templates"
        " JOIN pfstore.versions USING (version_id) JOIN pfstore.galleries USING (gallery_id)"
        " WHERE name = %s ORDER BY subject_id"
    )
    with psycopg.connect(uri) as connection:
        return connection.execute(query, (gallery,)).fetchall()


def database_of(uri: str) -> Database:
    """Return a database by its URI, under another name in messages."""
    return Database(uri, "the test database")
