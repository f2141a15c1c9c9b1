"""A schedule fires once however many workers see it, catches up once, and never overlaps itself."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pfstore import config, cron
from pfstore.config import Config
from pfstore.errors import ConfigError
from pfstore.gallery import galleries, models, runs, undone
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.locking import locked
from pfstore.jobs import queue, queue_state, refreshing, schedules, upkeep
from pfstore.jobs.backfill import backfill
from pfstore.sources import complete_source, open_source
from tests.jobs import workers
from tests.jobs.conftest import SCHEDULE
from tests.jobs.workers import Hire, Log, work_once

NIGHT = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


@pytest.fixture
def filled(connection: Connection, store: Config) -> Config:
    """A gallery that is filled already."""
    mapping = complete_source(store.source("hr"), "hr", store.folder)
    with open_source(store.source("hr"), "hr", store.folder) as source:
        model = models.load(connection, models.resolve(connection, "average").digest)
        backfill(connection, source, model, gallery="staff", source_name="hr", mapping=mapping.identity)
    return store


def _add(folder: Path, person: str) -> None:
    with sqlite3.connect(folder / "legacy.db") as legacy:
        legacy.execute("INSERT INTO faces (person, image, vec) SELECT ?, 'm', vec FROM faces LIMIT 1", (person,))
    legacy.close()


def _waiting(connection: Connection) -> int:
    return queue_state.left(connection, queue.REFRESHES)


def _empty(connection: Connection) -> None:
    """Take all jobs away, as if they were done."""
    with queue.changing(connection):
        connection.execute("DELETE FROM procrastinate_jobs")


def test_it_is_due_once(connection: Connection, store: Config) -> None:
    assert schedules.queue_due(connection, store, NIGHT - SECOND) == []
    assert schedules.queue_due(connection, store, NIGHT) == ["nightly"]
    assert schedules.queue_due(connection, store, NIGHT + SECOND) == []
    assert _waiting(connection) == 1
    _empty(connection)
    assert schedules.queue_due(connection, store, NIGHT + SECOND) == []
    assert schedules.queue_due(connection, store, NIGHT + DAY) == ["nightly"]


def test_two_workers_queue_it_once(database: Database, connection: Connection, store: Config) -> None:
    schedules.queue_due(connection, store, NIGHT - DAY + SECOND)
    queued, barrier = [], threading.Barrier(8)

    def ask() -> None:
        with database.connect() as own:
            barrier.wait()
            queued.extend(schedules.queue_due(own, store, NIGHT))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert queued == ["nightly"]
    assert _waiting(connection) == 1


def test_one_that_is_new_is_not_due_for_the_past(connection: Connection, store: Config) -> None:
    assert schedules.queue_due(connection, store, NIGHT + SECOND) == []
    assert schedules.queue_due(connection, store, NIGHT + DAY - SECOND) == []
    assert schedules.queue_due(connection, store, NIGHT + DAY) == ["nightly"]


def test_one_whose_time_has_changed_is_not_due_for_the_past(
    connection: Connection, store: Config, tmp_path: Path
) -> None:
    schedules.queue_due(connection, store, NIGHT - DAY - SECOND)
    assert schedules.queue_due(connection, store, NIGHT - DAY) == ["nightly"]
    _empty(connection)
    text = (tmp_path / "pfstore.toml").read_text()
    (tmp_path / "pfstore.toml").write_text(text.replace("0 3 * * *", "0 2 * * *"))
    assert schedules.queue_due(connection, config.load(), NIGHT) == []
    assert schedules.queue_due(connection, config.load(), NIGHT + DAY) == ["nightly"]


def test_it_catches_up_once_after_downtime(connection: Connection, store: Config) -> None:
    schedules.queue_due(connection, store, NIGHT - SECOND)
    assert schedules.queue_due(connection, store, NIGHT + 5 * DAY + timedelta(hours=7)) == ["nightly"]
    assert _waiting(connection) == 1
    _empty(connection)
    assert schedules.queue_due(connection, store, NIGHT + 5 * DAY + timedelta(hours=8)) == []


def test_it_is_left_out_while_the_one_before_is_there(connection: Connection, store: Config) -> None:
    schedules.queue_due(connection, store, NIGHT - SECOND)
    assert schedules.queue_due(connection, store, NIGHT) == ["nightly"]
    assert schedules.queue_due(connection, store, NIGHT + DAY) == []
    assert _waiting(connection) == 1
    [listed] = schedules.listed(connection, store, NIGHT + DAY)
    assert listed.result == "left out: the refresh before was still queued or under way"
    assert listed.next_run == NIGHT + 2 * DAY


def test_a_worker_refreshes_what_has_changed(
    database: Database, connection: Connection, filled: Config, tmp_path: Path
) -> None:
    _add(tmp_path, "newcomer")
    assert schedules.run_now(connection, filled, "nightly")
    assert not schedules.run_now(connection, filled, "nightly")
    log = work_once(database, filled)
    [planned] = log.of("refresh planned")
    assert (planned["gallery"], planned["schedule"]) == ("staff", "nightly")
    [last, _] = runs.listed(connection)
    assert (last.kind, last.state, last.counts.written, last.counts.seen) == ("refresh", "done", 1, 41)
    [listed] = schedules.listed(connection, filled, NIGHT)
    assert listed.run == last.run_id == planned["run"]
    assert listed.result == "1 written, 40 unchanged, 0 removed, 0 rejected"
    assert listed.last_run is not None
    assert listed.finished_at is not None
    assert listed.finished_at > listed.last_run
    assert listed.as_dict()["next_run"] == "2026-03-02T03:00:00+00:00"
    assert galleries.counts(connection)[galleries.version(connection, "staff").version_id] == 41


def test_nothing_has_changed(database: Database, connection: Connection, filled: Config) -> None:
    schedules.run_now(connection, filled, "nightly")
    work_once(database, filled)
    [listed] = schedules.listed(connection, filled, NIGHT)
    assert listed.result == "0 written, 40 unchanged, 0 removed, 0 rejected"


def test_it_does_not_begin_while_a_run_of_it_is_going(
    database: Database, connection: Connection, filled: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = workers.plan(connection, filled)
    schedules.run_now(connection, filled, "nightly")
    with monkeypatch.context() as patched:
        patched.setattr("pfstore.jobs.worker.Shards.shard", _raising(queue.Postponed("later", 3600)))
        log = work_once(database, filled)
    assert [one["run"] for one in log.of("refresh left out")] == [going.run_id]
    [listed] = schedules.listed(connection, filled, NIGHT)
    assert listed.result == f"left out: run {going.run_id} is still going"
    assert undone.known_run(connection, going.run_id).state == "running"


def test_the_list_tells_how_far_it_is(
    database: Database, connection: Connection, filled: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        _add(tmp_path, f"new{number}")
    schedules.run_now(connection, filled, "nightly")
    monkeypatch.setattr("pfstore.jobs.worker.Shards.shard", _raising(queue.Postponed("later", 3600)))
    work_once(database, filled)
    [listed] = schedules.listed(connection, filled, NIGHT)
    shards = undone.standing(connection, listed.run or 0).shards
    assert shards > 0
    assert listed.result == f"run {listed.run}: 0 of {shards} shards done, 0 failed"


def test_what_goes_wrong_is_told(database: Database, connection: Connection, store: Config) -> None:
    schedules.run_now(connection, store, "nightly")
    log = work_once(database, store)
    [listed] = schedules.listed(connection, store, NIGHT)
    assert listed.result is not None
    assert "gallery 'staff' has no version to refresh: run `pfstore backfill staff`" in listed.result
    assert [one["tried_again"] for one in log.of("refresh failed")] == [False]
    assert queue_state.counts(connection)["failed"] == 1


def test_a_source_that_is_away_is_tried_again(
    database: Database, connection: Connection, filled: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshing, "back_off", lambda _, **__: 0.0)
    (tmp_path / "legacy.db").rename(tmp_path / "away.db")
    schedules.run_now(connection, filled, "nightly")
    log = work_once(database, filled)
    assert [one["tried_again"] for one in log.of("refresh failed")] == [True] * 4 + [False]
    [listed] = schedules.listed(connection, filled, NIGHT)
    assert "there is no SQLite file" in (listed.result or "")


def test_it_waits_for_a_command_in_a_terminal(
    database: Database, connection: Connection, filled: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshing, "PATIENCE", 0.0)
    version = galleries.version(connection, "staff")
    schedules.run_now(connection, filled, "nightly")
    with locked(connection, version.version_id, version.said):
        work_once(database, filled)
    assert _waiting(connection) == 1
    [listed] = schedules.listed(connection, filled, NIGHT)
    assert "another process is writing" in (listed.result or "")


def test_two_workers_alive(
    hire: Hire,
    database: Database,
    connection: Connection,
    filled: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Real workers, whose clocks pass a due time while they run."""
    now = datetime.now(UTC)
    text = (tmp_path / "pfstore.toml").read_text()
    (tmp_path / "pfstore.toml").write_text(text.replace("0 3 * * *", "* * * * *"))
    # Known since two minutes ago, so that it is due as soon as a worker looks.
    schedules.queue_due(connection, config.load(), now - timedelta(minutes=2))
    with hire(database.uri, tmp_path) as crew:
        for _ in range(2):
            crew.start()
        workers.until(lambda: len(crew.logged("run done")) >= 1, "a refresh is done")
        due = [line["schedule"] for line in crew.logged("schedule due")]
        spent = datetime.now(UTC) - now
    # A minute may have passed meanwhile.
    assert 1 <= len(due) <= 2 + spent // timedelta(minutes=1)
    query = "SELECT count(*), count(DISTINCT id) FROM pfstore_jobs.procrastinate_jobs WHERE task_name = 'refresh'"
    jobs = connection.execute(query).fetchone()
    assert jobs is not None
    assert jobs[0] == len(due)


def test_the_times_of_a_cron_line() -> None:
    assert cron.latest("0 3 * * *", NIGHT) == NIGHT
    assert cron.latest("0 3 * * *", NIGHT - timedelta(milliseconds=1)) == NIGHT - DAY
    assert cron.following("0 3 * * *", NIGHT) == NIGHT + DAY
    assert cron.following("0 3 * * *", NIGHT - timedelta(milliseconds=1)) == NIGHT
    assert cron.checked("  0  3 * * mon-fri") == "0 3 * * mon-fri"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 3 * *", r"schedules\.nightly\.cron: '0 3 \* \*' is no cron line: five fields are needed .*, not 4"),
        ("@daily", "five fields are needed"),
        ("* * * * * *", "five fields are needed .*, not 6"),
        ("0 25 * * *", "'0 25 . . .' is no cron line: .*out of range"),
        ("0 three * * *", "is no cron line"),
        ("0 0 30 2 *", "never comes: there is no such date"),
        ("R 3 * * *", "'R' stands for no time"),
        ("H 3 * * *", "'H' stands for no time"),
    ],
)
def test_a_cron_line_that_is_none(tmp_path: Path, line: str, said: str) -> None:
    text = '[sources.hr]\npath = "f"\n[galleries.staff]\nsource = "hr"\nmodel = "average"\n'
    (tmp_path / "pfstore.toml").write_text(text + SCHEDULE.replace("0 3 * * *", line))
    with pytest.raises(ConfigError, match=said):
        config.load(tmp_path / "pfstore.toml")


def test_a_schedule_that_does_not_exist(connection: Connection, store: Config) -> None:
    with pytest.raises(ConfigError, match="there is no schedule 'nightl'; did you mean nightly"):
        schedules.run_now(connection, store, "nightl")


def test_upkeep_goes_on_after_a_failure(database: Database, store: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from pfstore.jobs.metrics import Meter
    from pfstore.jobs.opened import Sources

    rounds, log = [], Log()

    def failing(*_: object) -> list[str]:
        rounds.append(True)
        if len(rounds) == 1:
            raise ValueError("once")
        return []

    monkeypatch.setattr(schedules, "queue_due", failing)
    with upkeep.Upkeep(
        database,
        store,
        workers.QUICK,
        Sources(store),
        log,
        Meter(),
        worker=lambda: None,
        restart=lambda: None,
        run=None,
        over=lambda: None,
    ):
        workers.until(lambda: len(rounds) > 2, "it goes on")
    assert log.of("upkeep failed") == [{"error": "ValueError: once"}]
    assert len(log.of("the gallery database is back")) == 1


def _raising(error: Exception) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise error

    return call
