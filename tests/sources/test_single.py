"""One subject read by itself is what reading everything gives of it, and costs no walk over the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.sources.base import FeatureSource, SourceBatch
from pfstore.sources.files import FileSource
from pfstore.sources.hdf5 import Hdf5Source
from pfstore.sources.keys import key_like
from pfstore.sources.single import SubjectRows, SubjectSource, read_subject
from pfstore.synthetic import Population, write_hdf5
from tests.memory import MemorySource, people
from tests.sources.stores import V, blob, execute, faces, insert, make_faces, opened, read_all
from tests.sources.test_sql import plan


def of_subject(batches: list[SourceBatch], subject: str) -> SourceBatch:
    """What a walk over everything gives of one subject."""
    parts = [
        (
            batch.features.select(np.array([one == subject for one in batch.features.subject_ids], dtype=bool)),
            [one for one in batch.rejects if one.subject == subject],
            [one for one in batch.rejected_subjects if one == subject],
        )
        for batch in batches
        if subject in batch.features.subject_ids or subject in batch.rejected_subjects
    ]
    ((features, rejects, gone),) = parts
    return SourceBatch(features, rejects, gone)


def assert_same(found: SubjectRows | None, expected: SourceBatch) -> None:
    assert found is not None
    batch = found.batch
    assert batch.features.fingerprints() == expected.features.fingerprints()
    assert batch.features.subject_ids == expected.features.subject_ids
    assert (batch.rejects, list(batch.rejected_subjects)) == (expected.rejects, list(expected.rejected_subjects))
    assert len(found.rows) == len(batch.features.features)


def names(batches: list[SourceBatch]) -> list[str]:
    return [name for batch in batches for name in (*batch.features.subject_ids, *batch.rejected_subjects)]


def test_rows_are_named_and_rejects_told(url: str) -> None:
    make_faces(url)
    rows = [("b", "1", V), ("a", "2", blob(1, 2, 3)), ("a", "2", blob(3, 1)), ("a", "1", None), ("a", "1", blob(0, 5))]
    insert(url, "faces", faces(*rows, (None, "1", V)))
    with opened(url) as source:
        assert isinstance(source, SubjectSource)
        found = source.read_subject("a", dimension=2)
        assert_same(found, of_subject(read_all(source), "a"))
        assert found is not None
        assert found.rows == ["4", "2"]
        assert [one.row for one in found.batch.rejects] == ["3", "1"]
        assert source.read_subject("c", dimension=2) is None


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("INTEGER", [7, 70, -7]),
        ("NUMERIC(8,2)", [1, 2.5, -0.25]),
        ("VARCHAR(40)", ["1", "01", "a/b", "%", "a%00", "Ä", "x y"]),
        ("DATE", ["2020-02-03", "2021-12-31"]),
        ("DOUBLE PRECISION", [1.5, 2, 1e300]),
    ],
)
def test_keys_of_any_type_are_found_by_their_text(url: str, kind: str, values: list[Any]) -> None:
    make_faces(url, person=kind)
    insert(url, "faces", faces(*((value, "m", blob(i + 1, 1)) for i, value in enumerate(values))))
    with opened(url) as source:
        batches = read_all(source)
        assert len(names(batches)) == len(values)
        for name in names(batches):
            assert_same(source.read_subject(name, dimension=2), of_subject(batches, name))
        for strange in ("no one", "99999999999999999999", "1e400", "nan", "0xzz", "3.25", ""):
            assert source.read_subject(strange, dimension=2) is None


def test_a_name_in_other_letters_is_another_subject(url: str) -> None:
    make_faces(url)
    insert(url, "faces", faces(("anna", "1", V), ("Anna", "1", blob(2, 2)), ("anna", "2", V)))
    with opened(url) as source:
        batches = read_all(source)
        for name in ("anna", "Anna"):
            assert_same(source.read_subject(name, dimension=2), of_subject(batches, name))
        assert source.read_subject("ANNA", dimension=2) is None


def test_composite_keys(url: str) -> None:
    make_faces(url, extra=", site INTEGER")
    rows = faces(("a/b", "1", V), ("a", "1", blob(2, 2)), ("a%", "2", V))
    insert(url, "faces", [row | {"site": 3} for row in rows])
    with opened(url, subject=["site", "person"]) as source:
        batches = read_all(source)
        assert sorted(names(batches)) == ["3/a", "3/a%25", "3/a%2Fb"]
        for name in names(batches):
            assert_same(source.read_subject(name, dimension=2), of_subject(batches, name))
        assert source.read_subject("a", dimension=2) is None


def test_what_only_a_walk_over_all_keys_finds(sqlite_url: str) -> None:
    make_faces(sqlite_url)
    insert(sqlite_url, "faces", faces(("plain", "1", V)))
    execute(sqlite_url, "INSERT INTO faces VALUES (9, CAST(X'ff61' AS TEXT), '1', X'0000803f00000040')")
    with opened(sqlite_url) as source:
        batches = read_all(source)
        assert "0xff61" in names(batches)
        assert_same(source.read_subject("0xff61", dimension=2), of_subject(batches, "0xff61"))


@pytest.mark.parametrize("kind", ["inet", "uuid", "timestamptz", "bytea"])
@pytest.mark.postgres15
def test_types_of_postgresqls_own(postgres15_url: str, kind: str) -> None:
    values = {
        "inet": ["10.0.0.1", "10.0.0.2"],
        "uuid": ["6f1c1f66-0000-4000-8000-000000000001"],
        "timestamptz": ["2020-01-01 10:00:00+02"],
        "bytea": [r"\x616263", r"\xff00"],
    }
    make_faces(postgres15_url, person=kind)
    execute(
        postgres15_url,
        *(rf"INSERT INTO faces VALUES ({i}, '{one}', 'm', '\x0000803f00000040')" for i, one in enumerate(values[kind])),
    )
    with opened(postgres15_url) as source:
        batches = read_all(source)
        assert len(names(batches)) == len(values[kind])
        for name in names(batches):
            assert_same(source.read_subject(name, dimension=2), of_subject(batches, name))
        assert source.read_subject("nobody at all", dimension=2) is None


def test_what_the_mapping_leaves_out_is_counted_for_the_subject(url: str) -> None:
    make_faces(url, extra=", gone INTEGER")
    rows = faces(("a", "1", V), ("a", "1", V), ("b", "1", V))
    insert(url, "faces", [row | {"gone": gone} for row, gone in zip(rows, (0, 1, 1), strict=True)])
    with opened(url, exclude={"deleted": "gone = 1"}) as source:
        found = source.read_subject("a", dimension=2)
        assert found is not None
        assert (found.rows, found.batch.excluded) == (["0"], {"deleted": 1})
        assert source.read_subject("b", dimension=2) is None


def test_rows_without_a_key_have_the_order_of_a_full_read(sqlite_url: str) -> None:
    execute(sqlite_url, "CREATE TABLE faces (person TEXT, image TEXT, vec BLOB)")
    rows = [{"person": "a", "image": "1", "vec": blob(9 - i, i)} for i in range(4)]
    insert(sqlite_url, "faces", rows)
    with opened(sqlite_url) as source:
        found = source.read_subject("a", dimension=2)
        assert_same(found, of_subject(read_all(source), "a"))
        assert found is not None
        assert found.rows == [""] * 4


def test_an_index_serves_one_subject(url: str) -> None:
    make_faces(url, extra=", tenant INTEGER")
    execute(url, "CREATE INDEX by_person ON faces (tenant, person, image)")
    rows = faces(*((f"{i:05d}", "1", V) for i in range(3000)))
    insert(url, "faces", [row | {"tenant": 1} for row in rows])
    with opened(url, subject=("tenant", "person")) as source, source._database.snapshot() as connection:
        first = next(source._rows.ranges_of(connection, "1/00077"))
        statement = source._rows.within(first)
    assert first == {"keys": [[1, "00077"]]}
    assert "by_person" in plan(url, statement)


def test_an_empty_store_has_nobody(url: str) -> None:
    make_faces(url)
    with opened(url) as source:
        assert source.read_subject("a", dimension=2) is None


def test_files(tmp_path: Path) -> None:
    population = Population(subjects=6, dimension=16, seed=3)
    folder = write_hdf5(tmp_path, population, damage=1)
    features = np.arange(12, dtype=np.float32).reshape(6, 2) + 1
    np.savez(tmp_path / "faces.npz", features=features, subject=["b", "a", "b", "é", "a", "b"], medium=list("yxxyzx"))
    sources: list[tuple[FeatureSource, int]] = [
        (Hdf5Source(folder, extractor="net", name="s"), 16),
        (FileSource(tmp_path / "faces.npz", extractor="net", name="s"), 2),
    ]
    for source, dimension in sources:
        with source:
            shards = list(source.shards(1000))
            batches = [one for shard in shards for one in source.read(shard.range, dimension=dimension, features=1000)]
            for name in names(batches):
                assert_same(read_subject(source, name, dimension=dimension), of_subject(batches, name))
            assert read_subject(source, "nobody", dimension=dimension) is None
    found = read_subject(sources[1][0], "b", dimension=2)
    assert found is not None
    assert found.rows == ["2", "5", "0"]
    damaged = read_subject(sources[0][0], population.name(0), dimension=16)
    assert damaged is not None
    assert damaged.batch.rejects
    assert "gallery/images/nan[0]" not in damaged.rows


def test_a_source_of_ones_own_is_walked_through() -> None:
    source = MemorySource(people(23))
    assert not isinstance(source, SubjectSource)
    found = read_subject(source, "s0021", dimension=8)
    assert found is not None
    assert found.batch.features.subject_ids == ["s0021"]
    assert set(found.rows) == {""}
    gone = replace(source, rejected_subjects=["ghost"])
    ghost = read_subject(gone, "ghost", dimension=8)
    assert ghost is not None
    assert (list(ghost.rows), list(ghost.batch.rejected_subjects)) == ([], ["ghost"])
    assert read_subject(source, "s9999", dimension=8) is None


def test_a_key_is_guessed_by_the_type_of_another() -> None:
    assert key_like("12", (5,)) == (12,)
    assert key_like("12", ("5",)) == ("12",)
    assert key_like("12", (5, "x")) is None
    assert key_like("12/a%2Fb", (5, "x")) == (12, "a/b")
    assert key_like("%/a", (5, "x")) is None
    assert key_like("abc", (b"x",)) == (b"abc",)
    assert key_like("True", (True,)) == (True,)
