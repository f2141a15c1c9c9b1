"""`pfstore health`: what is not well, each as an exit code and as a kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from pfstore import config
from pfstore.gallery import undone
from pfstore.gallery.database import Connection, Database
from pfstore.jobs import alarms, queue, working
from pfstore.jobs.fleet import Planned
from tests.cli.conftest import CONFIG, Run
from tests.cli.test_status import SCHEDULE
from tests.gallery import test_replica
from tests.gallery.test_replica import Pair
from tests.jobs import workers

pair = test_replica.pair


@pytest.fixture
def planned(folder: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """A backfill of several shards, which wait for a worker."""
    monkeypatch.setattr(working, "SHARD_FEATURES", 25)
    return workers.plan(connection, config.load())


@pytest.fixture
def scheduled(folder: Path) -> Path:
    """A folder whose pfstore.toml has a schedule."""
    with (folder / "pfstore.toml").open("a") as file:
        file.write(SCHEDULE)
    return folder


def _alarms(run: Run, *options: str) -> list[tuple[str, str | None]]:
    said = run("health", "--json", *options)
    found = [(one["kind"], one["about"]) for one in said.json["alarms"]]
    assert said.code == (1 if found else 0)
    assert said.json["status"] == ("degraded" if found else "healthy")
    return found


def _worker(connection: Connection, silence: float = 0) -> None:
    connection.execute(
        "INSERT INTO pfstore_jobs.procrastinate_workers (last_heartbeat) VALUES (now() - make_interval(secs => %s))",
        (silence,),
    )


def test_where_all_is_well(scheduled: Path, run: Run) -> None:
    said = run("health", "--json")
    assert (said.code, said.err) == (0, "")
    assert set(said.json) == {"status", "alarms", "workers", "jobs", "replica"}
    assert run("health").out == "healthy: 0 workers alive, 0 jobs to do, 0 in hand\n"


def test_workers_that_are_missing(folder: Path, run: Run, connection: Connection) -> None:
    assert _alarms(run, "--workers", "0") == []
    assert _alarms(run, "--workers", "1") == [("workers", None)]
    _worker(connection, silence=100)
    assert _alarms(run, "--workers", "1") == [("workers", None)]
    _worker(connection)
    assert _alarms(run, "--workers", "1") == []
    assert _alarms(run, "--workers", "2") == [("workers", None)]
    assert run("health", "--workers", "2").out == "degraded: 1 worker alive, not 2\n"


def test_jobs_that_nobody_does(planned: Planned, run: Run, connection: Connection) -> None:
    assert _alarms(run) == [("jobs_waiting", None)]
    _worker(connection)
    assert _alarms(run) == []
    # What a worker has in hand that died waits as well.
    connection.execute("DELETE FROM pfstore_jobs.procrastinate_workers")
    with queue.changing(connection):
        connection.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    assert _alarms(run) == [("jobs_waiting", None)]
    with queue.changing(connection):
        connection.execute("UPDATE procrastinate_jobs SET status = 'succeeded'")
    assert _alarms(run) == []


def test_shards_that_failed_for_good(
    planned: Planned, run: Run, connection: Connection, database: Database, folder: Path
) -> None:
    _worker(connection)
    undone.note_failure(connection, planned.run_id, 1, "SourceError: the store is away")
    # It is tried again still.
    assert _alarms(run) == []
    with queue.changing(connection):
        connection.execute("DELETE FROM procrastinate_jobs WHERE queueing_lock = %s", (f"shard:{planned.run_id}:1",))
    assert _alarms(run) == [("failed_shards", str(planned.run_id))]
    run("run", "retry", str(planned.run_id))
    assert _alarms(run) == []
    # A worker whose pfstore.toml is another one can do none of them.
    (folder / "pfstore.toml").write_text(CONFIG.format(url=database.uri).replace('"image"', '"id"'))
    workers.work_once(database, config.load())
    assert _alarms(run) == [("failed_shards", str(planned.run_id))]
    said = run("health").out
    assert f"failed for good; shard 0: ConflictError: run {planned.run_id} was planned with another mapping" in said
    run("run", "cancel", str(planned.run_id))
    assert _alarms(run) == []


def test_a_schedule_that_failed(scheduled: Path, run: Run, connection: Connection, database: Database) -> None:
    _worker(connection)
    run("schedule", "run", "nightly")
    workers.work_once(database, config.load())
    assert _alarms(run) == [("schedule_failed", "nightly")]
    assert "gallery 'staff' has no version to refresh" in run("health").out
    run("backfill", "staff")
    run("schedule", "run", "nightly")
    workers.work_once(database, config.load())
    assert _alarms(run) == []
    # What pfstore.toml has no more is nobody's concern.
    connection.execute("UPDATE pfstore.schedules SET name = 'gone', run_id = NULL, result = 'SourceError: away'")
    assert _alarms(run) == []


def test_a_schedule_that_was_left_out_has_not_failed(scheduled: Path, run: Run, connection: Connection) -> None:
    connection.execute(
        "INSERT INTO pfstore.schedules (name, gallery, cron, result, finished_at)"
        " VALUES ('nightly', 'staff', '0 3 * * *', 'left out: run 7 is still going', now())"
    )
    assert _alarms(run) == []


@pytest.mark.parametrize("column", ["known_since", "due_at"])
def test_a_schedule_that_is_late(column: str, scheduled: Path, run: Run, connection: Connection) -> None:
    connection.execute(
        "INSERT INTO pfstore.schedules (name, gallery, cron, known_since)"
        " VALUES ('nightly', 'staff', '0 3 * * *', now() - interval '9 days')"
    )
    late = f"UPDATE pfstore.schedules SET {column} = now() - make_interval(hours => %s)".encode()
    # By less than a day: a worker that is started makes up for it.
    connection.execute(late, (23,))
    assert _alarms(run) == []
    connection.execute(late, (49,))
    assert _alarms(run) == [("schedule_overdue", "nightly")]
    assert "and no worker queued it" in run("health").out


def test_galleries_that_are_old(folder: Path, run: Run, connection: Connection) -> None:
    assert _alarms(run) == []
    assert _alarms(run, "--max-age", "1") == [("gallery_old", "staff")]
    run("backfill", "staff", "--limit", "3")
    assert _alarms(run, "--max-age", "1") == [("gallery_old", "staff")]
    run("backfill", "staff")
    assert _alarms(run, "--max-age", "1") == []
    connection.execute("UPDATE pfstore.runs SET finished_at = now() - interval '90 minutes'")
    assert _alarms(run, "--max-age", "1") == [("gallery_old", "staff")]
    assert "1.5 h ago, not within 1 h" in run("health", "--max-age", "1").out
    # A try says nothing of the rest.
    run("backfill", "staff", "--limit", "3")
    assert _alarms(run, "--max-age", "1") == [("gallery_old", "staff")]
    assert _alarms(run, "--max-age", "2") == []
    run("refresh", "staff")
    assert _alarms(run, "--max-age", "1") == []


def _reading(folder: Path, url: str, read_url: str) -> None:
    text = CONFIG.format(url=url).replace("[sources", f'read_url = "{read_url}"\n\n[sources', 1)
    (folder / "pfstore.toml").write_text(text)


def test_the_replica(folder: Path, run: Run, pair: Pair) -> None:
    _reading(folder, pair.primary.uri, pair.replica.uri)
    pair.settle()
    said = run("health", "--json")
    assert (said.code, said.json["replica"]) == (0, {"lag_seconds": 0.0})
    with pair.paused(), pair.primary.connect() as connection:
        connection.execute("CREATE TABLE something ()")
        [(kind, _)] = _alarms(run, "--max-lag", "0")
        assert kind == "replica"
        assert "s behind, more than 0 s" in run("health", "--max-lag", "0").out
        assert _alarms(run) == []
        connection.execute("DROP TABLE something")
    # Whom nobody can ask, and what is no replica at all.
    _reading(folder, pair.primary.uri, "postgresql://me:hunter2@127.0.0.1:1/x")
    assert _alarms(run) == [("replica", "postgresql://me:***@127.0.0.1:1/x")]
    _reading(folder, pair.primary.uri, pair.primary.uri)
    assert "nobody knows how far behind; `pfstore doctor` tells more" in run("health").out


def test_a_database_that_does_not_answer(
    folder: Path, run: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch, embedded_uri: str
) -> None:
    assert run("--database", "postgresql://me@127.0.0.1:1/x", "health").code == 4
    assert run("--database", embedded_uri, "health").code == 4
    monkeypatch.setattr(alarms, "PATIENCE", 0.2)
    with connection.transaction():
        connection.execute("LOCK TABLE pfstore.runs IN ACCESS EXCLUSIVE MODE")
        said = run("health")
    assert said.code == 4
    assert "statement timeout" in said.err
    assert run("health").code == 0


def test_wrong_use(folder: Path, run: Run) -> None:
    for options in (["--max-age", "0"], ["--max-age", "nan"], ["--workers", "-1"], ["--max-lag", "-1"]):
        assert run("health", *options).code == 2
