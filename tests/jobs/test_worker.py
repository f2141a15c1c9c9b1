"""A worker: it does each shard once, keeps what fails and why, comes back where that helps, and stops when told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from procrastinate.exceptions import ConnectorException
from procrastinate.worker import Worker

from pfstore.config import Config
from pfstore.errors import ConfigError, ConflictError, NotFoundError
from pfstore.gallery import galleries, runs, undone
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.locking import locked, shared
from pfstore.jobs import queue, queue_state, refreshing, shards, steering, working
from pfstore.jobs.metrics import Prometheus
from pfstore.jobs.queue import Postponed
from pfstore.jobs.worker import Options, work
from tests.jobs import workers
from tests.jobs.workers import QUICK, Hire, Log, work_once


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be tried again is so at once."""
    for module in (shards, refreshing):
        monkeypatch.setattr(module, "back_off", lambda _, **__: 0.0)


def _state(connection: Connection, run: int) -> str:
    return undone.known_run(connection, run).state


def test_a_run_is_done_and_promoted(database: Database, connection: Connection, store: Config) -> None:
    planned = workers.plan(connection, store)
    log = work_once(database, store)
    standing = undone.standing(connection, planned.run_id)
    assert standing.shards > 5
    assert standing.undone == 0
    assert [run.state for run in runs.listed(connection)] == ["done"]
    assert [one.state for one in galleries.versions(connection, "staff")] == ["active"]
    assert standing.counts.written == 40
    done = log.of("shard done")
    assert sorted(one["shard"] for one in done) == list(range(standing.shards))
    assert sum(one["features"] for one in done) == standing.counts.read
    assert sum(one["subjects"] for one in done) == 40
    [end] = log.of("run done")
    assert (end["run"], end["gallery"], end["promoted"]) == (planned.run_id, "staff", True)
    assert queue_state.counts(connection)["succeeded"] == standing.shards + 1
    assert queue_state.workers(connection) == []
    assert work_once(database, store).of("shard done") == []


def test_several_at_a_time(database: Database, connection: Connection, store: Config) -> None:
    planned = workers.plan(connection, store)
    work_once(database, store, concurrency=3)
    assert _state(connection, planned.run_id) == "done"
    assert undone.standing(connection, planned.run_id).counts.written == 40


def test_planning_again_adds_nothing(database: Database, connection: Connection, store: Config) -> None:
    first = workers.plan(connection, store)
    jobs = queue_state.counts(connection)["todo"]
    again = workers.plan(connection, store)
    assert (again.run_id, again.resumed) == (first.run_id, True)
    assert queue_state.counts(connection)["todo"] == jobs


def test_a_worker_for_one_run(database: Database, connection: Connection, store: Config) -> None:
    planned = workers.plan(connection, store)
    queue.put(connection, [queue.shard_job(99, 0)])
    options = Options(run=planned.run_id, rhythm=QUICK)
    assert work(database, store, options, log=Log()) == 0
    assert _state(connection, planned.run_id) == "done"
    assert queue_state.counts(connection)["todo"] == 1
    with pytest.raises(ConflictError, match="is over"):
        work(database, store, options, log=Log())
    with pytest.raises(NotFoundError, match="there is no run 99"):
        work(database, store, Options(run=99), log=Log())


def test_a_source_that_is_away_is_tried_again(
    database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    planned = workers.plan(connection, store)
    shutil.move(tmp_path / "legacy.db", tmp_path / "away.db")
    log = work_once(database, store)
    failed = undone.failed(connection, planned.run_id)
    assert len(failed) == undone.standing(connection, planned.run_id).shards
    assert {one.failures for one in failed} == {shards.MOST_FAILURES}
    assert all("there is no SQLite file" in one.error for one in failed)
    assert failed[0].error.startswith("SourceError: source hr")
    assert _state(connection, planned.run_id) == "running"
    assert queue_state.counts(connection)["failed"] == len(failed)
    levels = [level for level, event, told in log.lines if event == "shard failed" and told["shard"] == 0]
    assert levels == ["warning"] * (shards.MOST_FAILURES - 1) + ["error"]

    shutil.move(tmp_path / "away.db", tmp_path / "legacy.db")
    assert steering.retry(connection, planned.run_id, 3) == 1
    assert [one["shard"] for one in work_once(database, store).of("shard done")] == [3]
    assert _state(connection, planned.run_id) == "running"
    assert steering.retry(connection, planned.run_id) == len(failed) - 1
    work_once(database, store)
    assert _state(connection, planned.run_id) == "done"
    assert undone.standing(connection, planned.run_id).counts.written == 40


def test_a_shard_that_fails_leaves_the_others_alone(
    database: Database, connection: Connection, store: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, read = workers.plan(connection, store), working.read
    fails = undone.shard(connection, planned.run_id, 2)
    assert fails is not None

    def reading(source: Any, range_: Any, *rest: Any, **options: Any) -> Any:
        if range_ == fails.range:
            raise ConfigError("this one cannot be read")
        return read(source, range_, *rest, **options)

    monkeypatch.setattr(working, "read", reading)
    log = work_once(database, store)
    [failed] = undone.failed(connection, planned.run_id)
    assert (failed.number, failed.failures) == (2, 1), "a mistake is not tried again"
    assert failed.error == "ConfigError: this one cannot be read"
    assert undone.standing(connection, planned.run_id).undone == 1
    assert len(log.of("shard failed")) == 1


def test_a_worker_with_another_mapping(
    database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    from pfstore import config

    planned = workers.plan(connection, store)
    text = (tmp_path / "pfstore.toml").read_text()
    (tmp_path / "other.toml").write_text(text.replace('table = "faces"', 'table = "faces"\nwhere = "id > 3"'))
    work_once(database, config.load(tmp_path / "other.toml"))
    failed = undone.failed(connection, planned.run_id)
    assert {one.failures for one in failed} == {1}
    assert "was planned with another mapping of source 'hr'" in failed[0].error
    assert f"run {planned.run_id}" in failed[0].error
    assert undone.standing(connection, planned.run_id).done == 0


def test_a_shard_waits_for_a_command_in_a_terminal(
    database: Database, connection: Connection, store: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PATIENCE", 0.0)
    monkeypatch.setattr(shards, "BUSY", 0.0)
    planned = workers.plan(connection, store)
    version = planned.version
    done = shards.Shards(database, *_kept(store), Log(), _meter())
    with locked(connection, version.version_id, version.said), pytest.raises(Postponed, match="BusyError"):
        done.shard(planned.run_id, 0, lambda: None)
    assert undone.failed(connection, planned.run_id) == []
    with shared(connection, version.version_id, version.said):
        done.shard(planned.run_id, 0, lambda: None)
    assert undone.standing(connection, planned.run_id).done == 1


def test_a_shard_sees_that_another_run_has_begun(
    database: Database, connection: Connection, store: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its templates would pass for older ones than those of the new run, which removes such in its end."""
    planned, log, version_ = workers.plan(connection, store), Log(), shards._version

    def late(*arguments: Any) -> Any:
        steering.cancel(connection, planned.run_id)
        return version_(*arguments)

    monkeypatch.setattr(shards, "_version", late)
    shards.Shards(database, *_kept(store), log, _meter()).shard(planned.run_id, 0, lambda: None)
    assert log.of("nothing to do") == [{"run": planned.run_id, "shard": 0}]
    assert undone.standing(connection, planned.run_id).done == 0


def test_the_end_waits_for_shards_in_hand(
    database: Database, connection: Connection, store: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PATIENCE", 0.0)
    planned = workers.plan(connection, store)
    done = shards.Shards(database, *_kept(store), Log(), _meter())
    for number in undone.numbers(connection, planned.run_id):
        done.shard(planned.run_id, number, lambda: None)
    with (
        shared(connection, planned.version.version_id, planned.version.said),
        pytest.raises(Postponed, match="another process is writing"),
    ):
        done.finish(planned.run_id)
    done.finish(planned.run_id)
    assert _state(connection, planned.run_id) == "done"


def test_a_shard_that_another_has_done_meanwhile(
    database: Database, connection: Connection, store: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a worker was taken for dead: whoever is second leaves no trace, whichever way it finds out."""
    planned, log = workers.plan(connection, store), Log()
    done = shards.Shards(database, *_kept(store), log, _meter())
    entered: list[bool] = []
    work_ = working.work

    def late(*arguments: Any, **options: Any) -> Any:
        if not entered:
            entered.append(True)
            done.shard(planned.run_id, 0, lambda: None)
        return work_(*arguments, **options)

    monkeypatch.setattr(working, "work", late)
    done.shard(planned.run_id, 0, lambda: None)
    assert len(log.of("shard done")) == 1
    assert len(log.of("shard done elsewhere")) == 1
    assert undone.failed(connection, planned.run_id) == []
    done.shard(planned.run_id, 0, lambda: None)
    assert len(log.of("shard done")) == 1
    assert undone.standing(connection, planned.run_id).done == 1


def test_a_run_that_ends_twice_ends_once(database: Database, connection: Connection, store: Config) -> None:
    planned = workers.plan(connection, store)
    log = work_once(database, store)
    queue.put(connection, [queue.finish_job(planned.run_id)])
    again = work_once(database, store)
    assert len(log.of("run done")) == 1
    assert again.of("run done") == []


def test_a_worker_that_died_between_the_last_shard_and_the_end(
    database: Database, connection: Connection, store: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = workers.plan(connection, store)
    with monkeypatch.context() as patched:
        patched.setattr(shards.Shards, "_end", lambda *_: None)
        work_once(database, store)
    assert undone.standing(connection, planned.run_id).undone == 0
    assert _state(connection, planned.run_id) == "running"
    # Its job comes back as those of the dead do.
    queue.put(connection, [queue.shard_job(planned.run_id, 0)])
    work_once(database, store)
    assert _state(connection, planned.run_id) == "done"


def test_what_is_given_up_is_left_alone(
    database: Database, connection: Connection, store: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, log = workers.plan(connection, store), Log()
    steering.cancel(connection, planned.run_id)
    queue.put(connection, [queue.shard_job(planned.run_id, 0)])
    work(database, store, Options(once=True, rhythm=QUICK), log=log)
    assert log.of("nothing to do") == [{"run": planned.run_id, "shard": 0}]
    assert undone.standing(connection, planned.run_id).done == 0


def test_a_worker_that_was_taken_for_dead_goes_on(
    hire: Hire, database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    with hire(database.uri, tmp_path) as crew:
        pid = crew.start()
        workers.until(lambda: len(queue_state.workers(connection)) == 1, "the worker is there")
        connection.execute("DELETE FROM pfstore_jobs.procrastinate_workers")
        workers.until(lambda: bool(crew.logged("taken for dead")), "it finds out")
        workers.until(lambda: len(queue_state.workers(connection)) == 1, "it is there again")
        planned = workers.plan(connection, store)
        workers.until(lambda: _state(connection, planned.run_id) == "done", "the run is done")
        [there] = queue_state.workers(connection)
        assert (there.pid, there.host, there.alive) == (pid, socket.gethostname(), True)
        assert crew.logged("the gallery database is away") == []


@pytest.mark.parametrize("grace", [30.0, 0.2])
def test_it_stops_when_told(
    hire: Hire, grace: float, database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    """Within the grace the shard in hand is finished; else it is given back, and counts as no failure."""
    planned = workers.plan(connection, store)
    with hire(database.uri, tmp_path, pause=0.2 if grace > 1 else 1.0, grace=grace) as crew:
        pid = crew.start()
        workers.until(partial(workers.has_job, connection, pid), "it has a job")
        os.kill(pid, signal.SIGTERM)
        workers.until(lambda: workers.is_gone(pid), "it ends")
        assert len(crew.logged("worker stopped")) == 1
        assert len(crew.logged("handed back")) == (grace < 1)
        [stopping] = crew.logged("stopping")
        assert stopping["signal"] == "SIGTERM"
        assert [one["code"] for one in crew.logged("left")] == [0]
    assert undone.standing(connection, planned.run_id).done == (1 if grace > 1 else 0)
    assert undone.failed(connection, planned.run_id) == []
    counts = queue_state.counts(connection)
    assert (counts["doing"], counts["failed"]) == (0, 0)
    assert queue_state.workers(connection) == []
    work_once(database, store)
    assert _state(connection, planned.run_id) == "done"


def test_ctrl_c_twice_does_not_wait(
    hire: Hire, database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    workers.plan(connection, store)
    with hire(database.uri, tmp_path, pause=2.0) as crew:
        pid = crew.start()
        workers.until(partial(workers.has_job, connection, pid), "it has a job")
        os.kill(pid, signal.SIGINT)
        workers.until(lambda: bool(crew.logged("stopping")), "it is told")
        os.kill(pid, signal.SIGINT)
        workers.until(lambda: bool(crew.logged("left")), "it ends")
        assert [one["code"] for one in crew.logged("left")] == [130]
        assert len(crew.logged("handed back")) == 1


def test_a_job_that_does_not_notice_is_given_back_all_the_same(
    hire: Hire, database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    planned = workers.plan(connection, store)
    with hire(database.uri, tmp_path, pause=120.0, grace=0.1, cut=0.3) as crew:
        pid = crew.start()
        workers.until(partial(workers.has_job, connection, pid), "it has a job")
        os.kill(pid, signal.SIGTERM)
        workers.until(lambda: workers.is_gone(pid), "it ends")
        assert len(crew.logged("ended with jobs in hand")) == 1
        assert [one["code"] for one in crew.logged("left")] == [0]
    assert queue_state.workers(connection) == []
    assert queue_state.counts(connection)["doing"] == 0
    assert undone.failed(connection, planned.run_id) == []


def test_a_shard_in_hand_is_left_when_its_run_is_given_up(
    hire: Hire, database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    planned = workers.plan(connection, store)
    with hire(database.uri, tmp_path, pause=1.5) as crew:
        pid = crew.start()
        workers.until(partial(workers.has_job, connection, pid), "it has a job")
        steering.cancel(connection, planned.run_id)
        workers.until(lambda: bool(crew.logged("cancelled")), "it leaves it")
        assert not workers.is_gone(pid)
        workers.until(lambda: queue_state.counts(connection)["doing"] == 0, "nobody has it")
    assert undone.standing(connection, planned.run_id).done == 0


def test_the_database_is_away_for_a_while(
    database: Database, connection: Connection, store: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker begins anew; that of a restarted server is in test_worker_kill.py."""
    from pfstore.jobs import persistent

    planned, serve = workers.plan(connection, store), persistent.PersistentWorker.serve
    refused: list[bool] = []

    async def refusing(self: persistent.PersistentWorker) -> None:
        if len(refused) < 2:
            refused.append(True)
            raise ConnectorException
        await serve(self)

    monkeypatch.setattr(persistent.PersistentWorker, "serve", refusing)
    log = work_once(database, store)
    assert len(log.of("the gallery database is away")) == 2
    assert _state(connection, planned.run_id) == "done"


def test_the_database_goes_away_as_a_job_ends(
    database: Database, connection: Connection, store: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = workers.plan(connection, store)
    refused: list[bool] = []
    persist = Worker._persist_job_status

    async def refusing(*arguments: Any) -> None:
        if len(refused) < 2:
            refused.append(True)
            raise ConnectorException from psycopg.OperationalError("the server is away")
        await persist(*arguments)

    monkeypatch.setattr(Worker, "_persist_job_status", refusing)
    log = work_once(database, store)
    assert len(refused) == 2
    assert log.of("job came back") == []
    assert _state(connection, planned.run_id) == "done"
    assert queue_state.counts(connection)["doing"] == 0


def test_a_job_cannot_come_back_beside_another_of_its_key(
    database: Database, connection: Connection, store: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []

    def postponing(*_: object) -> None:
        begun.append(True)
        if len(begun) == 1:
            with queue.changing(connection):
                connection.execute(
                    "INSERT INTO procrastinate_jobs (task_name, queue_name, queueing_lock, lock, args)"
                    " SELECT task_name, queue_name, queueing_lock, lock, args FROM procrastinate_jobs"
                )
            raise Postponed("later", 0.0)

    monkeypatch.setattr(refreshing.Refreshes, "do", postponing)
    queue.put(connection, [queue.refresh_job("staff")])
    work_once(database, store)
    assert len(begun) == 2
    counts = queue_state.counts(connection)
    assert (counts["failed"], counts["succeeded"], counts["doing"], counts["todo"]) == (1, 1, 0, 0)


def test_the_log_is_json_with_the_same_keys(
    hire: Hire, database: Database, connection: Connection, store: Config, tmp_path: Path
) -> None:
    planned = workers.plan(connection, store)
    with hire(database.uri, tmp_path) as crew:
        crew.start()
        workers.until(lambda: _state(connection, planned.run_id) == "done", "the run is done")
        workers.until(lambda: bool(crew.logged("run done")), "it says so")
        lines = [json.loads(line) for line in crew.log.splitlines()]
    assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in lines)
    done = next(line for line in lines if line["event"] == "shard done")
    assert list(done)[3:] == ["gallery", "run", "shard", "features", "subjects", "seconds"]


def test_what_it_counts_is_served(database: Database, connection: Connection, store: Config) -> None:
    planned = workers.plan(connection, store)
    shard = undone.standing(connection, planned.run_id).shards
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meter = Prometheus(port)
    try:
        with pytest.raises(ConfigError, match=f"metrics cannot be served at 127.0.0.1:{port}: Address already in use"):
            Prometheus(port)
        before = time.time()
        work(database, store, Options(once=True, rhythm=QUICK), log=Log(), meter=meter)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    finally:
        meter.close()
    standing = undone.standing(connection, planned.run_id)
    assert float(lines['pfstore_shards_total{result="done"}']) == shard
    assert float(lines["pfstore_features_total"]) == standing.counts.read
    assert float(lines["pfstore_subjects_total"]) == 40
    assert float(lines["pfstore_shard_seconds_count"]) == shard
    assert float(lines['pfstore_last_success_timestamp_seconds{gallery="staff"}']) >= before
    assert float(lines["pfstore_worker_up"]) == 1
    assert 'pfstore_jobs{status="todo"}' in lines


def test_metrics_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'pfstore\[metrics\]'"):
        Prometheus(0)


def _kept(store: Config) -> tuple[Any, Any]:
    from pfstore.jobs.opened import Models, Sources

    return Sources(store), Models("cpu")


def _meter() -> Any:
    from pfstore.jobs.metrics import Meter

    return Meter()
