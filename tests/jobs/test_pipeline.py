"""A pipeline gives what its stages give one after the other, and stops as they would."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from pfstore.errors import SourceError
from pfstore.fusion import load_model
from pfstore.gallery import models, runs
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Contract, Version, ensure
from pfstore.gallery.runs import Counts
from pfstore.gallery.writing import ShardWriter, staging
from pfstore.jobs.fusing import ShardFuser
from pfstore.jobs.pipeline import pipelined
from pfstore.sources.base import Reason, Reject, Shard, SourceBatch
from tests.memory import batch_of, people

FUSER = ShardFuser(load_model("average"), "media")
PER_SHARD = 3


@pytest.fixture
def batches() -> list[list[SourceBatch]]:
    """The batches of four shards, some with rejects and one of subjects that cancel."""
    subjects = list(people(60).items())
    made = [SourceBatch(batch_of(dict(subjects[first : first + 5]))) for first in range(0, 60, 5)]
    reject = Reject("nobody", "", "1", Reason.EMPTY, "NULL")
    made[4] = replace(made[4], rejects=[reject], rejected_subjects=["nobody"], excluded={"old": 3})
    features = np.array([[1, *[0] * 7], [-1, *[0] * 7]], dtype=np.float32)
    made[7] = SourceBatch(batch_of({"void": {"m": features}}))
    return [made[first : first + PER_SHARD] for first in range(0, len(made), PER_SHARD)]


def opened(connection: Connection, gallery: str, shards: int) -> tuple[Version, int]:
    model = models.resolve(connection, "average")
    version = ensure(connection, gallery, Contract("e", 8, model.normalisation, model.digest, "media"), 1)
    planned = [Shard({}, 0, 0)] * shards
    return version, runs.start(connection, version, kind="backfill", source="s", plan="p", shards=planned)


def one_after_the_other(connection: Connection, batches: list[list[SourceBatch]]) -> Counts:
    version, run = opened(connection, "plain", len(batches))
    total = Counts()
    with staging(connection, version, run) as writer:
        for number, shard in enumerate(batches):
            writer.clear()
            counts = Counts()
            for batch in shard:
                known = writer.known([*batch.features.subject_ids, *batch.rejected_subjects])
                fused = FUSER.fuse(batch, batch.features.fingerprints(), known)
                fused.write(writer)
                counts += fused.counts
            total += writer.commit(number, counts)
    return total


def piped(
    connection: Connection, version: Version, run: int, batches: Iterable[list[SourceBatch]], ahead: int
) -> Counts:
    total = Counts()

    def done(counts: Counts) -> None:
        nonlocal total
        assert threading.current_thread() is threading.main_thread()
        total += counts

    with (
        staging(connection, version, run) as writer,
        pipelined(connection, FUSER, writer, ahead=ahead, done=done) as pipeline,
    ):
        for number, shard in enumerate(batches):
            pipeline.begin()
            for batch in shard:
                pipeline.put(batch)
            pipeline.commit(number)
    return total


def written(connection: Connection, gallery: str) -> list[Any]:
    return connection.execute(
        "SELECT subject_id, template::text, features, media, fingerprint FROM pfstore.templates"
        " JOIN pfstore.versions USING (version_id) JOIN pfstore.galleries USING (gallery_id)"
        " WHERE name = %s ORDER BY 1",
        (gallery,),
    ).fetchall()


def accounts(connection: Connection, run: int) -> Mapping[str, Any]:
    found = runs.listed(connection, run_id=run)[0]
    return {"counts": found.counts, "excluded": found.excluded, "rejects": runs.rejects(connection, run)}


@pytest.mark.parametrize("ahead", [1, 40, 10_000])
def test_it_is_as_one_after_the_other(connection: Connection, batches: list[list[SourceBatch]], ahead: int) -> None:
    expected = one_after_the_other(connection, batches)
    version, run = opened(connection, "piped", len(batches))
    assert piped(connection, version, run, batches, ahead) == expected
    assert expected.rejected == 3
    assert written(connection, "piped") == written(connection, "plain") != []
    assert accounts(connection, run) == accounts(connection, run - 1)


def test_an_error_of_a_stage_is_raised_and_complete_shards_stay(
    connection: Connection, batches: list[list[SourceBatch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = batches[2][0].features.subject_ids[0]
    fuse = ShardFuser.fuse

    def odd(self: ShardFuser, batch: SourceBatch, *rest: Any) -> Any:
        if failing in batch.features.subject_ids:
            raise SourceError("odd")
        return fuse(self, batch, *rest)

    monkeypatch.setattr(ShardFuser, "fuse", odd)
    version, run = opened(connection, "g", len(batches))
    before = threading.active_count()
    with pytest.raises(SourceError, match="odd"):
        piped(connection, version, run, batches, 10_000)
    assert threading.active_count() == before
    assert [shard.done for shard in runs.shards(connection, run)] == [True, True, False, False]
    assert len(written(connection, "g")) == 30


def test_an_error_of_the_reader_ends_it_all(connection: Connection, batches: list[list[SourceBatch]]) -> None:
    version, run = opened(connection, "g", len(batches))

    def reading() -> Iterator[list[SourceBatch]]:
        yield batches[0]
        raise SourceError("gone")

    with pytest.raises(SourceError, match="gone"):
        piped(connection, version, run, reading(), 10_000)
    assert len(written(connection, "g")) == 15


def test_an_error_of_the_server_is_the_first_that_is_told(
    connection: Connection, batches: list[list[SourceBatch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(self: ShardWriter, _: Any) -> None:
        self._connection.execute("SELECT 1/0")

    monkeypatch.setattr(ShardWriter, "add", add)
    version, run = opened(connection, "g", len(batches))
    with pytest.raises(psycopg.errors.DivisionByZero):
        piped(connection, version, run, batches, 10_000)
    assert written(connection, "g") == []


def test_ctrl_c_leaves_no_thread(connection: Connection, batches: list[list[SourceBatch]]) -> None:
    version, run = opened(connection, "g", len(batches))
    before = threading.active_count()

    def reading() -> Iterator[list[SourceBatch]]:
        yield batches[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        piped(connection, version, run, reading(), 10_000)
    assert threading.active_count() == before


def test_ctrl_c_ends_a_statement_that_an_error_waits_for(
    connection: Connection, batches: list[list[SourceBatch]], database: Database
) -> None:
    version, run = opened(connection, "g", len(batches))
    before = threading.active_count()

    def interrupt() -> None:
        with database.connect() as watching:
            while watching.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
                time.sleep(0.01)
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def reading() -> Iterator[list[SourceBatch]]:
        yield batches[0]
        raise SourceError("gone")

    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE pfstore.templates IN SHARE MODE")
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            piped(connection, version, run, reading(), 10_000)
        interrupting.join()
        assert threading.active_count() == before
        assert connection.closed


def test_ctrl_c_ends_a_statement_that_waits(
    connection: Connection, batches: list[list[SourceBatch]], database: Database
) -> None:
    version, run = opened(connection, "g", len(batches))
    before = threading.active_count()
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE pfstore.templates IN SHARE MODE")

        def reading() -> Iterator[list[SourceBatch]]:
            yield batches[0]
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while other.execute(waiting).fetchone() == (0,):
                time.sleep(0.01)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            piped(connection, version, run, reading(), 10_000)
        assert threading.active_count() == before
        assert connection.closed
    with database.connect() as other:
        assert written(other, "g") == []
