"""What a mapping leaves out is counted by cause, and cells too large for any feature are never fetched."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from pfstore.config import SourceConfig
from pfstore.errors import SourceError
from pfstore.fusion import load_model
from pfstore.gallery import models, runs
from pfstore.gallery.database import Connection
from pfstore.jobs import working
from pfstore.jobs.backfill import backfill, dry_run
from pfstore.jobs.summary import Progress
from pfstore.sources.base import Reason, SourceBatch
from pfstore.sources.encodings.values import MAX_BYTES
from tests.sources.stores import V, blob, execute, faces, insert, make_faces, opened, read_all, rejects, subjects

EXCLUDE = {"deleted": "deleted = 1", "guessed": "label = 'guessed' -- by a machine", "never": "label = 'no such'"}


def excluded(batches: list[SourceBatch]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for batch in batches:
        total.update(batch.excluded)
    return dict(total)


def make_store(url: str) -> None:
    make_faces(url, extra=", deleted INTEGER, label VARCHAR(20)")
    rows = [
        ("anna", "1", V, 0, None),
        ("anna", "2", V, 1, None),
        ("anna", "3", V, None, "named"),
        ("bert", "4", V, 1, "guessed"),
        ("carl", "5", V, 0, "guessed"),
        ("dora", "6", blob(0, 0), 0, ""),
        (None, "7", V, 0, None),
        (None, "8", V, 1, None),
    ]
    named = zip(faces(*(row[:3] for row in rows)), rows, strict=True)
    insert(url, "faces", [face | {"deleted": row[3], "label": row[4]} for face, row in named])


def test_each_excluded_row_is_counted_for_the_first_cause_that_holds(url: str) -> None:
    make_store(url)
    with opened(url, exclude=EXCLUDE) as source:
        batches = read_all(source, size=1)
        sample = source.sample()
    assert subjects(batches) == ["anna"]
    assert sum(len(batch.features.features) for batch in batches) == 2
    assert Counter(one.reason for one in rejects(batches)) == {Reason.ZERO_NORM: 1, Reason.NO_SUBJECT: 1}
    assert excluded(batches) == {"deleted": 3, "guessed": 1}
    assert sum(batch.read for batch in batches) + 4 == 8
    assert sample.read == 4
    assert sample.excluded == {"deleted": 3, "guessed": 1}


def test_shards_are_planned_without_what_is_excluded(url: str) -> None:
    make_store(url)
    with opened(url, exclude=EXCLUDE) as source:
        shards = list(source.shards(1))
    assert [(shard.features, shard.subjects) for shard in shards] == [(2, 1), (1, 1), (1, 0)]


def test_a_cause_that_is_false_excludes_nothing(url: str) -> None:
    make_store(url)
    with opened(url, exclude=EXCLUDE | {"deleted": False}) as source:
        assert excluded(read_all(source)) == {"guessed": 2}


@pytest.mark.parametrize("condition", ["no_such_column = 1", "deleted = "])
def test_a_condition_that_is_no_sql_is_said_at_opening(url: str, condition: str) -> None:
    make_store(url)
    with pytest.raises(SourceError, match="source hr"):
        opened(url, exclude={"odd": condition})


def test_a_query_may_name_the_key_of_its_rows(url: str) -> None:
    make_store(url)
    query = "SELECT f.id AS number, f.person, f.image, f.vec FROM faces f"
    with opened(url, table=None, query=query, row="number") as source:
        found = {one.row: one.reason for one in rejects(read_all(source))}
    assert found == {"5": Reason.ZERO_NORM, "6": Reason.NO_SUBJECT, "7": Reason.NO_SUBJECT}
    with pytest.raises(SourceError, match=r"row: there is no column 'no'"):
        opened(url, table=None, query=query, row="no")


def test_the_row_of_a_table_is_its_primary_key() -> None:
    with pytest.raises(ValueError, match="row is for queries"):
        SourceConfig(url="sqlite:///x.db", **_mapping(), row="id")
    with pytest.raises(ValueError, match="exclude is for databases"):
        SourceConfig.model_validate({"path": "x.npz", "exclude": {"a": "b"}})


def test_a_run_keeps_what_it_excluded(url: str, connection: Connection) -> None:
    make_store(url)
    average = load_model("average")
    models.resolve(connection, "average")
    with opened(url, exclude=EXCLUDE) as source:
        tried = dry_run(source, average, gallery="staff")
        done = backfill(connection, source, average, gallery="staff", source_name="hr")
    assert tried.excluded == done.excluded == {"deleted": 3, "guessed": 1}
    assert list(done.as_dict()["excluded"]) == ["deleted", "guessed"]
    assert runs.listed(connection)[0].excluded == done.excluded
    assert done.counts.seen == 2
    assert connection.execute("SELECT subject_id FROM pfstore.templates").fetchall() == [("anna",)]


def test_a_subject_that_is_now_excluded_loses_its_template(url: str, connection: Connection) -> None:
    make_store(url)
    average = load_model("average")
    models.resolve(connection, "average")
    for exclude, people in (({}, ["anna", "bert", "carl"]), (EXCLUDE, ["anna"])):
        with opened(url, exclude=exclude) as source:
            backfill(connection, source, average, gallery="staff", source_name="hr")
        found = connection.execute("SELECT subject_id FROM pfstore.templates ORDER BY 1").fetchall()
        assert [subject for (subject,) in found] == people


LARGE = 12 << 20


@pytest.mark.parametrize("kind", ["text", "bytes", "json"])
def test_a_cell_too_large_for_any_feature_is_never_fetched(url: str, kind: str) -> None:
    engine = sa.make_url(url).get_backend_name()
    types = {
        "text": {"sqlite": "TEXT", "mysql": "LONGTEXT", "postgresql": "TEXT"},
        "bytes": {"sqlite": "BLOB", "mysql": "LONGBLOB", "postgresql": "BYTEA"},
        "json": {"sqlite": "JSON", "mysql": "JSON", "postgresql": "JSONB"},
    }
    columns = f"id INTEGER PRIMARY KEY, person VARCHAR(9), image VARCHAR(9), vec {types[kind][engine]}"
    execute(url, f"CREATE TABLE faces ({columns})")
    good: Any = V if kind == "bytes" else "[1, 2]"
    execute(url, _grown(engine, kind))
    insert(url, "faces", faces(("anna", "1", good)))
    with opened(url, feature={"column": "vec", "encoding": "float32-le" if kind == "bytes" else "json"}) as source:
        tracemalloc.start()
        batches = read_all(source)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    (reject,) = rejects(batches)
    assert subjects(batches) == ["anna"]
    assert reject.reason == Reason.UNDECODABLE
    assert reject.detail.endswith(f"bytes, more than {MAX_BYTES}")
    assert int(reject.detail.split()[0]) > LARGE // 2
    assert peak < 4 * MAX_BYTES


def test_an_array_of_a_million_values_is_never_fetched(postgres15_url: str) -> None:
    execute(
        postgres15_url,
        "CREATE TABLE faces (id integer PRIMARY KEY, person text, image text, vec float8[])",
        "INSERT INTO faces VALUES (1, 'anna', '1', array_fill(0.5::float8, ARRAY[1000000])), (2, 'bert', '2', '{1,2}')",
    )
    with opened(postgres15_url, feature={"column": "vec", "encoding": "array"}) as source:
        batches = read_all(source)
    assert [one.detail for one in rejects(batches)] == [f"8000000 bytes, more than {MAX_BYTES}"]
    assert subjects(batches) == ["bert"]


def _grown(engine: str, kind: str) -> str:
    long = f"REPEAT('1,  ', {LARGE // 4})"
    if engine == "sqlite":
        long = f"replace(hex(zeroblob({LARGE // 4})), '00', '1,  ')"
    text = f"CONCAT('[', {long}, '1]')" if engine != "sqlite" else f"'[' || {long} || '1]'"
    if engine == "postgresql":
        text = {"bytes": f"convert_to({text}, 'UTF8')", "json": f"({text})::jsonb", "text": text}[kind]
    if engine == "sqlite" and kind == "bytes":
        text = f"zeroblob({LARGE})"
    return f"INSERT INTO faces VALUES (99, 'bert', '9', {text})"


def _mapping() -> dict[str, Any]:
    return {
        "table": "faces",
        "subject": "person",
        "feature": {"column": "vec", "encoding": "float32-le"},
        "extractor": "net",
    }


def test_an_interrupted_run_counts_what_it_excludes_once(
    url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(url)
    monkeypatch.setattr(working, "SHARD_FEATURES", 1)
    monkeypatch.setattr(working, "AHEAD_FEATURES", 0)
    average = load_model("average")
    models.resolve(connection, "average")
    seen: list[int] = []

    def interrupt(_: Progress) -> None:
        seen.append(1)
        if len(seen) == 3:
            raise RuntimeError("cut off")

    with opened(url, exclude=EXCLUDE) as source:
        with pytest.raises(RuntimeError, match="cut off"):
            backfill(connection, source, average, gallery="staff", source_name="hr", observer=interrupt)
        assert 0 < runs.listed(connection)[0].shards_done < runs.listed(connection)[0].shards
        done = backfill(connection, source, average, gallery="staff", source_name="hr")
    assert done.resumed
    assert done.excluded == {"deleted": 3, "guessed": 1}
