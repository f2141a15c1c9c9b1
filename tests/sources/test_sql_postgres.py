"""PostgreSQL's own types: vectors and arrays in binary, JSON, and keys that psycopg does not know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from pfstore.config import SourceConfig
from pfstore.sources.base import Reason, SourceBatch
from pfstore.sources.encodings.raw import Raw, SentArray
from pfstore.sources.sql import SqlSource


def execute(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def opened(url: str, encoding: str, **changes: Any) -> SqlSource:
    mapping: dict[str, Any] = {"table": "faces", "subject": "person", "extractor": "net"}
    mapping["feature"] = {"column": "vec", "encoding": encoding}
    return SqlSource(SourceConfig(url=url, **(mapping | changes)), "hr")


def read(source: SqlSource, dimension: int = 3) -> SourceBatch:
    (batch,) = source.read({"after": None, "to": None}, dimension=dimension, features=1000)
    return batch


@pytest.mark.parametrize("schema", ["public", "Extra"])
@pytest.mark.parametrize("kind", ["vector(3)", "halfvec(3)", "vector"])
def test_vectors_come_in_binary_wherever_pgvector_is(embedded_url: str, kind: str, schema: str) -> None:
    execute(
        embedded_url,
        f'CREATE SCHEMA IF NOT EXISTS "{schema}"',
        f'CREATE EXTENSION vector SCHEMA "{schema}"',
        f'CREATE TABLE faces (id int PRIMARY KEY, person text, vec "{schema}".{kind})',
        "INSERT INTO faces VALUES (1, 'a', '[1,-2,0.5]'), (2, 'a', NULL), (3, 'a', '[0,0,0]'), (4, 'b', '[3,4,5]')",
    )
    with opened(embedded_url, "pgvector") as source:
        assert isinstance(source._rows._encoding.leaf, Raw)
        batch = read(source)
        assert source.sample().dimension == 3
    assert batch.features.features.tolist() == [[1, -2, 0.5], [3, 4, 5]]
    assert [one.reason for one in batch.rejects] == [Reason.EMPTY, Reason.ZERO_NORM]


@pytest.mark.postgres15
@pytest.mark.parametrize("kind", ["real[]", "double precision[]"])
def test_arrays_come_in_binary(postgres15_url: str, kind: str) -> None:
    rows = ["'{1,-2,0.5}'", "'{3,4,5}'", "'{1,NULL,2}'", "'{}'", "NULL", "'{{1,2,3}}'", "'{1,2}'", "'{NaN,1,2}'"]
    rows += ["'{1e38,1e38,1}'", "'[0:2]={7,8,9}'"]
    execute(
        postgres15_url,
        f"CREATE TABLE faces (id int PRIMARY KEY, person text, vec {kind})",
        *(f"INSERT INTO faces VALUES ({i}, 'a', {row})" for i, row in enumerate(rows)),
    )
    with opened(postgres15_url, "array") as source:
        assert isinstance(source._rows._encoding.leaf, SentArray)
        batch = read(source)
    expected = [[1, -2, 0.5], [3, 4, 5], [1e38, 1e38, 1], [7, 8, 9]]
    assert batch.features.features.tolist() == np.array(expected, dtype=np.float32).tolist()
    assert [(one.row, one.reason, one.detail) for one in batch.rejects] == [
        ("2", Reason.UNDECODABLE, "NULL among the values"),
        ("3", Reason.EMPTY, "no values"),
        ("4", Reason.EMPTY, "NULL"),
        ("5", Reason.UNDECODABLE, "2 dimensions instead of a list of numbers"),
        ("6", Reason.WRONG_DIMENSION, "2 values instead of 3"),
        ("7", Reason.NON_FINITE, "1 of 3 values"),
    ]


@pytest.mark.postgres15
def test_double_precision_beyond_float32_is_not_finite(postgres15_url: str) -> None:
    execute(
        postgres15_url,
        "CREATE TABLE faces (id int PRIMARY KEY, person text, vec float8[])",
        "INSERT INTO faces VALUES (1, 'a', '{1e39,1}'), (2, 'a', '{1,1}')",
    )
    with opened(postgres15_url, "array") as source:
        batch = read(source, 2)
    assert [one.reason for one in batch.rejects] == [Reason.NON_FINITE]


@pytest.mark.postgres15
@pytest.mark.parametrize(
    ("kind", "encoding", "value"),
    [
        ("json", "json:embeddings", '\'{"embeddings": ["1", "2", "3"]}\''),
        ("jsonb", "json", "'[[1, 2, 3]]'"),
        ("text", "hex+float32-le", f"'{np.array([1, 2, 3], dtype='<f4').tobytes().hex()}'"),
        ("bytea", "float64-be", f"'\\x{np.array([1, 2, 3], dtype='>f8').tobytes().hex()}'"),
        ("numeric[]", "array", "'{1,2,3}'"),
        ("text", "pgvector", "'[1,2,3]'"),
        ("int[]", "array", "'{1,2,3}'"),
    ],
)
def test_other_columns_are_read_as_the_mapping_says(postgres15_url: str, kind: str, encoding: str, value: str) -> None:
    execute(
        postgres15_url,
        f"CREATE TABLE faces (person text, vec {kind})",
        f"INSERT INTO faces VALUES ('a', {value}), ('a', {value})",
    )
    with opened(postgres15_url, encoding) as source:
        assert read(source).features.features.tolist() == [[1, 2, 3], [1, 2, 3]]


@pytest.mark.postgres15
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("citext", ["Alice", "alice", "bob", "Bob"]),
        ("mood", ["sad", "happy", "angry"]),
        ("uuid", ["12345678-1234-5678-1234-567812345678", "ffffffff-1234-5678-1234-567812345678"]),
        ("timestamptz", ["2024-05-01 10:00:00+00:00", "2024-05-01 11:00:00+00:00"]),
        ("double precision", ["0.1", "7", "1e+300"]),
        ("inet", ["10.0.0.1/32", "10.0.0.2/32"]),
        ("boolean", ["True", "False"]),
        ("name", ["a", "B"]),
        ('text COLLATE "en-x-icu"', ["a", "B", "b", "Ä", "z"]),
    ],
)
def test_keys_of_any_type_are_cut_without_loss(postgres15_url: str, kind: str, values: list[str]) -> None:
    execute(
        postgres15_url,
        "SET timezone = 'UTC'",
        "CREATE EXTENSION IF NOT EXISTS citext" if kind == "citext" else "SELECT 1",
        "CREATE TYPE mood AS ENUM ('sad', 'happy', 'angry')",
        f"CREATE TABLE faces (id serial PRIMARY KEY, person {kind}, vec real[])",
        *(f"INSERT INTO faces (person, vec) VALUES ('{value}', '{{1,2,3}}')" for value in values * 3),
    )
    with opened(postgres15_url, "array") as source:
        shards = list(source.shards(1))
        batches = [b for one in shards for b in source.read(one.range, dimension=3, features=2)]
    assert sum(batch.read for batch in batches) == 3 * len(values)
    assert sorted(name for batch in batches for name in batch.features.subject_ids) == sorted(values)


@pytest.mark.postgres15
@pytest.mark.parametrize("kind", ["text", "varchar(9)", "char(5)"])
def test_keys_that_a_nondeterministic_collation_takes_as_equal_stay_apart(postgres15_url: str, kind: str) -> None:
    execute(
        postgres15_url,
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        f"CREATE TABLE faces (id serial PRIMARY KEY, person {kind} COLLATE ci, image {kind} COLLATE ci, vec real[])",
        *[
            "INSERT INTO faces (person, image, vec) SELECT p, i, '{1,2,3}'"
            " FROM unnest('{Anna,anna,ANNA}'::text[]) p, unnest('{X,x}'::text[]) i"
        ]
        * 3,
    )
    with opened(postgres15_url, "array", medium="image") as source:
        batches = [b for one in source.shards(1) for b in source.read(one.range, dimension=3, features=2)]
    assert sorted(name.strip() for batch in batches for name in batch.features.subject_ids) == ["ANNA", "Anna", "anna"]
    assert [count for batch in batches for count in np.diff(batch.features.media_offsets)] == [3] * 6


def test_names_with_capitals_are_quoted(embedded_url: str) -> None:
    execute(
        embedded_url,
        'CREATE TABLE "Face Search" ("faceId" int PRIMARY KEY, "personId" text, vec real[], "100%% off" int)',
        """INSERT INTO "Face Search" VALUES (1, 'a', '{1,2,3}', 5), (2, 'b', '{1,2,3}', 1)""",
    )
    quality = {"column": "100% off", "minimum": 3}
    with opened(embedded_url, "array", table="Face Search", subject="personId", quality=quality) as source:
        batch = read(source)
    assert (batch.features.subject_ids, [one.row for one in batch.rejects]) == (["a"], ["2"])


def test_a_view_is_as_good_as_a_table(embedded_url: str) -> None:
    execute(
        embedded_url,
        "CREATE TABLE rows (person text, vec real[])",
        "INSERT INTO rows VALUES ('a', '{1,2,3}')",
        "CREATE VIEW faces AS SELECT * FROM rows",
        "CREATE MATERIALIZED VIEW kept AS SELECT * FROM rows",
    )
    for table in ("faces", "kept"):
        with opened(embedded_url, "array", table=table) as source:
            assert read(source).read == 1
