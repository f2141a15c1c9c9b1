from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pfstore.errors import BusyError, ConflictError, ContractError, SourceError
from pfstore.features import Floats
from pfstore.fusion import Fuser, random_model
from pfstore.gallery import galleries, indexing, locking, models, runs, thresholds, tuning
from pfstore.gallery.database import Connection, Database
from pfstore.jobs.backfill import backfill, dry_run
from pfstore.jobs.summary import Progress
from pfstore.sources.base import Reason, Reject, Shard
from tests.memory import MemorySource, batch_of, people


@pytest.fixture
def average(connection: Connection) -> Fuser:
    return models.load(connection, models.resolve(connection, "average").digest)


def _table(connection: Connection) -> dict[str, tuple[object, ...]]:
    rows = connection.execute(
        "SELECT subject_id, template::text, features, media, fingerprint FROM pfstore.templates"
    ).fetchall()
    return {row[0]: row[1:] for row in rows}


def _templates(connection: Connection) -> dict[str, Floats]:
    return {
        name: np.array([float(value) for value in str(row[0]).strip("[]").split(",")], np.float32)
        for name, row in _table(connection).items()
    }


def test_every_subject_becomes_its_template(connection: Connection) -> None:
    subjects = people(45)
    fuser = random_model(8, experts=4, selected=3, seed=0)
    models.register(connection, fuser, "random")
    summary = backfill(connection, MemorySource(subjects), fuser, gallery="staff", source_name="memory")
    batch = batch_of(subjects)
    expected = fuser.templates_media(batch.features, batch.media_offsets, batch.subject_offsets)
    stored = _templates(connection)
    assert list(stored) == list(subjects)
    for name, template in zip(subjects, expected, strict=True):
        np.testing.assert_allclose(stored[name], template, atol=1e-3)
    assert summary.promoted
    assert summary.counts.read == summary.counts.fused == len(batch.features)
    assert summary.counts.seen == summary.counts.written == 45
    row = connection.execute("SELECT sum(features), sum(media) FROM pfstore.templates").fetchone()
    assert row == (len(batch.features), len(batch.media_ids))


def test_the_set_strategy_fuses_all_at_once(connection: Connection, average: Fuser) -> None:
    subjects = people(5)
    backfill(connection, MemorySource(subjects), average, gallery="s", source_name="memory", strategy="set")
    batch = batch_of(subjects)
    expected = average.templates(batch.features, batch.set_offsets)
    np.testing.assert_allclose(list(_templates(connection).values()), expected, atol=1e-3)


def test_media_need_media(connection: Connection, average: Fuser) -> None:
    source = MemorySource(people(2), has_media=False)
    with pytest.raises(ContractError, match='"media" needs a source with media'):
        backfill(connection, source, average, gallery="s", source_name="memory", strategy="media")


def test_a_second_run_writes_what_changed_and_nothing_else(connection: Connection, average: Fuser) -> None:
    subjects = people(30)
    backfill(connection, MemorySource(subjects), average, gallery="staff", source_name="memory")
    before = _table(connection)
    subjects["s0003"] = {"new": subjects["s0004"]["m0"] * 2}
    summary = backfill(connection, MemorySource(subjects), average, gallery="staff", source_name="memory")
    assert (summary.counts.written, summary.counts.unchanged) == (1, 29)
    assert not summary.promoted
    after = _table(connection)
    assert [name for name in after if after[name] != before[name]] == ["s0003"]


def test_rejects_are_kept_with_key_and_reason(connection: Connection, average: Fuser) -> None:
    rejects = [
        Reject("s0001", "m9", "17", Reason.NON_FINITE, "value 3 is nan"),
        Reject(None, "m1", "18", Reason.NO_SUBJECT, "NULL"),
        Reject("ghost", "m1", "19", Reason.EMPTY, "NULL"),
    ]
    source = MemorySource(people(6), rejects=rejects, rejected_subjects=["ghost"])
    summary = backfill(connection, source, average, gallery="staff", source_name="memory")
    counts = summary.counts
    assert counts.read == counts.fused + counts.rejected
    assert (counts.rejected, counts.subjects_rejected, counts.seen) == (3, 1, 7)
    assert summary.rejects == {"empty": 1, "no subject": 1, "non-finite": 1}
    assert summary.run is not None
    assert runs.rejects(connection, summary.run) == [
        {"subject": r.subject, "medium": r.medium, "row": r.row, "reason": r.reason, "detail": r.detail}
        for r in rejects
    ]


def test_a_subject_without_a_usable_feature_loses_its_template(connection: Connection, average: Fuser) -> None:
    subjects = people(6)
    backfill(connection, MemorySource(subjects), average, gallery="staff", source_name="memory")
    del subjects["s0002"]
    source = MemorySource(subjects, [Reject("s0002", "", "1", Reason.ZERO_NORM, "norm 0")], rejected_subjects=["s0002"])
    summary = backfill(connection, source, average, gallery="staff", source_name="memory")
    assert summary.counts.removed == 1
    assert "s0002" not in _table(connection)


def test_features_that_cancel_are_rejected_not_fatal(connection: Connection, average: Fuser) -> None:
    subjects = people(5)
    subjects["void"] = {"m0": np.array([[1] * 8], np.float32), "m1": np.array([[-1] * 8], np.float32)}
    subjects["hollow"] = {"m0": np.array([[1] * 8, [-1] * 8], np.float32), "m1": np.ones((1, 8), np.float32)}
    summary = backfill(connection, MemorySource(subjects), average, gallery="staff", source_name="memory")
    assert summary.counts.written == 5
    assert summary.counts.subjects_rejected == 2
    assert summary.rejects == {"cancelled out": 5}
    assert not {"void", "hollow"} & set(_table(connection))


def test_a_run_that_failed_goes_on_where_it_stopped(connection: Connection, average: Fuser) -> None:
    subjects = people(50)
    backfill(connection, MemorySource(subjects), average, gallery="whole", source_name="memory")
    undisturbed = _table(connection)
    galleries.drop(connection, "whole")
    read = 0

    def fail() -> None:
        nonlocal read
        read += 1
        if read == 13:
            raise SourceError("the store went away")

    with pytest.raises(SourceError):
        backfill(connection, MemorySource(subjects, reading=fail), average, gallery="staff", source_name="memory")
    assert len(_table(connection)) == 20
    run = runs.listed(connection)[0]
    assert (run.state, run.shards_done, run.shards) == ("running", 2, 5)
    summary = backfill(connection, MemorySource(subjects), average, gallery="staff", source_name="memory")
    assert summary.resumed
    assert summary.run == run.run_id
    assert summary.counts.written == 50
    assert _table(connection) == undisturbed


def test_another_plan_is_not_resumed(connection: Connection, average: Fuser, database: Database) -> None:
    source = MemorySource(people(30), reading=_stop_after(7))
    with pytest.raises(SourceError):
        backfill(connection, source, average, gallery="staff", source_name="memory")
    with database.connect() as other:
        # The first connection still holds the lock that its process would have given up by dying.
        connection.close()
        again = MemorySource(people(30))
        summary = backfill(other, again, average, gallery="staff", source_name="memory", mapping="WHERE b")
        assert not summary.resumed
        assert [run.state for run in runs.listed(other)] == ["done", "abandoned"]


def _stop_after(batches: int) -> Callable[[], None]:
    left = iter(range(batches))

    def reading() -> None:
        if next(left, None) is None:
            raise SourceError("the store went away")

    return reading


def test_two_runs_of_one_gallery(
    connection: Connection, average: Fuser, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "LOCK_PATIENCE", 0.0)
    said = []

    def second() -> None:
        with (
            database.connect() as other,
            pytest.raises(BusyError, match="another process is writing version 1") as e,
        ):
            backfill(other, MemorySource(people(2)), average, gallery="staff", source_name="memory")
        said.append(str(e.value))
        assert runs.listed(connection)[0].alive

    once = iter([second])
    source = MemorySource(people(20), reading=lambda: next(once, lambda: None)())
    backfill(connection, source, average, gallery="staff", source_name="memory")
    assert said
    assert len(_table(connection)) == 20


def test_subjects_that_vanished_lose_their_templates(connection: Connection, average: Fuser) -> None:
    subjects = people(30)
    backfill(connection, MemorySource(subjects), average, gallery="staff", source_name="memory")
    fewer = {name: media for name, media in subjects.items() if name >= "s0010"}
    fewer["s0020"] = {"new": subjects["s0021"]["m0"] * 2}
    summary = backfill(connection, MemorySource(fewer), average, gallery="staff", source_name="memory")
    assert (summary.counts.removed, summary.counts.unchanged, summary.counts.written) == (10, 19, 1)
    assert set(_table(connection)) == set(fewer)
    assert summary.run is not None
    assert runs.listed(connection, run_id=summary.run)[0].counts == summary.counts


def test_a_resumed_run_removes_no_subject_that_it_met_before(connection: Connection, average: Fuser) -> None:
    subjects = people(50)
    backfill(connection, MemorySource(subjects), average, gallery="staff", source_name="memory")
    stopped = MemorySource(subjects, reading=_stop_after(13))
    with pytest.raises(SourceError):
        backfill(connection, stopped, average, gallery="staff", source_name="memory")
    summary = backfill(connection, MemorySource(subjects), average, gallery="staff", source_name="memory")
    assert summary.resumed
    assert (summary.counts.unchanged, summary.counts.removed) == (50, 0)
    assert len(_table(connection)) == 50


def test_a_new_version_locks_nobody_out(connection: Connection, average: Fuser, database: Database) -> None:
    backfill(connection, MemorySource(people(5)), average, gallery="staff", source_name="memory")
    with database.connect() as reader, reader.transaction():
        reader.execute("SELECT count(*) FROM pfstore.templates")
        connection.execute("SET lock_timeout = '2s'")
        summary = backfill(connection, MemorySource(people(5)), average, gallery="other", source_name="memory")
    assert summary.promoted


def test_a_gallery_is_not_dropped_while_it_is_written(
    connection: Connection, average: Fuser, database: Database
) -> None:
    tried: list[bool] = []

    def drop() -> None:
        if not tried:
            tried.append(True)
            with database.connect() as other, pytest.raises(BusyError, match="another process is writing"):
                galleries.drop(other, "staff")

    source = MemorySource(people(20), reading=drop)
    backfill(connection, source, average, gallery="staff", source_name="memory")
    assert tried
    assert galleries.drop(connection, "staff") == 20


def test_ctrl_c_leaves_no_lock(connection: Connection, average: Fuser, database: Database) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    interrupted = MemorySource(people(20), reading=interrupt)
    with pytest.raises(KeyboardInterrupt):
        backfill(connection, interrupted, average, gallery="staff", source_name="memory")
    assert connection.closed
    with database.connect() as other:
        assert backfill(other, MemorySource(people(20)), average, gallery="staff", source_name="memory").resumed


def test_a_limit_takes_so_many_subjects(connection: Connection, average: Fuser) -> None:
    summary = backfill(connection, MemorySource(people(40)), average, gallery="g", source_name="m", limit=13)
    assert summary.counts.seen == summary.counts.written == 13
    assert len(_table(connection)) == 13
    assert (summary.promoted, summary.active) == (False, None)
    with pytest.raises(ConflictError, match="is not complete, so searches would miss people"):
        galleries.promote(connection, "g", 1)
    whole = backfill(connection, MemorySource(people(40)), average, gallery="g", source_name="m")
    assert (whole.counts.unchanged, whole.counts.written) == (13, 27)
    assert (whole.promoted, whole.active) == (True, 1)
    again = backfill(connection, MemorySource(people(40)), average, gallery="g", source_name="m", limit=13)
    assert (again.counts.removed, len(_table(connection))) == (0, 40)


def test_a_try_does_not_abandon_a_run(connection: Connection, average: Fuser) -> None:
    stopped = MemorySource(people(50), reading=_stop_after(13))
    with pytest.raises(SourceError):
        backfill(connection, stopped, average, gallery="g", source_name="m")
    backfill(connection, MemorySource(people(50)), average, gallery="g", source_name="m", limit=3)
    whole = backfill(connection, MemorySource(people(50)), average, gallery="g", source_name="m")
    assert whole.resumed
    assert whole.counts.seen == 50


def test_a_dry_run_counts_and_writes_nothing(connection: Connection, average: Fuser) -> None:
    rejects = [Reject("s0001", "m9", "17", Reason.EMPTY, "NULL")]
    summary = dry_run(MemorySource(people(20), rejects=rejects), average, gallery="staff")
    assert summary.run is None
    assert (summary.counts.seen, summary.counts.rejected) == (20, 1)
    assert summary.counts.read == summary.counts.fused + 1
    assert summary.rejects == {"empty": 1}
    assert galleries.names(connection) == []
    assert dry_run(MemorySource(people(20)), average, gallery="staff", limit=3).counts.seen == 3


def test_a_subject_in_two_shards_is_an_error(connection: Connection, average: Fuser) -> None:
    class Twice(MemorySource):
        def shards(self, features: int) -> Iterator[Shard]:
            first = next(super().shards(features))
            yield first
            yield first

    with pytest.raises(SourceError, match="'s0000' comes twice"):
        backfill(connection, Twice(people(4)), average, gallery="staff", source_name="memory")
    assert len(_table(connection)) == 4


def test_an_empty_source(connection: Connection, average: Fuser) -> None:
    with pytest.raises(SourceError, match="the source holds no feature"):
        backfill(connection, MemorySource({}), average, gallery="staff", source_name="memory")


def test_another_dimension_than_the_models(connection: Connection) -> None:
    fuser = random_model(16, experts=2, selected=1, seed=0)
    models.register(connection, fuser, "sixteen")
    with pytest.raises(ContractError, match="features have 8 values, the model 'proxyfusion' takes 16"):
        backfill(connection, MemorySource(people(2)), fuser, gallery="staff", source_name="memory")


def test_progress_ends_at_the_plan(connection: Connection, average: Fuser) -> None:
    seen: list[Progress] = []
    backfill(
        connection,
        MemorySource(people(40)),
        average,
        gallery="staff",
        source_name="memory",
        observer=seen.append,
    )
    assert [one.counts.read for one in seen] == sorted(one.counts.read for one in seen)
    assert seen[-1].counts.read == seen[-1].planned_features
    assert seen[-1].counts.seen == seen[-1].planned_subjects == 40


def test_a_second_contract_waits_for_promotion(connection: Connection, average: Fuser) -> None:
    backfill(connection, MemorySource(people(30)), average, gallery="staff", source_name="memory")
    other = models.load(connection, models.resolve(connection, "trimmed-mean").digest)
    summary = backfill(connection, MemorySource(people(30)), other, gallery="staff", source_name="memory")
    assert (summary.version, summary.promoted) == (2, False)
    assert galleries.version(connection, "staff").number == 1
    promoted = galleries.promote(connection, "staff", 2)
    assert thresholds.stored(connection, promoted)


def test_a_large_new_version_is_indexed_and_tuned(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfstore.jobs.working.INDEXED_FROM", 60)
    fuser = models.load(connection, models.resolve(connection, "average").digest)
    for name, count in (("small", 59), ("large", 60)):
        backfill(connection, MemorySource(people(count)), fuser, gallery=name, source_name="memory")
        version = galleries.version(connection, name)
        assert version.indexed == (name == "large")
        assert (tuning.stored(connection, version) is not None) == version.indexed
    indexing.drop(connection, version)
    backfill(connection, MemorySource(people(61)), fuser, gallery="large", source_name="memory")
    assert not galleries.version(connection, "large").indexed


def test_a_large_new_version_that_no_index_takes_is_searched_without(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pfstore.jobs.working.INDEXED_FROM", 2)
    features = np.random.default_rng(0).normal(size=(3, 1, galleries.HNSW_MOST_DIMENSIONS + 1)).astype(np.float32)
    source = MemorySource({f"s{number}": {"m": one} for number, one in enumerate(features)})
    fuser = models.load(connection, models.resolve(connection, "average").digest)
    assert backfill(connection, source, fuser, gallery="long", source_name="memory").promoted
    assert not galleries.version(connection, "long").indexed
