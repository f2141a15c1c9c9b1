from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pfstore.errors import ContractError, NotFoundError
from pfstore.gallery import galleries, models, schema, thresholds
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Version
from pfstore.gallery.thresholds import Threshold
from pfstore.jobs.backfill import backfill
from tests.gallery.hand_made import migrate, strangers, version_of
from tests.memory import MemorySource, people

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOOSE = Threshold("fmr", 0.01, 0.25, 5000, 0.008, 0.0125, 101, "gallery against gallery, all 101 subjects", False, NOW)
STRICT = replace(LOOSE, target=0.0006, threshold=0.375, low=0.0, high=0.0006)
SEARCH = replace(LOOSE, kind="fpir", target=0.1, threshold=0.5, comparisons=400)


def _backfilled(connection: Connection, count: int) -> Version:
    model = models.resolve(connection, "average")
    fuser = models.load(connection, model.digest)
    backfill(connection, MemorySource(people(count)), fuser, gallery="staff", source_name="memory")
    return galleries.version(connection, "staff")


@pytest.fixture
def version(connection: Connection) -> Version:
    """A version with three thresholds."""
    made = version_of(connection, strangers(3))
    thresholds.replace(connection, made, [SEARCH, STRICT, LOOSE])
    return made


def test_they_are_stored_as_they_are(connection: Connection, version: Version) -> None:
    assert thresholds.stored(connection, version) == [LOOSE, STRICT, SEARCH]
    assert LOOSE.as_dict()["created_at"] == "2026-01-02T03:04:05+00:00"


def test_the_loosest_that_keeps_to_a_rate(connection: Connection, version: Version) -> None:
    assert thresholds.at(connection, version, 0.01) == LOOSE
    assert thresholds.at(connection, version, 0.5) == LOOSE
    assert thresholds.at(connection, version, 0.009) == STRICT
    assert thresholds.at(connection, version) == STRICT
    assert thresholds.at(connection, version, 0.1, "fpir") == SEARCH


def test_without_a_rate_the_nearest_there_is(connection: Connection, version: Version) -> None:
    thresholds.replace(connection, version, [LOOSE])
    assert thresholds.at(connection, version) == LOOSE


def test_a_rate_that_none_keeps_to(connection: Connection, version: Version) -> None:
    with pytest.raises(ContractError) as error:
        thresholds.at(connection, version, 1e-4)
    assert str(error.value) == (
        "an FMR of 0.0001 needs 300,000 non-mated comparisons, those of version 1 of gallery 'staff' rest on 5,000: "
        "ask for 0.0006 or more, or `pfstore calibrate staff --fmr 0.0001` with more, or give --threshold"
    )
    with pytest.raises(
        ContractError, match=r"an FPIR of 0\.01 needs 3,000 non-mated searches, .*rest on 400: ask for 0\.1"
    ):
        thresholds.at(connection, version, 0.01, "fpir")


def test_a_version_that_nobody_calibrated(connection: Connection, version: Version) -> None:
    thresholds.replace(connection, version, [LOOSE])
    with pytest.raises(ContractError, match="no threshold at an FPIR: run `pfstore calibrate staff`, or give a score"):
        thresholds.at(connection, version, 0.1, "fpir")


def test_what_a_score_keeps_to(connection: Connection, version: Version) -> None:
    assert thresholds.kept_by(connection, version, 0.24) is None
    assert thresholds.kept_by(connection, version, 0.25) == LOOSE
    assert thresholds.kept_by(connection, version, 0.374) == LOOSE
    assert thresholds.kept_by(connection, version, 0.9) == STRICT


def test_what_is_said_of_them() -> None:
    assert LOOSE.said == (
        "FMR at most 0.01 [0.008, 0.0125], 5,000 non-mated comparisons, gallery against gallery, all 101 subjects"
    )
    assert SEARCH.said.startswith("FPIR at most 0.1 [0.008, 0.0125], 400 non-mated searches, ")
    assert replace(LOOSE, low=None, high=None).said.startswith("FMR at most 0.01, 5,000 ")


def test_a_tenth_more_templates_are_too_many() -> None:
    assert not replace(SEARCH, templates=100).outgrown(110)
    assert replace(SEARCH, templates=100).outgrown(111)
    assert not LOOSE.outgrown(10_000)


def test_a_calibration_is_not_replaced_by_an_estimate(connection: Connection, version: Version) -> None:
    automatic = replace(LOOSE, automatic=True, threshold=0.1)
    assert thresholds.replace(connection, version, [automatic]) == [LOOSE, STRICT, SEARCH]
    assert thresholds.stored(connection, version) == [LOOSE, STRICT, SEARCH]
    assert thresholds.replace(connection, version, []) == [LOOSE, STRICT, SEARCH]
    thresholds.replace(connection, version, [LOOSE])
    assert thresholds.stored(connection, version) == [LOOSE]


def test_of_two_at_once_one_stands_whole(database: Database, connection: Connection, version: Version) -> None:
    def second() -> None:
        with database.connect() as other:
            started.set()
            thresholds.replace(other, version, [STRICT])

    started, thread = threading.Event(), threading.Thread(target=second)
    with connection.transaction():
        thresholds.replace(connection, version, [LOOSE, SEARCH])
        thread.start()
        started.wait(10)
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(10)
    assert thresholds.stored(connection, version) == [STRICT]


def test_a_version_that_was_dropped_meanwhile(connection: Connection, version: Version) -> None:
    galleries.drop(connection, "staff")
    with pytest.raises(NotFoundError, match="version 1 of gallery 'staff' was dropped meanwhile"):
        thresholds.replace(connection, version, [LOOSE])


def test_sizes(connection: Connection, version: Version) -> None:
    assert galleries.size(connection, version) == 3
    assert thresholds.written_since(connection, version, datetime.now(UTC) - timedelta(hours=1)) == 3
    assert thresholds.written_since(connection, version, datetime.now(UTC)) == 0


def test_a_backfill_leaves_thresholds(connection: Connection) -> None:
    version = _backfilled(connection, 60)
    stored = thresholds.stored(connection, version)
    assert [(one.kind, round(one.target, 5)) for one in stored] == [("fmr", 0.1), ("fmr", round(3 / 1770, 5))]
    assert stored[0].comparisons == 60 * 59 // 2
    assert stored[0].basis == "gallery against gallery, all 60 subjects"
    assert thresholds.at(connection, version).target == pytest.approx(3 / 1770)


def test_a_backfill_that_writes_nothing_leaves_them_alone(connection: Connection) -> None:
    before = thresholds.stored(connection, _backfilled(connection, 60))
    assert thresholds.stored(connection, _backfilled(connection, 60)) == before
    after = thresholds.stored(connection, _backfilled(connection, 61))
    assert after[0].created_at > before[0].created_at
    assert after[0].comparisons == 61 * 60 // 2


def test_a_backfill_leaves_a_calibration_alone(connection: Connection) -> None:
    version = _backfilled(connection, 60)
    mine = replace(LOOSE, created_at=datetime.now(UTC))
    thresholds.replace(connection, version, [mine])
    _backfilled(connection, 63)
    assert thresholds.stored(connection, version) == [mine]
    assert thresholds.written_since(connection, version, mine.created_at) == 3


def test_one_subject_tells_no_threshold(connection: Connection) -> None:
    version = _backfilled(connection, 1)
    with pytest.raises(ContractError, match="too few subjects to tell a threshold: give one with --threshold"):
        thresholds.at(connection, version)


def test_the_migration_keeps_what_is_there(database: Database, connection: Connection) -> None:
    version = _backfilled(connection, 60)
    there = thresholds.stored(connection, version)
    thresholds.replace(connection, version, [*there, replace(SEARCH, automatic=True)])
    migrate(database, "downgrade", "0002")
    query = "SELECT fmr, threshold, comparisons, created_at FROM pfstore.thresholds ORDER BY fmr DESC"
    kept = [(one.target, one.threshold, one.comparisons, one.created_at) for one in there]
    assert connection.execute(query).fetchall() == kept
    assert not schema.status(database).is_current
    migrate(database, "upgrade", "head")
    migrated = thresholds.stored(connection, version)
    assert [(one.target, one.threshold, one.comparisons, one.created_at) for one in migrated] == kept
    assert {(one.kind, one.interval, one.templates, one.basis, one.automatic) for one in migrated} == {
        ("fmr", None, None, "gallery against gallery", True)
    }
    assert schema.check(database) == []
    _backfilled(connection, 60)
    assert all(one.interval for one in thresholds.stored(connection, version))
