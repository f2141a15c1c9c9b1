"""The queue: its schema is procrastinate's, a job is in it once, and what the dead leave behind comes back."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from procrastinate.schema import SchemaManager

from pfstore import config
from pfstore.config import Config
from pfstore.errors import ConflictError, DatabaseError, NotFoundError
from pfstore.gallery import schema, undone
from pfstore.gallery.database import Connection, Database
from pfstore.jobs import queue, queue_state, reaping, steering
from pfstore.jobs.queue import Job
from tests.jobs import workers

COLUMNS = (
    "SELECT table_name, column_name, data_type, is_nullable,"
    " replace(column_default, table_schema || '.', '')"
    " FROM information_schema.columns WHERE table_schema = %s"
)
INDEXES = "SELECT indexname, replace(indexdef, schemaname || '.', '') FROM pg_indexes WHERE schemaname = %s"
CONSTRAINTS = (
    "SELECT conname, replace(pg_get_constraintdef(c.oid), nspname || '.', '')"
    " FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace WHERE nspname = %s"
)
FUNCTIONS = (
    "SELECT proname, regexp_replace(replace(prosrc, nspname || '.', ''), '\\s+', ' ', 'g'),"
    " replace(pg_get_function_arguments(p.oid), nspname || '.', ''), prokind"
    " FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = %s"
)
TRIGGERS = (
    "SELECT tgname, replace(pg_get_triggerdef(t.oid), nspname || '.', '')"
    " FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace"
    " WHERE nspname = %s AND NOT tgisinternal"
)
LABELS = (
    "SELECT typname, enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = enumtypid"
    " JOIN pg_namespace n ON n.oid = typnamespace WHERE nspname = %s"
)


def _catalogue(connection: Connection, name: str) -> dict[str, list[Any]]:
    """Describe a schema; where procrastinate's own is looked up, the search path is not there to shorten names."""
    queries = {
        "columns": COLUMNS,
        "indexes": INDEXES,
        "constraints": CONSTRAINTS,
        "functions": FUNCTIONS,
        "triggers": TRIGGERS,
        "labels": LABELS,
    }
    return {what: sorted(connection.execute(query.encode(), (name,)).fetchall()) for what, query in queries.items()}


def test_the_migrations_make_procrastinates_schema(connection: Connection) -> None:
    connection.execute("CREATE SCHEMA packaged")
    with connection.transaction():
        connection.execute("SET LOCAL search_path TO packaged, pg_catalog")
        connection.pgconn.exec_(SchemaManager.get_schema().encode())
    packaged, ours = _catalogue(connection, "packaged"), _catalogue(connection, queue.SCHEMA)
    assert ours["columns"] == packaged["columns"]
    assert ours["constraints"] == packaged["constraints"]
    assert ours["indexes"] == packaged["indexes"]
    assert ours["triggers"] == packaged["triggers"]
    assert set(ours["labels"]) == set(packaged["labels"])
    assert set(packaged["functions"]) <= set(ours["functions"])


def test_no_migration_of_procrastinate_is_left_out(connection: Connection) -> None:
    folder = resources.files("procrastinate.sql") / "migrations"
    newest = max(one.name for one in folder.iterdir() if one.name.endswith(".sql"))
    assert newest.startswith("03.04.00_50"), "a newer procrastinate needs a revision that applies its migrations"


def test_down_and_up_again(database: Database, connection: Connection) -> None:
    with schema._connection(database) as transaction:
        command.downgrade(schema._alembic(transaction), "0007")
    row = connection.execute("SELECT to_regnamespace('pfstore_jobs'), to_regclass('pfstore.schedules')").fetchone()
    assert row == (None, None)
    assert schema.upgrade(database).is_current
    assert schema.check(database) == []
    assert queue.put_shards(connection, 1, [0]) == 1


def _take(connection: Connection, seconds_silent: float = 0.0) -> tuple[int, int]:
    """Take the next job as a worker does; return the numbers of the job and the worker."""
    with queue.changing(connection):
        worker = connection.execute("SELECT * FROM procrastinate_register_worker_v1()").fetchone()
        assert worker is not None
        connection.execute(
            "UPDATE procrastinate_workers SET last_heartbeat = now() - make_interval(secs => %s) WHERE id = %s",
            (seconds_silent, worker[0]),
        )
        job = connection.execute("SELECT id FROM procrastinate_fetch_job_v2(NULL, %s)", worker).fetchone()
        assert job is not None
        assert job[0] is not None, "no job may begin"
    return job[0], worker[0]


def _end(connection: Connection, job: int, status: str = "succeeded") -> None:
    with queue.changing(connection):
        connection.execute("SELECT procrastinate_finish_job_v1(%s, %s, false)", (job, status))


def test_a_job_is_there_once(connection: Connection) -> None:
    assert queue.put_shards(connection, 1, [0, 1, 2]) == 3
    assert queue.put_shards(connection, 1, [1, 2, 3]) == 1
    taken, _ = _take(connection)
    assert queue.put_shards(connection, 1, [0]) == 0
    _end(connection, taken)
    assert queue.put_shards(connection, 1, [0]) == 1
    assert queue_state.counts(connection) == {
        "todo": 4, "doing": 0, "succeeded": 1, "failed": 0, "cancelled": 0, "aborted": 0,
    }  # fmt: skip
    assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)


def test_shards_are_taken_in_their_order(connection: Connection) -> None:
    queue.put_shards(connection, 1, range(50))
    query = "SELECT args->>'shard' FROM pfstore_jobs.procrastinate_jobs ORDER BY id"
    assert [int(shard) for (shard,) in connection.execute(query)] == list(range(50))


def test_a_run_without_shards_has_an_end(connection: Connection) -> None:
    assert queue.put_shards(connection, 7, []) == 1
    assert queue_state.waits(connection, queue.finish_job(7).key)
    assert not queue_state.was_done(connection, queue.finish_job(7).key)
    _end(connection, _take(connection)[0])
    assert queue_state.was_done(connection, queue.finish_job(7).key)


def test_what_others_wait_for_comes_first(connection: Connection) -> None:
    queue.put(connection, [queue.shard_job(1, 0), queue.finish_job(2)])
    job, _ = _take(connection)
    query = "SELECT task_name FROM pfstore_jobs.procrastinate_jobs WHERE id = %s"
    assert connection.execute(query, (job,)).fetchone() == (queue.FINISH,)


def test_one_refresh_of_a_gallery_at_a_time(connection: Connection) -> None:
    queue.put(connection, [queue.refresh_job("staff"), Job("refresh", queue.REFRESHES, "other", alone="refresh:staff")])
    _take(connection)
    with pytest.raises(AssertionError, match="no job may begin"):
        _take(connection)


def test_the_app_keeps_what_the_url_says(embedded_uri: str) -> None:
    parts = embedded_uri.replace("?", "?options=-cwork_mem%3D123kB&")
    app = queue.app(workers.database_of(parts), connections=1)
    conninfo = app.connector._pool_args["conninfo"]  # type: ignore[attr-defined]
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("123kB",)
        assert connection.execute("SHOW search_path").fetchone() == ("pfstore_jobs,pg_catalog",)


def test_the_back_off_grows_to_a_bound() -> None:
    waits = [queue.back_off(failures) for failures in range(1, 9)]
    assert 1.5 <= waits[0] <= 2.5
    assert 6 <= waits[1] <= 10
    assert 225 <= waits[-1] <= 375


def test_workers_are_alive_while_they_say_so(connection: Connection) -> None:
    queue.put_shards(connection, 1, [0, 1])
    _take(connection, seconds_silent=59)
    _take(connection, seconds_silent=61)
    assert [(one.alive, one.doing, one.pid) for one in queue_state.workers(connection)] == [
        (True, 1, None),
        (False, 1, None),
    ]
    document = queue_state.workers(connection)[0].as_dict()
    assert isinstance(document["last_heartbeat"], str)


def test_jobs_of_the_dead_come_back(connection: Connection, store: Config) -> None:
    run = workers.plan(connection, store).run_id
    _take(connection, seconds_silent=100)
    alive, _ = _take(connection)
    [came_back] = reaping.reap(connection, silence=60, most=5)
    assert came_back.comes_back
    assert came_back.arguments == {"run": run, "shard": 0}
    assert [one.alive for one in queue_state.workers(connection)] == [True]
    assert reaping.reap(connection, silence=60, most=5) == []
    [failed] = undone.failed(connection, run)
    assert (failed.number, failed.failures) == (0, 1)
    assert failed.error == "the worker that did it died or was cut off"
    assert queue_state.counts(connection)["doing"] == 1
    _end(connection, alive)


def test_a_shard_that_kills_its_workers_is_given_up(connection: Connection, store: Config) -> None:
    run = workers.plan(connection, store).run_id
    for deaths in range(1, 4):
        _take(connection, seconds_silent=100)
        [one] = reaping.reap(connection, silence=60, most=3)
        assert (one.deaths, one.comes_back) == (deaths, deaths < 3)
    assert queue_state.counts(connection)["failed"] == 1
    [given_up] = queue_state.last_failures(connection)
    assert given_up.arguments == {"run": run, "shard": 0}
    assert given_up.failed_at is not None
    assert [(number, one.number) for number, one in undone.last_errors(connection)] == [(run, 0)]
    assert steering.retry(connection, run, 0) == 1
    assert undone.failed(connection, run) == []


def test_other_jobs_are_given_up_too(connection: Connection) -> None:
    queue.put(connection, [queue.finish_job(1)])
    for _ in range(2):
        _take(connection, seconds_silent=100)
        [one] = reaping.reap(connection, silence=60, most=2)
    assert not one.comes_back


def test_a_job_that_is_followed_does_not_come_back(connection: Connection) -> None:
    queue.put(connection, [queue.refresh_job("staff")])
    _take(connection, seconds_silent=100)
    # As a worker may take a job while it is put again.
    connection.execute("ALTER TABLE pfstore_jobs.procrastinate_jobs DISABLE TRIGGER USER")
    connection.execute(
        "INSERT INTO pfstore_jobs.procrastinate_jobs (task_name, queue_name, queueing_lock, lock)"
        " VALUES ('refresh', 'refreshes', 'refresh:staff', 'refresh:staff')"
    )
    connection.execute("ALTER TABLE pfstore_jobs.procrastinate_jobs ENABLE TRIGGER USER")
    reaping.reap(connection, silence=60, most=5)
    counts = queue_state.counts(connection)
    assert (counts["todo"], counts["doing"], counts["failed"]) == (1, 0, 1)


def test_what_is_handed_back_counts_as_no_failure(connection: Connection, store: Config) -> None:
    run = workers.plan(connection, store).run_id
    job, worker = _take(connection)
    assert reaping.hand_back(connection, worker) == 1
    reaping.dismiss(connection, [worker])
    assert reaping.reap(connection, silence=60, most=1) == []
    assert undone.failed(connection, run) == []
    assert _take(connection)[0] == job


def test_old_jobs_are_deleted(connection: Connection) -> None:
    queue.put_shards(connection, 1, [0, 1, 2])
    _end(connection, _take(connection)[0])
    _end(connection, _take(connection)[0], "failed")
    assert reaping.delete_old(connection, days=1) == 0
    connection.execute("UPDATE pfstore_jobs.procrastinate_events SET at = at - interval '2 days'")
    assert reaping.delete_old(connection, days=3) == 0
    assert reaping.delete_old(connection, days=1) == 2
    assert queue_state.counts(connection)["todo"] == 1


def test_a_run_is_given_up(connection: Connection, store: Config) -> None:
    run = workers.plan(connection, store).run_id
    jobs = queue_state.left(connection, queue.of_run(run))
    _take(connection)
    assert steering.cancel(connection, run) == jobs
    assert undone.known_run(connection, run).state == "abandoned"
    counts = queue_state.counts(connection)
    assert (counts["todo"], counts["doing"], counts["cancelled"]) == (0, 1, jobs - 1)
    with pytest.raises(ConflictError, match=f"run {run} is over"):
        steering.cancel(connection, run)
    with pytest.raises(ConflictError, match=f"run {run} is over"):
        steering.retry(connection, run)
    with pytest.raises(NotFoundError, match="there is no run 99"):
        steering.retry(connection, 99)


def test_two_runs_of_a_version_do_not_mix(connection: Connection, store: Config, tmp_path: Path) -> None:
    run = workers.plan(connection, store).run_id
    (tmp_path / "pfstore.toml").write_text(
        (tmp_path / "pfstore.toml").read_text().replace('"faces"', '"faces"\nwhere = "id > 9"')
    )
    with pytest.raises(
        ConflictError, match=f"run {run} of version 1 of gallery 'staff' is still going.*run cancel {run}"
    ):
        workers.plan(connection, config.load())
    steering.cancel(connection, run)
    assert workers.plan(connection, config.load()).run_id > run


def test_a_shard_that_does_not_exist(connection: Connection, store: Config) -> None:
    run = workers.plan(connection, store).run_id
    with pytest.raises(NotFoundError, match=f"run {run} has no shard 999"):
        steering.retry(connection, run, 999)


def test_a_database_without_a_queue(embedded_uri: str, store: Config) -> None:
    with pytest.raises(DatabaseError, match="pfstore init"):
        workers.work_once(workers.database_of(embedded_uri), store)
