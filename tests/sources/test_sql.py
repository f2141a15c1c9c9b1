"""SQL stores on every engine: each row accounted for, each subject in one shard, whatever the keys look like."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfstore.errors import SourceError
from pfstore.sources.base import Reason, Shard, SourceBatch
from pfstore.sources.sql import SqlSource
from tests.sources.stores import (
    V,
    as_feature_source,
    blob,
    execute,
    faces,
    insert,
    make_faces,
    opened,
    read,
    read_all,
    rejects,
    subjects,
)

Item = TypeVar("Item")


def test_every_row_is_a_feature_or_a_counted_reject(url: str) -> None:
    make_faces(url, extra=", score FLOAT, net VARCHAR(20)")
    damaged = {
        Reason.EMPTY: None,
        Reason.UNDECODABLE: V[:-1],
        Reason.WRONG_DIMENSION: blob(1, 2, 3),
        Reason.NON_FINITE: blob(np.inf, 1),
        Reason.ZERO_NORM: blob(0, 0),
    }
    rows = faces(("a", "1", V), ("a", "1", V), *[("a", "2", vec) for vec in damaged.values()])
    rows += [{"id": 10, "person": "a", "image": "3", "vec": b""}, {"id": 11, "person": None, "image": "3", "vec": V}]
    rows += [{"id": 12, "person": "", "image": "3", "vec": V}]
    rows = [{"score": 0.9, "net": "net", **row} for row in rows]
    rows += [
        {"id": 20 + i, "person": "a", "image": "4", "vec": V, "net": "net", "score": score}
        for i, score in enumerate((0.1, None))
    ]
    rows += [
        {"id": 30 + i, "person": "b", "image": "4", "vec": V, "net": net, "score": 1}
        for i, net in enumerate(("old", None))
    ]
    insert(url, "faces", rows)
    with opened(
        url, extractor={"column": "net", "value": "net"}, quality={"column": "score", "minimum": 0.5}
    ) as source:
        batches = read_all(source)
    found = rejects(batches)
    expected = Counter(list(damaged)) + Counter({Reason.EMPTY: 1, Reason.NO_SUBJECT: 2, Reason.LOW_QUALITY: 2})
    assert Counter(one.reason for one in found) == expected
    assert sum(batch.read for batch in batches) == len(rows) - 2  # those of other extractors are not read
    assert subjects(batches) == ["a"]
    assert [one.row for one in found if one.reason is Reason.LOW_QUALITY] == ["20", "21"]
    assert {one.medium for one in found if one.reason is Reason.ZERO_NORM} == {"2"}


def test_a_sample_tells_what_the_store_looks_like(url: str) -> None:
    make_faces(url)
    insert(
        url,
        "faces",
        faces(
            ("a", "1", V),
            ("b", "1", blob(3, 4)),
            ("a", "2", V),
            ("a", None, V),
            ("b", "1", None),
            ("c", "1", blob(1)),
            (None, "1", V),
        ),
    )
    with opened(url) as source:
        sample = as_feature_source(source).sample()
        assert (sample.dimension, sample.read, sample.subjects, sample.media) == (2, 7, 3, 5)
        assert sorted(sample.norms) == pytest.approx([5**0.5] * 3 + [5])
        assert sorted(one.reason for one in sample.rejects) == ["empty", "no subject", "wrong dimension"]
        assert source.sample(2).read == 2
        assert source.has_media
        assert source.extractor == "net"


def test_an_empty_store_gives_shards_of_nothing_and_an_empty_sample(url: str) -> None:
    make_faces(url)
    with opened(url) as source:
        shards = list(source.shards(10))
        assert [(one.features, one.subjects) for one in shards] == [(0, 0), (0, 0)]
        assert [batch for one in shards for batch in read(source, one)] == []
        assert source.sample().dimension is None


def test_rows_of_one_medium_keep_the_order_of_the_primary_key(url: str) -> None:
    make_faces(url)
    rows = faces(*[("a", "1", blob(i + 1, 0)) for i in range(50)])
    insert(url, "faces", reversed(rows))
    with opened(url) as source:
        (batch,) = read_all(source)
    assert batch.features.features[:, 0].tolist() == list(range(1, 51))


def test_keys_that_compare_as_equal_stay_apart_and_adjacent(url: str) -> None:
    collation = {"sqlite": "VARCHAR(40) COLLATE NOCASE", "mysql": "VARCHAR(40) COLLATE utf8mb4_general_ci"}
    kind = collation.get(sa.make_url(url).get_backend_name(), "VARCHAR(40)")
    make_faces(url, person=kind, image=kind)
    names = ["Alice", "alice", "ALICE", "bob", "Bob", "bob "]
    insert(url, "faces", faces(*[(name, medium, V) for _ in range(3) for name in names for medium in ("X", "x")]))
    with opened(url) as source:
        shards = list(source.shards(1))
        batches = [batch for shard in shards for batch in read(source, shard)]
    assert sorted(subjects(batches)) == sorted(names)
    assert not rejects(batches)
    counts = [count for batch in batches for count in np.diff(batch.features.media_offsets)]
    assert counts == [3] * 12
    if sa.make_url(url).get_backend_name() == "mysql":
        assert len(shards) == 3
        assert sum(shard.features for shard in shards) == 36


def test_trailing_blanks_make_another_subject_in_sqlite(sqlite_url: str) -> None:
    make_faces(sqlite_url, person="TEXT COLLATE RTRIM")
    insert(sqlite_url, "faces", faces(*[(name, "1", V) for _ in range(3) for name in ("a", "a ", "a  ")]))
    with opened(sqlite_url) as source:
        assert subjects(read_all(source, size=1)) == ["a", "a ", "a  "]


def test_sqlite_text_that_is_no_utf8_is_read_and_cut(sqlite_url: str) -> None:
    make_faces(sqlite_url, extra=", score TEXT")
    insert(sqlite_url, "faces", faces(*[(name, "1", V) for name in "abc"], score="9"))
    execute(
        sqlite_url,
        "UPDATE faces SET person = CAST(x'62ff' AS TEXT), image = CAST(x'fe' AS TEXT) WHERE person = 'b'",
        "INSERT INTO faces VALUES (9, 'd', '1', x'00', CAST(x'3100ff' AS TEXT))",
    )
    with opened(sqlite_url, quality={"column": "score", "minimum": 5}) as source:
        shards = list(source.shards(1))
        batches = [batch for shard in shards for batch in read(source, shard)]
        assert source.sample().subjects == 4
    assert subjects(batches) == ["a", "0x62ff", "c"]
    assert [medium for batch in batches for medium in batch.features.media_ids] == ["1", "0xfe", "1"]
    assert sum(batch.read for batch in batches) == sum(shard.features for shard in shards) == 4
    with opened(sqlite_url, feature={"column": "image", "encoding": "json"}) as source:
        assert [one.reason for batch in read_all(source) for one in batch.rejects] == [Reason.UNDECODABLE] * 4


def test_composite_keys_are_cut_and_read(url: str) -> None:
    make_faces(url, extra=", tenant INTEGER")
    rows = [
        {"id": i, "tenant": tenant, "person": person, "image": "x", "vec": V}
        for i, (tenant, person) in enumerate(
            (t, p) for t in (1, 2, None) for p in ("a/b", "c", None, "") for _ in range(3)
        )
    ]
    insert(url, "faces", rows)
    with opened(url, subject=("tenant", "person"), medium=("image", "person")) as source:
        for size in (1, 3, 4, 7, 100):
            shards = list(source.shards(size))
            batches = [batch for shard in shards for batch in read(source, shard)]
            assert sorted(subjects(batches)) == ["1/a%2Fb", "1/c", "2/a%2Fb", "2/c"]
            assert sum(batch.read for batch in batches) == len(rows) == sum(shard.features for shard in shards)
            assert Counter(one.reason for one in rejects(batches)) == {Reason.NO_SUBJECT: 24}
            assert shards[-1].subjects == 0
        assert batches[0].features.media_ids[0] == "x/a%2Fb"


def test_rows_without_subject_are_read_without_their_features(url: str) -> None:
    make_faces(url)
    insert(url, "faces", faces(("a", "1", V), *[(None, "1", b"x" * 100)] * 5))
    with opened(url) as source:
        *_, nobody = source.shards(1)
        assert (nobody.features, nobody.subjects) == (5, 0)
        (batch,) = read(source, nobody)
    assert [(one.reason, one.subject) for one in batch.rejects] == [(Reason.NO_SUBJECT, None)] * 5
    assert batch.subjects == 0


def test_subjects_that_come_after_the_cut_are_in_a_shard(url: str) -> None:
    make_faces(url)
    insert(url, "faces", faces(*[(name, "1", V) for name in "dfhjln"]))
    with opened(url) as source:
        shards = list(source.shards(2))
        later = [*"aegikmz", None]
        insert(url, "faces", [{"id": 100 + i, "person": name, "image": "1", "vec": V} for i, name in enumerate(later)])
        batches = [batch for shard in shards for batch in read(source, shard)]
    assert len(shards) == 4
    assert subjects(batches) == sorted("dfhjlnaegikmz")
    assert [one.reason for one in rejects(batches)] == [Reason.NO_SUBJECT]


def test_subjects_that_come_into_a_store_without_any_are_in_a_shard(url: str) -> None:
    make_faces(url)
    insert(url, "faces", faces((None, "1", V)))
    with opened(url) as source:
        shards = list(source.shards(2))
        insert(url, "faces", [{"id": 7, "person": "a", "image": "1", "vec": V}])
        assert subjects(batch for shard in shards for batch in read(source, shard)) == ["a"]


def test_a_medium_of_null_is_as_an_empty_one(url: str) -> None:
    make_faces(url)
    insert(url, "faces", faces(("a", None, V), ("a", "b", V), ("a", "", V), ("a", None, V)))
    with opened(url) as source:
        (batch,) = read_all(source)
    assert batch.features.media_ids == ["", "b"]
    assert batch.features.media_offsets.tolist() == [0, 3, 4]


def test_the_filter_is_the_users_own_sql(url: str) -> None:
    make_faces(url)
    insert(url, "faces", faces(("a:b", "50%", V), ("a:b", "x", V), ("c", "50%", V)))
    with opened(url, where="person LIKE '%:b' AND image = '50%' -- and that is all") as source:
        (batch,) = read_all(source)
        assert source.sample().read == 1
    assert (subjects([batch]), batch.features.media_ids) == (["a:b"], ["50%"])


def test_a_query_may_join(url: str) -> None:
    make_faces(url)
    execute(url, "CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR(20), hidden INTEGER)")
    insert(url, "people", [{"id": 1, "name": "anna", "hidden": 0}, {"id": 2, "name": "bert", "hidden": 1}])
    insert(url, "faces", faces(("1", "x", blob(2, 1)), ("2", "x", V), ("1", "x", blob(1, 1))))
    query = """
        SELECT p.name AS who, f.image, f.vec -- the names, not the numbers; 100%
        FROM faces f JOIN people p ON f.person = CAST(p.id AS CHAR(1)) WHERE p.hidden = 0 AND 'a:b;' <> ''
        ;
    """
    with opened(url, table=None, query=query, subject="who") as source:
        (batch,) = read_all(source)
        again = read_all(source)
    assert subjects([batch]) == ["anna"]
    assert sorted(batch.features.features[:, 0].tolist()) == [1, 2]
    assert again[0].features.fingerprints() == batch.features.fingerprints()


def test_rows_without_a_key_give_the_same_batch_in_any_order(sqlite_url: str) -> None:
    prints = []
    for order in (1, -1):
        execute(sqlite_url, "DROP TABLE IF EXISTS faces", "CREATE TABLE faces (person TEXT, image TEXT, vec BLOB)")
        rows = [{"person": "a", "image": "1", "vec": blob(i, 1)} for i in range(20)]
        insert(sqlite_url, "faces", rows[::order])
        with opened(sqlite_url) as source:
            prints += read_all(source)[0].features.fingerprints()
    assert prints[0] == prints[1]


def test_an_extractor_column_must_hold_one_name(url: str) -> None:
    make_faces(url, extra=", net VARCHAR(20)")
    insert(
        url,
        "faces",
        [{**row, "net": net} for row, net in zip(faces(*[("a", "1", V)] * 3), ("new", None, "new"), strict=True)],
    )
    with opened(url, extractor={"column": "net"}) as source:
        assert source.extractor == "new"
        insert(url, "faces", [{"id": 9, "person": "b", "image": "1", "vec": V, "net": "old"}])
        batches = read_all(source)
    assert [(one.reason, one.detail) for one in rejects(batches)] == [
        (Reason.OTHER_EXTRACTOR, "NULL"),
        (Reason.OTHER_EXTRACTOR, "old"),
    ]
    with (
        opened(url, extractor={"column": "net"}) as source,
        pytest.raises(SourceError, match=r"new, old.*value = \"new\""),
    ):
        source.sample()
    with opened(url, extractor={"column": "net", "value": "old"}) as source:
        assert source.extractor == "old"
        assert source.sample().read == 1


def test_an_extractor_column_without_a_name_is_an_error(sqlite_url: str) -> None:
    make_faces(sqlite_url, extra=", net TEXT")
    with (
        opened(sqlite_url, extractor={"column": "net"}) as source,
        pytest.raises(SourceError, match="names no extractor"),
    ):
        source.sample()


@pytest.mark.mariadb
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("ENUM('zed', 'bob', 'anna')", ["anna", "bob", "zed"]),
        ("SET('zed', 'bob', 'anna')", ["anna", "zed,bob"]),
        ("VARCHAR(20) CHARACTER SET latin1", ["é", "E", "z", "ä", "Ä"]),
        ("UUID", ["12345678-1234-5678-1234-567812345678", "02345678-1234-5678-1234-567812345679"]),
        ("DOUBLE", ["0.1", "7.5"]),
        ("FLOAT", ["0.1", "0.2", "7.5"]),
        ("DATETIME(3)", ["2023-01-01 00:00:00", "2024-01-01 10:00:00"]),
    ],
)
def test_keys_of_mariadbs_own_types_are_cut_without_loss(mariadb_url: str, kind: str, values: list[str]) -> None:
    make_faces(mariadb_url, person=kind)
    insert(mariadb_url, "faces", faces(*[(value, "1", V) for value in values * 3]))
    with opened(mariadb_url) as source:
        batches = read_all(source, size=1)
    assert sorted(subjects(batches)) == sorted(values)
    assert sum(batch.read for batch in batches) == 3 * len(values)


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_binary_keys_are_text_or_digits(url: str, size: int) -> None:
    kinds = {"sqlite": "VARBINARY(42)", "mysql": "VARBINARY(42)", "postgresql": "BYTEA"}
    make_faces(url, person=kinds[sa.make_url(url).get_backend_name()])
    names = [b"anna", b"Anna", b"\xff\x00\x01", "é".encode(), b"0xff00"]
    insert(url, "faces", faces(*[(name, "1", V) for name in names for _ in range(2)]))
    with opened(url) as source:
        found = subjects(read_all(source, size))
    assert sorted(found) == sorted(["anna", "Anna", "0xff0001", "é", "0x307866663030"])


@pytest.mark.parametrize(
    ("kind", "values", "texts"),
    [
        ("BIGINT", [2**40, -5, 7], ["-5", "7", str(2**40)]),
        ("DECIMAL(20,2)", ["1.50", "10", "9"], ["1.5", "9", "10"]),
        ("DATE", ["2024-05-01", "1999-01-01"], ["1999-01-01", "2024-05-01"]),
        ("CHAR(5)", ["ab", "abc"], None),
    ],
)
def test_keys_of_other_types_are_cut_too(url: str, kind: str, values: list[Any], texts: list[str] | None) -> None:
    make_faces(url, person=kind)
    insert(url, "faces", faces(*[(value, "1", V) for value in values]))
    with opened(url) as source:
        shards = list(source.shards(1))
        found = [subject for shard in shards for subject in subjects(read(source, shard))]
    assert len(shards) == len(values) + 1
    assert texts is None or found == texts
    assert len(found) == len(values)


def test_a_subject_of_any_size_is_one_batch(url: str) -> None:
    make_faces(url)
    insert(url, "faces", faces(*[("a", "1", V)] * 2, *[("b", "1", V)] * 5000, ("c", "1", V)))
    with opened(url) as source:
        shard, _ = source.shards(10_000)
        batches = read(source, shard, features=100)
    assert [(list(batch.features.subject_ids), batch.read) for batch in batches] == [
        (["a"], 2),
        (["b"], 5000),
        (["c"], 1),
    ]


def test_a_read_that_is_left_early_leaves_nothing_open(url: str) -> None:
    make_faces(url)
    insert(url, "faces", faces(*[(f"{i:05d}", "1", blob(*range(1, 100))) for i in range(8_000)]))
    with opened(url) as source:
        shard, _ = source.shards(1_000_000)
        with closing(generator(source.read(shard.range, dimension=99, features=10))) as batches:
            assert next(batches).read == 10
        with pytest.raises(KeyboardInterrupt):
            interrupted(source, shard)
        with closing(generator(source.shards(1))) as shards:
            next(shards)
    # A lock that was left would stop this, and be said by a timeout.
    execute(url, "DROP TABLE faces")


def generator(items: Iterator[Item]) -> Generator[Item]:
    assert isinstance(items, Generator)
    return items


def interrupted(source: SqlSource, shard: Shard) -> Iterator[SourceBatch]:
    for _ in source.read(shard.range, dimension=99, features=10):
        raise KeyboardInterrupt
    return iter(())


def test_memory_is_that_of_a_page_and_a_batch(url: str) -> None:
    make_faces(url)
    value = blob(*range(1, 1001))
    insert(url, "faces", faces(*[(f"{i:05d}", "1", value) for i in range(8_000)]))
    with opened(url) as source:
        shard, _ = source.shards(1_000_000)
        tracemalloc.start()
        total = sum(batch.read for batch in source.read(shard.range, dimension=1000, features=500))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert total == 8_000
    assert peak < 20e6  # of 32 MB that are in the store; a page is 4 MB, held as read and as decoded


KEYS = st.none() | st.text("aAbB/%é ", max_size=3)


@given(st.lists(KEYS, max_size=30), st.lists(KEYS, max_size=5), st.integers(1, 8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shards_hold_every_row_once(
    sqlite_url: str, before: list[str | None], after: list[str | None], size: int
) -> None:
    execute(sqlite_url, "DROP TABLE IF EXISTS faces")
    make_faces(sqlite_url, person="TEXT COLLATE NOCASE")
    if before:
        insert(sqlite_url, "faces", faces(*[(key, "1", V) for key in before]))
    with opened(sqlite_url) as source:
        shards = list(source.shards(size))
        later = [{"id": 1000 + i, "person": key, "image": "1", "vec": V} for i, key in enumerate(after)]
        if later:
            insert(sqlite_url, "faces", later)
        batches = [batch for shard in shards for batch in read(source, shard, features=3)]
    assert sum(shard.features for shard in shards) == len(before)
    assert sorted(subjects(batches)) == sorted({key for key in before + after if key})
    assert sum(batch.read for batch in batches) == len(before) + len(later)


def test_one_column_of_numbers_and_text_is_refused(sqlite_url: str) -> None:
    execute(sqlite_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, person, image, vec BLOB)")
    insert(sqlite_url, "faces", faces((1, "1", V), ("1", "1", V)))
    with opened(sqlite_url) as source:
        with pytest.raises(SourceError, match="'person' are numbers and str"):
            list(source.shards(10))
        with pytest.raises(SourceError, match="CAST\\(person AS TEXT\\)"):
            list(source.read({"after": None, "to": None}, dimension=2, features=10))


def test_an_index_serves_a_range(url: str) -> None:
    make_faces(url, extra=", tenant INTEGER")
    execute(url, "CREATE INDEX by_person ON faces (tenant, person, image)")
    insert(url, "faces", faces(*[(f"{i:05d}", "1", V) for i in range(3000)], tenant=1))
    with opened(url, subject=("tenant", "person")) as source:
        shards = list(source.shards(100))
        assert len(shards) == 31
        assert subjects(read(source, shards[3])) == [f"1/{i:05d}" for i in range(300, 400)]
        statement = source._rows.within(shards[3].range)
    assert "by_person" in plan(url, statement)


def plan(url: str, statement: sa.Select[Any]) -> str:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    compiled = statement.compile(engine)
    values: Any = compiled.params
    if engine.dialect.name == "sqlite":
        values = tuple(compiled.params[name] for name in compiled.positiontup or ())
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        return str(connection.exec_driver_sql(f"{explain} {compiled}", values).all())
