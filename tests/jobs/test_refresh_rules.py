"""What a refresh reads, writes and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from pfstore.errors import BusyError, ConflictError, ContractError
from pfstore.fusion import Fuser
from pfstore.gallery import galleries, locking, marks, models, runs
from pfstore.gallery.database import Connection, Database
from pfstore.jobs import refresh as job
from pfstore.jobs import working
from pfstore.jobs.backfill import backfill
from pfstore.jobs.summary import Progress
from pfstore.sources.sql import SqlSource
from tests.jobs.refreshed import MOVED, SAFE, filled, fresh
from tests.memory import MemorySource, people
from tests.sources.stores import execute, opened


def rows(connection: Connection) -> list[Any]:
    """Every template and mark, and which transaction wrote it."""
    query = "SELECT subject_id, xmin::text, ctid::text FROM pfstore.{} ORDER BY subject_id"
    return [connection.execute(query.format(table).encode()).fetchall() for table in ("templates", "marks")]


def test_nothing_changed(connection: Connection, source: SqlSource, average: Fuser) -> None:
    version = filled(connection, source, average)
    before = rows(connection)
    assert [len(one) for one in before] == [39, 40]
    found = fresh(connection, source, average, version)
    assert rows(connection) == before
    counts = found.counts
    assert (counts.read, counts.seen, counts.unchanged, counts.subjects_rejected) == (0, 40, 39, 1)
    (run, first) = runs.listed(connection)
    assert (run.kind, run.whole, run.state, run.shards) == ("refresh", False, "done", 0)
    assert run.counts == counts
    assert first.whole


def test_only_who_changed_is_read(connection: Connection, url: str, source: SqlSource, average: Fuser) -> None:
    version = filled(connection, source, average)
    execute(
        url,
        f"UPDATE faces SET vec = x'0000803f0000803f', {MOVED} WHERE person = 'p03' AND image = 'm0'",
        f"UPDATE faces SET vec = NULL, {MOVED} WHERE person = 'p04'",
        f"UPDATE faces SET {MOVED} WHERE person = 'p05'",
        "DELETE FROM faces WHERE person = 'p06'",
        "UPDATE faces SET person = 'p08' WHERE person = 'p07' AND image = 'm0'",
        "INSERT INTO faces (person, image, vec, changed) SELECT 'new', image, vec, changed FROM faces LIMIT 3",
    )
    preview = job.preview(connection, source, version)
    assert preview.subjects == {
        "new": ["new"],
        "changed": ["p03", "p04", "p05", "p07", "p08"],
        "vanished": ["p06"],
    }
    found = fresh(connection, source, average, version)
    counts = found.counts
    assert found.found == preview.found
    assert (counts.written, counts.removed, counts.subjects_rejected, counts.seen) == (4, 2, 2, 40)
    assert counts.unchanged == 34
    again = fresh(connection, source, average, version)
    assert (again.counts.read, again.counts.written, again.counts.removed) == (0, 0, 0)


def test_a_preview_writes_nothing(connection: Connection, url: str, source: SqlSource, average: Fuser) -> None:
    version = filled(connection, source, average)
    execute(url, "DELETE FROM faces WHERE person = 'p06'")
    before = rows(connection), len(runs.listed(connection))
    job.preview(connection, source, version)
    assert (rows(connection), len(runs.listed(connection))) == before


def test_without_a_safe_mark_the_first_refresh_reads_all(connection: Connection, url: str, average: Fuser) -> None:
    with opened(url) as source:
        version = filled(connection, source, average)
        read = [fresh(connection, source, average, version).counts.read for _ in range(2)]
    assert read == [80, 0]


def test_full_reads_all_whatever_the_marks_say(
    connection: Connection, url: str, source: SqlSource, average: Fuser
) -> None:
    version = filled(connection, source, average)
    execute(url, "UPDATE faces SET vec = x'0000803f00000000' WHERE person = 'p03'")
    assert fresh(connection, source, average, version).counts.written == 0
    found = fresh(connection, source, average, version, full=True)
    assert (found.whole, found.counts.read, found.counts.written) == (True, 80, 1)


def test_a_source_that_cannot_tell_is_compared_whole(connection: Connection, average: Fuser) -> None:
    subjects = people(30)
    version = filled(connection, MemorySource(subjects), average)
    fewer = {name: media for name, media in subjects.items() if name != "s0007"}
    found = fresh(connection, MemorySource(fewer), average, version)
    assert (found.by, found.whole, found.counts.removed, found.counts.written) == ("fingerprints", True, 1, 0)
    assert job.preview(connection, MemorySource(fewer), version).found is None


def test_most_of_a_gallery_does_not_vanish_unasked(
    connection: Connection, url: str, source: SqlSource, average: Fuser
) -> None:
    version = filled(connection, source, average)
    execute(url, "DELETE FROM faces WHERE person > 'p15'")
    before = rows(connection), len(runs.listed(connection))
    for full in (False, True):
        with pytest.raises(ConflictError, match=r"^24 of the 39 subjects of version 1 .*--removals 1"):
            fresh(connection, source, average, version, full=full)
    assert (rows(connection), len(runs.listed(connection))) == before
    assert fresh(connection, source, average, version, removals=1).counts.removed == 24


def test_a_template_that_was_deleted_by_hand_comes_back(
    connection: Connection, source: SqlSource, average: Fuser
) -> None:
    version = filled(connection, source, average)
    connection.execute("DELETE FROM pfstore.templates WHERE subject_id = 'p20'")
    assert fresh(connection, source, average, version).counts.written == 1
    assert galleries.size(connection, version) == 39


def test_what_is_written_without_a_mark_keeps_none_of_before(
    connection: Connection, url: str, source: SqlSource, average: Fuser
) -> None:
    """A feature that changes, is written by a run that knows no marks, and changes back, is not as it was."""
    version = filled(connection, source, average)
    old = "(SELECT vec FROM faces o WHERE o.person = 'p30' AND o.image = 'm0')"
    execute(url, f"CREATE TABLE kept AS SELECT {old} AS vec")
    execute(url, "UPDATE faces SET vec = x'0000803f00000000' WHERE person = 'p30' AND image = 'm0'")
    with opened(url) as unmarked:
        assert backfill(connection, unmarked, average, gallery="staff", source_name="hr").counts.written == 1
    execute(url, "UPDATE faces SET vec = (SELECT vec FROM kept) WHERE person = 'p30' AND image = 'm0'")
    assert fresh(connection, source, average, version).counts.written == 1


def test_a_source_of_another_contract_is_refused(connection: Connection, url: str, average: Fuser) -> None:
    with opened(url, **SAFE) as source:
        version = filled(connection, source, average)
    with (
        opened(url, extractor="other") as other,
        pytest.raises(ContractError, match="is of extractor 'net', .*'other'"),
    ):
        fresh(connection, other, average, version)
    trimmed = models.load(connection, models.resolve(connection, "trimmed-mean").digest)
    with opened(url, **SAFE) as source, pytest.raises(ContractError, match="model digest"):
        fresh(connection, source, trimmed, version)


def test_one_at_a_time(
    database: Database, connection: Connection, source: SqlSource, average: Fuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = filled(connection, source, average)
    monkeypatch.setattr(locking, "LOCK_PATIENCE", 0.0)
    with (
        database.connect() as other,
        locking.locked(other, version.version_id, version.said),
        pytest.raises(BusyError),
    ):
        fresh(connection, source, average, version)


def test_an_interrupted_refresh_is_taken_up_by_the_next(
    database: Database,
    connection: Connection,
    url: str,
    source: SqlSource,
    average: Fuser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(working, "SHARD_FEATURES", 2)
    monkeypatch.setattr(working, "AHEAD_FEATURES", 0)
    version = filled(connection, source, average)
    execute(url, f"UPDATE faces SET vec = x'0000803f0000803f', {MOVED} WHERE person < 'p08'")

    def interrupt(progress: Progress) -> None:
        if progress.counts.written == 3:
            raise KeyboardInterrupt

    with database.connect() as other, pytest.raises(KeyboardInterrupt):
        fresh(other, source, average, version, observer=interrupt)
    found = fresh(connection, source, average, version)
    assert 4 <= found.counts.written <= 6
    newest = runs.listed(connection)
    assert [run.state for run in newest] == ["done", "abandoned", "done"]
    assert sum(run.counts.written for run in newest[:2]) == 8


def test_a_backfill_that_was_interrupted_before_a_refresh_begins_anew(
    database: Database,
    connection: Connection,
    url: str,
    source: SqlSource,
    average: Fuser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = filled(connection, source, average)
    monkeypatch.setattr(working, "SHARD_FEATURES", 10)
    monkeypatch.setattr(working, "AHEAD_FEATURES", 0)

    def interrupt(progress: Progress) -> None:
        if progress.counts.seen > 20:
            raise KeyboardInterrupt

    with database.connect() as other, pytest.raises(KeyboardInterrupt):
        backfill(other, source, average, gallery="staff", source_name="hr", observer=interrupt)
    execute(url, f"UPDATE faces SET vec = x'0000803f0000803f', {MOVED} WHERE person = 'p02'")
    assert fresh(connection, source, average, version).counts.written == 1
    again = backfill(connection, source, average, gallery="staff", source_name="hr")
    assert (again.resumed, again.counts.unchanged, again.counts.removed) == (False, 39, 0)
    assert [run.state for run in runs.listed(connection)] == ["done", "done", "abandoned", "done"]
    assert galleries.size(connection, version) == 39


def test_the_first_refresh_of_a_version_that_is_not_complete_is_whole(
    connection: Connection, source: SqlSource, average: Fuser
) -> None:
    backfill(connection, source, average, gallery="staff", source_name="hr", limit=5)
    version = job.target(connection, "staff")
    assert version is not None
    found = fresh(connection, source, average, version)
    assert (found.whole, found.promoted, found.active) == (True, True, 1)
    assert galleries.size(connection, version) == 39
    assert fresh(connection, source, average, version).counts.read == 0


def test_target_is_the_active_version(connection: Connection, source: SqlSource, average: Fuser) -> None:
    assert job.target(connection, "staff") is None
    filled(connection, source, average)
    trimmed = models.load(connection, models.resolve(connection, "trimmed-mean").digest)
    backfill(connection, source, trimmed, gallery="staff", source_name="hr")
    for number, expected in ((None, 1), (2, 2)):
        version = job.target(connection, "staff", number)
        assert version is not None
        assert version.number == expected


def test_forgotten_marks_are_found_out_again(connection: Connection, source: SqlSource, average: Fuser) -> None:
    version = filled(connection, source, average)
    marks.forget(connection, version)
    found = fresh(connection, source, average, version)
    assert (found.whole, found.counts.written) == (True, 0)
    assert fresh(connection, source, average, version).counts.read == 0


def test_thresholds_stand_while_few_templates_are_new(
    connection: Connection, url: str, source: SqlSource, average: Fuser
) -> None:
    version = filled(connection, source, average)
    made = "SELECT max(created_at) FROM pfstore.thresholds"
    before = connection.execute(made).fetchone()
    change = "UPDATE faces SET vec = x'0000803f0000803f', changed = '2024-07-{0} 00:00:00' WHERE person = 'p{0}'"
    execute(url, *(change.format(number) for number in (11, 12)))
    assert fresh(connection, source, average, version).counts.written == 2
    assert connection.execute(made).fetchone() == before
    execute(url, *(change.format(number) for number in (13, 14, 15)))
    assert fresh(connection, source, average, version).counts.written == 3
    assert connection.execute(made).fetchone() != before
