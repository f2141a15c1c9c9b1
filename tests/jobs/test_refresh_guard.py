"""What a refresh does not do unasked: remove many, give up what workers do, hold a snapshot for long."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest

import pfstore
from pfstore.errors import BusyError, ConflictError, DatabaseError
from pfstore.fusion import Fuser
from pfstore.gallery import galleries, runs
from pfstore.gallery.database import Connection, Database
from pfstore.jobs import queue, working
from pfstore.jobs import refresh as job
from pfstore.jobs.backfill import backfill
from pfstore.jobs.contracts import plan_of
from pfstore.jobs.summary import Progress
from pfstore.sources.sql import SqlSource
from tests.jobs.refreshed import MOVED, filled, fresh
from tests.sources.stores import blob, execute, faces, insert, make_faces, opened


def test_most_of_a_gallery_does_not_become_unusable_unasked(
    connection: Connection, url: str, source: SqlSource, average: Fuser
) -> None:
    version = filled(connection, source, average)
    execute(url, f"UPDATE faces SET vec = NULL, {MOVED} WHERE person > 'p15'")
    for _ in range(2):
        with pytest.raises(ConflictError, match=r"^24 of the 39 subjects .* no usable feature any more.*--removals 1"):
            fresh(connection, source, average, version)
    assert galleries.size(connection, version) == 39
    assert fresh(connection, source, average, version, removals=1).counts.removed == 24


def test_who_vanishes_while_the_source_is_read_is_guarded_as_well(
    connection: Connection, url: str, source: SqlSource, average: Fuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "SHARD_FEATURES", 20)
    monkeypatch.setattr(working, "AHEAD_FEATURES", 0)
    execute(url, "PRAGMA journal_mode = wal")
    version = filled(connection, source, average)
    emptied = False

    def empty(progress: Progress) -> None:
        nonlocal emptied
        if not emptied and progress.counts.seen > 5:
            emptied = True
            execute(url, "DELETE FROM faces WHERE person > 'p12'")

    with pytest.raises(ConflictError, match="are not in the source any more"):
        fresh(connection, source, average, version, full=True, observer=empty)
    assert galleries.size(connection, version) == 39
    assert fresh(connection, source, average, version, full=True, removals=1).counts.removed == 27


def test_a_run_in_the_hands_of_workers_is_not_given_up(
    connection: Connection, source: SqlSource, average: Fuser
) -> None:
    version = filled(connection, source, average)
    planned = job.plan(connection, source, version, source_name="hr", full=True)
    queue.put_shards(connection, planned.run_id, [0])
    alive = "INSERT INTO pfstore_jobs.procrastinate_workers (last_heartbeat) VALUES (now())"
    connection.execute(alive)
    said = rf"^workers are doing run {planned.run_id} of version 1 .*`pfstore run cancel {planned.run_id}`$"
    with pytest.raises(BusyError, match=said):
        fresh(connection, source, average, version)
    with pytest.raises(BusyError, match=said):
        backfill(connection, source, average, gallery="staff", source_name="hr")
    connection.execute("DELETE FROM pfstore_jobs.procrastinate_workers")
    assert fresh(connection, source, average, version).counts.written == 0
    assert [run.state for run in runs.listed(connection)] == ["done", "abandoned", "done"]


def test_many_rows_are_not_read_in_one_snapshot(
    connection: Connection, url: str, source: SqlSource, average: Fuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = filled(connection, source, average)
    held = []
    read = SqlSource.read

    def reading(self: SqlSource, *arguments: Any, **options: Any) -> Any:
        held.append(self._held is not None)
        return read(self, *arguments, **options)

    with sqlite3.connect(url.removeprefix("sqlite:///")) as legacy:
        legacy.execute("PRAGMA journal_mode = wal")
    monkeypatch.setattr(SqlSource, "read", reading)
    for rows, expected in ((1000, True), (2, False)):
        monkeypatch.setattr(working, "SHARD_FEATURES", rows)
        execute(url, f"UPDATE faces SET changed = '2024-08-01 00:00:0{rows % 9}' WHERE person < 'p08'")
        held.clear()
        assert fresh(connection, source, average, version).counts.read == 16
        assert set(held) == {expected}


def test_an_incomplete_version_is_guarded_as_well(
    connection: Connection, url: str, source: SqlSource, average: Fuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SHARD_FEATURES": 20, "BATCH_FEATURES": 5, "AHEAD_FEATURES": 0}.items():
        monkeypatch.setattr(working, name, value)

    def stop(progress: Progress) -> None:
        if progress.counts.written > 20:
            raise BusyError("stop here")

    with pytest.raises(BusyError):
        backfill(connection, source, average, gallery="staff", source_name="hr", observer=stop)
    [version] = galleries.versions(connection, "staff")
    before = galleries.size(connection, version)
    assert 15 < before < 39
    execute(url, "DELETE FROM faces WHERE person > 'p02'")
    with pytest.raises(ConflictError, match=f" of the {before} subjects .* are not in the source any more"):
        fresh(connection, source, average, version)
    assert [run.kind for run in runs.listed(connection)] == ["backfill"], "nothing was begun"


def test_two_shards_together_remove_no_more_than_may(
    connection: Connection, url: str, source: SqlSource, average: Fuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "SHARD_FEATURES", 20)
    version = filled(connection, source, average)
    execute(url, f"UPDATE faces SET vec = NULL, {MOVED} WHERE person > 'p15'")
    with pytest.raises(ConflictError, match=r"^2[0-4] of the 39 subjects of .* have no usable feature any more"):
        fresh(connection, source, average, version)
    left = galleries.size(connection, version)
    assert 20 <= left < 39
    [last, _] = runs.listed(connection)
    assert (last.state, last.counts.removed) == ("running", 39 - left)


def test_only_the_newest_run_is_gone_on_with(connection: Connection, source: SqlSource, average: Fuser) -> None:
    version = filled(connection, source, average)
    plan: dict[str, Any] = {"source": "hr", "plan": "p", "shards": ()}
    old = runs.start(connection, version, kind="backfill", **plan)
    runs.finish(connection, runs.start(connection, version, kind="refresh", **plan))
    connection.execute("UPDATE pfstore.runs SET state = 'running' WHERE run_id = %s", (old,))
    assert runs.resumable(connection, version, "backfill", "p") is None
    new = runs.start(connection, version, kind="backfill", **plan)
    runs.start(connection, version, kind="try", **plan)
    assert runs.resumable(connection, version, "backfill", "p") == new
    assert runs.resumable(connection, version, "backfill", "q") is None


def test_a_run_of_another_pfstore_is_not_gone_on_with(
    connection: Connection, source: SqlSource, average: Fuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = filled(connection, source, average).contract
    before = plan_of(contract, "hr", "")
    assert plan_of(contract, "hr", "") == before
    monkeypatch.setattr(pfstore, "__version__", "99")
    assert plan_of(contract, "hr", "") != before


def test_many_shards_of_keys_are_read_as_the_whole_source(
    connection: Connection, url: str, source: SqlSource, average: Fuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = filled(connection, source, average)
    monkeypatch.setattr(SqlSource, "most_keys", 1)
    for people, expected in ((8, False), (9, True)):
        execute(url, f"UPDATE faces SET changed = '2024-08-0{people}' WHERE person < 'p{people:02}'")
        assert fresh(connection, source, average, version).whole is expected


def test_a_source_may_take_longer_than_a_statement_of_the_gallery(
    connection: Connection, source: SqlSource, average: Fuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = filled(connection, source, average)
    marks = source.marks

    def slowly() -> Iterator[Any]:
        time.sleep(0.6)
        yield from marks()

    monkeypatch.setattr(source, "marks", slowly)
    connection.execute("SET statement_timeout = '300ms'")
    assert fresh(connection, source, average, version).counts.unchanged == 39
    assert connection.execute("SHOW statement_timeout").fetchone() == ("300ms",)


def _end(connection: Connection, other: Connection) -> None:
    connection.execute("SELECT pg_terminate_backend(%s, 5000)", (other.info.backend_pid,))


@pytest.mark.postgres15
def test_an_error_of_the_gallery_is_not_the_source_s(
    database: Database, connection: Connection, postgres15_url: str, average: Fuser
) -> None:
    make_faces(postgres15_url)
    insert(postgres15_url, "faces", faces(*((f"p{n:02}", "m", blob(n + 1, 1)) for n in range(20))))
    with opened(postgres15_url) as source:
        version = filled(connection, source, average)
        execute(postgres15_url, "UPDATE faces SET vec = '\\x0000803f0000803f' WHERE id = 3")
        with pytest.raises(DatabaseError) as caught, database.connect() as own:
            fresh(own, source, average, version, observer=lambda _: _end(connection, own))
    assert str(caught.value).startswith(database.shown)
