"""What workers do not do unasked: remove many, read what was there before; and that they say so."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore import config
from pfstore.config import Config, GalleryConfig, SourceConfig
from pfstore.errors import ConflictError
from pfstore.gallery import galleries, models, runs, undone
from pfstore.gallery.database import Connection, Database
from pfstore.jobs import overview, queue, queue_state, schedules
from pfstore.jobs.backfill import backfill
from pfstore.jobs.metrics import Meter
from pfstore.jobs.opened import Models, Sources
from pfstore.jobs.refreshing import Refreshes
from pfstore.jobs.shards import Shards
from pfstore.sources import complete_source, open_source
from tests.jobs.workers import Log, work_once


class Refreshed:
    """A gallery of pfstore.toml that workers refresh, in this process."""

    def __init__(self, database: Database, connection: Connection, store: Config) -> None:
        self.database, self.connection, self.store = database, connection, store
        self.models = Models("cpu")
        mapping = complete_source(store.source("hr"), "hr", store.folder)
        with open_source(store.source("hr"), "hr", store.folder) as source, database.connect() as own:
            fuser = models.load(own, models.resolve(own, "average").digest)
            backfill(own, source, fuser, gallery="staff", source_name="hr", mapping=mapping.identity)

    def plan(self, schedule: str | None = None) -> int:
        """Plan a refresh, as a worker does."""
        if schedule is not None:
            schedules.run_now(self.connection, self.store, schedule)
            with queue.changing(self.connection):
                self.connection.execute("DELETE FROM procrastinate_jobs")
        Refreshes(self.database, self.store, self.models, Log()).do("staff", schedule, 0)
        return runs.listed(self.connection)[0].run_id

    def size(self) -> int:
        """Count its templates."""
        return galleries.size(self.connection, galleries.version(self.connection, "staff"))


def _legacy(folder: Path, statement: str) -> None:
    with sqlite3.connect(folder / "legacy.db") as legacy:
        legacy.execute(statement)
    legacy.close()


def _shown(connection: Connection, store: Config) -> Any:
    now = connection.execute("SELECT now()").fetchone()
    assert now is not None
    seen = overview.look(connection, store, now[0])
    return seen.runs[0].condition, seen.schedules[0].result


MOST = "(SELECT person FROM (SELECT DISTINCT person FROM faces ORDER BY person) LIMIT 30)"


def test_workers_do_not_end_a_run_that_would_remove_many(
    database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    refreshed = Refreshed(database, connection, store)
    run = refreshed.plan("nightly")
    assert _shown(connection, store)[0] == "waiting"
    _legacy(tmp_path, f"DELETE FROM faces WHERE person IN {MOST}")
    log = work_once(database, store)
    assert refreshed.size() == 40
    said = "ConflictError: 30 of the 40 subjects of version 1 of gallery 'staff' are not in the source any more"
    [told] = log.of("run not ended")
    assert told["run"] == run
    assert told["error"].startswith(said)
    condition, result = _shown(connection, store)
    assert condition == "failed"
    assert result.startswith(f"run {run}: {said}")
    assert connection.execute("SELECT failed FROM pfstore.schedules").fetchone() == (True,)
    assert undone.numbers(connection, run) == []
    assert undone.known_run(connection, run).state == "running"
    assert queue_state.going(connection, galleries.version(connection, "staff").version_id) is None

    connection.execute("UPDATE pfstore.runs SET removals = 1 WHERE run_id = %s", (run,))
    queue.put_shards(connection, run, [])
    work_once(database, store)
    assert (refreshed.size(), undone.known_run(connection, run).state) == (10, "done")
    assert connection.execute("SELECT failed FROM pfstore.schedules").fetchone() == (False,)
    assert _shown(connection, store)[1].startswith("0 written, 10 unchanged, 30 removed")


def test_workers_do_not_make_many_unusable(
    database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    refreshed = Refreshed(database, connection, store)
    run = refreshed.plan("nightly")
    _legacy(tmp_path, f"UPDATE faces SET vec = NULL WHERE person IN {MOST}")
    work_once(database, store)
    assert refreshed.size() >= 20
    failed = undone.failed(connection, run)
    assert {one.failures for one in failed} == {1}
    assert all("have no usable feature any more: is the mapping right?" in one.error for one in failed)
    assert "failed" in _shown(connection, store)[1]


def test_a_schedule_says_how_many_may_vanish(
    database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    refreshed = Refreshed(database, connection, store)
    _legacy(tmp_path, f"DELETE FROM faces WHERE person IN {MOST}")
    with pytest.raises(ConflictError, match="^30 of the 40 subjects"):
        refreshed.plan("nightly")
    with (tmp_path / "pfstore.toml").open("a") as file:
        file.write("removals = 1\n")
    refreshed.store = config.load()
    refreshed.plan("nightly")
    work_once(database, refreshed.store)
    assert refreshed.size() == 10


def test_a_run_reads_no_file_that_was_opened_before_it(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    def write(value: float) -> None:
        subjects = np.array([f"p{n:02}" for n in range(12)])
        features = np.array([[value, n + 1] for n in range(12)], np.float32)
        np.savez(tmp_path / "new.npz", features=features, subject=subjects)
        (tmp_path / "new.npz").replace(tmp_path / "f.npz")

    write(1)
    staff = GalleryConfig(source="hr", model="average")
    store = Config(sources={"hr": SourceConfig(path=tmp_path / "f.npz", extractor="net")}, galleries={"staff": staff})
    refreshed, sources = Refreshed(database, connection, store), Sources(store)
    done = Shards(database, sources, refreshed.models, Log(), Meter())

    def written() -> int:
        run = refreshed.plan()
        for number in undone.numbers(connection, run):
            done.shard(run, number, lambda: None)
        done.finish(run)
        with queue.changing(connection):
            connection.execute("DELETE FROM procrastinate_jobs")
        return runs.listed(connection, run_id=run)[0].counts.written

    assert written() == 0
    write(2)
    assert written() == 12
    sources.close()
