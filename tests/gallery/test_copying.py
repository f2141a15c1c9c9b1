"""What is encoded for a binary COPY is what PostgreSQL has afterwards."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from pfstore.errors import SourceError
from pfstore.features import TemplateBatch
from pfstore.gallery import copying, galleries, models, writing
from pfstore.gallery.coarse import Coarse, halves
from pfstore.gallery.database import Database
from pfstore.gallery.galleries import Contract
from pfstore.gallery.runs import Counts
from pfstore.gallery.writing import ShardWriter, staging

KEYS = ["a", "Größe", "", "x" * 900, "tab\t\\N\n'\"", "人"]
DIMENSION = 20


def batch_of(keys: list[str], blocks: int, seed: int = 0) -> TemplateBatch:
    random = np.random.default_rng(seed)
    templates = random.standard_normal((len(keys), blocks * DIMENSION)).astype(np.float32)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    counts = np.arange(1, len(keys) + 1)
    return TemplateBatch(keys, templates, counts, 7 * counts, [random.bytes(15) + b"\0" for _ in keys])


def version_of(database: Database, blocks: int) -> galleries.Version:
    with database.connect() as connection:
        model = models.resolve(connection, "average")
        contract = Contract("e", DIMENSION, model.normalisation, model.digest, "set")
        return galleries.ensure(connection, f"g{blocks}", contract, blocks)


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("at_once", [1, 4, len(KEYS)])
def test_every_value_arrives(database: Database, blocks: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_VALUES_AT_ONCE", at_once * blocks * DIMENSION)
    version, batch = version_of(database, blocks), batch_of(KEYS, blocks)
    before = datetime.now(UTC)
    with database.connect() as connection, staging(connection, version, 41) as writer:
        writer.known(batch.subject_ids)
        writer.add(batch)
        writer.commit(0, Counts())
        rows = connection.execute(
            "SELECT subject_id, version_id, run_id, fused_at, features, media, fingerprint, residual,"
            " coarse::text, template::text FROM pfstore.templates"
        ).fetchall()
    found = {row[0]: row[1:] for row in rows}
    assert found.keys() == set(KEYS)
    coarse = Coarse.of(batch.templates, blocks)
    for at, key in enumerate(KEYS):
        number, run, fused_at, features, media, fingerprint, residual, inline, template = found[key]
        assert (number, run, features, media) == (version.version_id, 41, at + 1, 7 * at + 7)
        assert before <= fused_at <= datetime.now(UTC)
        assert fingerprint == batch.fingerprints[at]
        assert np.array_equal(values_of(template), batch.templates[at].astype(np.float16))
        assert (residual, inline) == (None, None) if blocks == 1 else residual == coarse.residuals[at]
        if blocks > 1:
            assert np.array_equal(values_of(inline), coarse.vectors[at])


def again(writer: ShardWriter, keys: list[str]) -> None:
    writer.known(keys)
    writer.add(batch_of(keys, 1))
    writer.commit(1, Counts())


def values_of(text: str) -> NDArray[np.float16]:
    return np.array(text.strip("[]").split(","), dtype=np.float32).astype(np.float16)


def test_halves_are_rounded_as_numpy_rounds() -> None:
    odd = [0, -0.0, 1 / 3, 1 + 2**-11, 1 + 3 * 2**-11]
    values = np.array([*(2.0**power for power in range(-26, 16)), *odd], dtype=np.float32)
    assert np.array_equal(halves(values).view(np.uint16), values.astype(np.float16).view(np.uint16))


@pytest.mark.parametrize("most_held", [0, writing.MOST_HELD])
def test_a_shard_is_seen_as_a_whole_or_not_at_all(
    database: Database, most_held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MOST_HELD", most_held)
    version = version_of(database, 1)
    count = f"SELECT count(*) FROM pfstore.templates WHERE version_id = {version.version_id}"
    with database.connect() as connection, database.connect() as other:
        with staging(connection, version, 1) as writer:
            writer.add(batch_of(["a", "b"], 1))
            assert other.execute(count).fetchone() == (0,)
            writer.clear()
            writer.add(batch_of(["a"], 1))
            writer.commit(0, Counts())
            assert other.execute(count).fetchone() == (1,)
            writer.add(batch_of(["c"], 1))
        assert other.execute(count).fetchone() == (1,)


def test_no_lock_is_held_while_a_shard_is_read(database: Database) -> None:
    version, other = version_of(database, 1), version_of(database, 2)
    with database.connect() as connection, database.connect() as dropping:
        with staging(connection, other, 1) as writer:
            writer.add(batch_of(["a"], 2))
            writer.commit(0, Counts())
        with staging(connection, version, 1) as writer:
            writer.known(["a"])
            writer.add(batch_of(["a"], 1))
            assert galleries.drop(dropping, other.gallery) == 1
            writer.commit(0, Counts())
        assert connection.execute("SELECT count(*) FROM pfstore.templates").fetchone() == (1,)


def test_keys_travel_in_the_encoding_of_the_connection(database: Database) -> None:
    version, keys = version_of(database, 1), ["Größe", "é"]
    with database.connect() as connection:
        connection.execute("SET client_encoding TO latin1")
        with staging(connection, version, 1) as writer:
            writer.add(batch_of(keys, 1))
            writer.commit(0, Counts())
        with staging(connection, version, 2) as writer:
            assert writer.known(keys).keys() == set(keys)


@pytest.mark.parametrize("most_held", [0, writing.MOST_HELD])
def test_what_a_run_before_wrote_is_replaced(
    database: Database, most_held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MOST_HELD", most_held)
    version = version_of(database, 1)
    with database.connect() as connection:
        for run in (1, 2):
            batches = [batch_of(keys, 1, seed=run) for keys in (["a", "b"], ["c"])]
            with staging(connection, version, run) as writer:
                # As a pipeline does: the second batch is asked about before the first is written.
                for batch in batches:
                    writer.known(batch.subject_ids)
                for batch in batches:
                    writer.add(batch)
                writer.commit(0, Counts())
        found = dict(connection.execute("SELECT subject_id, fingerprint FROM pfstore.templates").fetchall())
    assert found == {key: one for b in batches for key, one in zip(b.subject_ids, b.fingerprints, strict=True)}


@pytest.mark.parametrize("later_shard", [False, True])
def test_a_rejected_key_does_not_remove_what_the_run_wrote_for_one_that_looks_alike(
    database: Database, later_shard: bool
) -> None:
    version = version_of(database, 1)
    with database.connect() as connection, staging(connection, version, 1) as writer:
        writer.add(batch_of(["a", "b"], 1))
        if later_shard:
            writer.commit(0, Counts())
        writer.reject([], ["b"])
        with pytest.raises(SourceError, match="the subject 'b' comes twice"):
            writer.commit(1, Counts())


@pytest.mark.parametrize("later_shard", [False, True])
@pytest.mark.parametrize("was_empty", [False, True])
@pytest.mark.parametrize("most_held", [0, writing.MOST_HELD])
def test_a_subject_cannot_come_twice(
    database: Database, later_shard: bool, was_empty: bool, most_held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MOST_HELD", most_held)
    version = version_of(database, 1)
    with database.connect() as connection:
        if not was_empty:
            with staging(connection, version, 1) as writer:
                writer.add(batch_of(["before"], 1))
                writer.commit(0, Counts())
        with staging(connection, version, 2) as writer:
            writer.known(["a", "b"])
            writer.add(batch_of(["a", "b"], 1))
            if later_shard:
                writer.commit(0, Counts())
            with pytest.raises(SourceError, match="the subject 'b' comes twice"):
                again(writer, ["c", "b"])
        (number,) = connection.execute("SELECT count(*) FROM pfstore.templates").fetchone() or (None,)
    assert number == (not was_empty) + 2 * later_shard
