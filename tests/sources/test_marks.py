"""A mark is equal to an earlier one only where every row of the subject is as it was."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import sqlalchemy as sa

from pfstore.config import SourceConfig
from pfstore.sources import open_source, sql_digests
from pfstore.sources.base import MarkedSource
from pfstore.sources.doubting import is_doubtful
from tests.sources.stores import ENGINES, V, blob, execute, faces, insert, make_faces, opened

SAFE = {"changed": {"column": "changed", "safe": True}}
LONG_AGO = datetime(2024, 5, 1, 12)


def marks(source: MarkedSource) -> dict[str, bytes]:
    return {one.subject: one.mark for one in source.marks()}


def differing(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {subject for subject in before.keys() | after.keys() if before.get(subject) != after.get(subject)}


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["as it is", "a view", "rows fetched"])
def look(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What to map: a table, a view, which knows no versions of rows, or a database that computes nothing."""
    if request.param == "rows fetched":
        monkeypatch.setattr("pfstore.sources.sql_marks.digests_of", lambda *_: sql_digests.Digests())
    return request.param


@pytest.mark.parametrize("url", ENGINES, indirect=True)
def test_every_change_of_a_row_shows(url: str, look: str) -> None:
    make_faces(url, extra=", quality FLOAT")
    insert(url, "faces", faces(*[(f"p{n}", f"m{n % 2}", blob(n, 1)) for n in range(6) for _ in range(2)], quality=0.5))
    execute(url, "CREATE VIEW seen AS SELECT * FROM faces")
    table = {"table": "seen", "row": ()} if look == "a view" else {}
    source = opened(url, **table, quality={"column": "quality", "minimum": 0.1})
    before = marks(source)
    assert len(before) == 6
    assert all(before.values())
    assert differing(before, marks(source)) == set()
    changes = {
        "UPDATE faces SET image = 'other' WHERE id = 0": {"p0"},
        "UPDATE faces SET vec = NULL WHERE id = 2": {"p1"},
        "UPDATE faces SET quality = NULL WHERE id = 4": {"p2"},
        "DELETE FROM faces WHERE id = 6": {"p3"},
        "UPDATE faces SET person = 'p5' WHERE id = 8": {"p4", "p5"},
        "UPDATE faces SET person = 'new' WHERE id = 9": {"p4", "new"},
    }
    for change, expected in changes.items():
        execute(url, change)
        now = marks(source)
        assert differing(before, now) == expected, change
        before = now
    source.close()


@pytest.mark.parametrize("url", ENGINES, indirect=True)
def test_two_rows_that_swap_their_features_show(url: str, look: str) -> None:
    make_faces(url)
    insert(url, "faces", faces(("a", "m", blob(1, 1)), ("a", "n", blob(2, 2)), ("b", "m", blob(3, 3))))
    execute(url, "CREATE VIEW seen AS SELECT * FROM faces")
    source = opened(url, **({"table": "seen"} if look == "a view" else {}))
    before = marks(source)
    vec = sa.table("faces", sa.column("id"), sa.column("vec"))
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(vec.update().where(vec.c.id == 0).values(vec=blob(2, 2)))
        connection.execute(vec.update().where(vec.c.id == 1).values(vec=blob(1, 1)))
    assert differing(before, marks(source)) == {"a"}
    source.close()


@pytest.mark.parametrize("url", ENGINES, indirect=True)
def test_a_safe_mark_spares_reading_the_features(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_faces(url, extra=f", changed {'DATETIME' if 'mysql' in url or 'sqlite' in url else 'TIMESTAMP'}")
    insert(url, "faces", faces(("a", "m", V), ("b", "m", V), changed=LONG_AGO))
    query = {"table": None, "query": "SELECT id, person, image, vec, changed FROM faces", "row": "id"}
    source = opened(url, **query, **SAFE)
    assert source.marks_by == "change mark"
    before = marks(source)
    execute(url, "UPDATE faces SET vec = NULL WHERE id = 0")
    assert differing(before, marks(source)) == set()
    execute(url, "UPDATE faces SET changed = '2024-05-01 12:00:01' WHERE id = 1")
    assert differing(before, marks(source)) == {"b"}
    execute(url, "UPDATE faces SET changed = NULL WHERE id = 1")
    assert marks(source)["b"] == b""
    source.close()


def test_row_versions_are_of_tables_alone(postgres15_url: str) -> None:
    make_faces(postgres15_url)
    execute(postgres15_url, "CREATE VIEW seen AS SELECT * FROM faces")
    for table, basis in (("faces", "row versions"), ("seen", "content"), ("public.faces", "row versions")):
        with opened(postgres15_url, table=table) as source:
            assert source.marks_by == basis


def test_a_mark_that_nobody_vouches_for_is_not_believed(mariadb_url: str) -> None:
    """Nor one that the database sets itself: a row can be written with its old time."""
    extra = ", changed TIMESTAMP NOT NULL DEFAULT '2024-05-01 12:00:00' ON UPDATE CURRENT_TIMESTAMP"
    make_faces(mariadb_url, extra=extra)
    for changed, basis in (("changed", "content"), ({"column": "changed", "safe": True}, "change mark")):
        with opened(mariadb_url, changed=changed) as source:
            assert source.marks_by == basis
    keyless = {"table": None, "query": "SELECT person, image, vec, changed FROM faces"}
    with opened(mariadb_url, **keyless, **SAFE) as source:
        assert source.marks_by == "content"


def test_tables_that_changed_places_show(postgres15_url: str) -> None:
    """All rows were written by one transaction and lie in the same places."""
    make = "CREATE TABLE {} (id INTEGER PRIMARY KEY, person TEXT, image TEXT, vec BYTEA, new BYTEA)"
    values = "n, 'p' || n, 'm', '\\x0000803f00000040', '\\x0000803f00004040'"
    rows = f"INSERT INTO {{}} SELECT {values} FROM generate_series(1, 3) n"
    execute(postgres15_url, *(one.format(name) for one in (make, rows) for name in ("faces", "other")))
    with opened(postgres15_url) as source:
        before = marks(source)
    renamed = "ALTER TABLE {} RENAME {} TO {}"
    execute(postgres15_url, "ALTER TABLE faces RENAME TO old", "ALTER TABLE other RENAME TO faces")
    with opened(postgres15_url) as source:
        tables = marks(source)
    assert differing(before, tables) == set(before)
    columns = (("vec", "old"), ("new", "vec"))
    execute(postgres15_url, *(renamed.format("faces", "COLUMN " + one, other) for one, other in columns))
    with opened(postgres15_url) as source:
        assert differing(tables, marks(source)) == set(before)


def test_who_may_read_some_columns_alone_is_answered_by_content(postgres15_url: str) -> None:
    make_faces(postgres15_url)
    insert(postgres15_url, "faces", faces(("a", "m", V)))
    role = f"reader_{uuid.uuid4().hex[:12]}"
    execute(postgres15_url, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT (id, person, image, vec) ON faces TO {role}")
    url = sa.make_url(postgres15_url).set(username=role).render_as_string(hide_password=False)
    query = {"table": None, "query": "SELECT id, person, image, vec FROM faces", "row": "id"}
    for mapping in ({}, query):
        with opened(url, **mapping) as source:
            assert source.marks_by == "content"
            assert list(marks(source)) == ["a"]
    execute(postgres15_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_an_infinite_time_is_no_time(postgres15_url: str) -> None:
    make_faces(postgres15_url, extra=", changed TIMESTAMP")
    insert(postgres15_url, "faces", faces(("a", "m", V), ("b", "m", V), changed=LONG_AGO))
    execute(postgres15_url, "UPDATE faces SET changed = 'infinity' WHERE person = 'a'")
    query = {"table": None, "query": "SELECT id, person, image, vec, changed FROM faces", "row": "id"}
    with opened(postgres15_url, **query, **SAFE) as source:
        found = marks(source)
        assert (found["a"], bool(found["b"])) == (b"", True)


def test_values_that_read_alike_are_told_apart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'legacy.db'}"
    make_faces(url, person="TEXT", image="TEXT", extra=", quality REAL")
    rows = faces(*[("a", image, V) for image in ("x\x1fy", "z", None)], quality=0.49999999999999994)
    insert(url, "faces", rows)
    with opened(url, quality={"column": "quality", "minimum": 0.5}) as source:
        before = marks(source)
        changes = ("image = 'x' WHERE id = 0", "image = char(0) WHERE id = 2", "quality = 0.5 WHERE id = 1")
        for change in changes:
            execute(url, f"UPDATE faces SET {change}")
            now = marks(source)
            assert differing(before, now) == {"a"}, change
            before = now


def test_the_order_of_rows_is_none_of_their_marks(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'legacy.db'}"
    make_faces(url)
    insert(url, "faces", faces(*[(f"p{n % 9}", f"m{n * 7 % 11}", V) for n in range(90)]))
    with opened(url) as source:
        before = marks(source)
        execute(
            url, "CREATE INDEX other ON faces (image DESC, person)", "CREATE INDEX by ON faces (person, image DESC)"
        )
        execute(url, "ANALYZE")
        assert marks(source) == before
        (batch,) = source.read(source.range_of([["p1"], ["p8"]]), dimension=2, features=99, marks=True)
        assert batch.marks == {one: before[one] for one in ("p1", "p8")}


def test_keys_that_are_not_equal_to_themselves_are_not_asked_for(mariadb_url: str) -> None:
    make_faces(mariadb_url, person="FLOAT")
    insert(mariadb_url, "faces", faces((0.1, "m", V), (0.5, "m", V)))
    with opened(mariadb_url) as source:
        assert source.most_keys == 0
    with opened(mariadb_url, subject="image") as source:
        assert source.most_keys > 0


def test_another_mapping_has_other_marks(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'legacy.db'}"
    make_faces(url)
    insert(url, "faces", faces(("a", "m", V)))
    with opened(url) as one, opened(url, medium="id") as other, opened(url, dimension=2) as third:
        assert len({marks(one)["a"], marks(other)["a"], marks(third)["a"]}) == 3


@pytest.mark.parametrize("url", ENGINES, indirect=True)
def test_keys_that_compare_as_equal_are_two_subjects(url: str) -> None:
    person = {"sqlite": "TEXT COLLATE NOCASE", "mysql": "VARCHAR(40)", "postgresql": "TEXT"}
    make_faces(url, person=person[sa.make_url(url).get_backend_name()])
    insert(url, "faces", faces(("anna", "m", V), ("Anna", "m", blob(2, 1)), ("ANNA", "m", blob(3, 1))))
    with opened(url) as source:
        found = list(source.marks())
        assert sorted(one.subject for one in found) == ["ANNA", "Anna", "anna"]
        (asked,) = (one for one in found if one.subject == "Anna")
        batches = list(source.read(source.range_of([asked.key]), dimension=2, features=10, marks=True))
        assert [(batch.features.subject_ids, batch.marks) for batch in batches] == [(["Anna"], {"Anna": asked.mark})]


@pytest.mark.parametrize("url", ENGINES, indirect=True)
def test_composite_keys(url: str) -> None:
    make_faces(url, extra=", site INTEGER")
    rows = faces(*[(f"p{number % 4}", "m", V) for number in range(12)])
    insert(url, "faces", [row | {"site": number % 3} for number, row in enumerate(rows)])
    with opened(url, subject=("site", "person")) as source:
        found = {one.subject: one for one in source.marks()}
        assert len(found) == 12
        wanted = ["0/p1", "2/p3"]
        (batch,) = source.read(
            source.range_of([found[one].key for one in wanted]), dimension=2, features=99, marks=True
        )
        assert batch.features.subject_ids == wanted
        assert batch.marks == {one: found[one].mark for one in wanted}


def test_marks_and_features_are_of_one_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "legacy.db"
    url = f"sqlite:///{path}"
    make_faces(url)
    insert(url, "faces", faces(("a", "m", V), ("b", "m", V)))
    with sqlite3.connect(path) as legacy:
        legacy.execute("PRAGMA journal_mode = wal")
    with opened(url) as source:
        before = marks(source)
        with source.snapshot():
            assert marks(source) == before
            execute(url, "UPDATE faces SET vec = x'0000803f00000000' WHERE person = 'a'")
            assert marks(source) == before
            (shard, _) = source.shards(99)
            (batch,) = source.read(shard.range, dimension=2, features=99, marks=True)
            assert batch.marks == before
            np.testing.assert_array_equal(batch.features.features, [[1, 2], [1, 2]])
        assert differing(before, marks(source)) == {"a"}


def test_a_writer_does_not_wait_for_a_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "legacy.db"
    make_faces(f"sqlite:///{path}")
    insert(f"sqlite:///{path}", "faces", faces(("a", "m", V)))
    with opened(f"sqlite:///{path}") as source, source.snapshot():
        assert len(marks(source)) == 1
        with sqlite3.connect(path, timeout=0) as legacy:
            legacy.execute("DELETE FROM faces")
        assert marks(source) == {}


NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("latest", "doubtful"),
    [
        (NOW, True),
        (NOW - timedelta(hours=14), True),
        (NOW - timedelta(days=3), False),
        (NOW + timedelta(days=999), True),
        (datetime(2026, 6, 15, 2), True),
        (datetime(2026, 6, 12), False),
        (date(2026, 6, 14), True),
        (date(2026, 6, 12), False),
        ("2026-06-15 02:00:00", True),
        ("2026-06-15T02:00:00.123456+02:00", True),
        ("2026-06-12 23:59:59", False),
        (b"2026-06-15 02:00:00", True),
        (NOW.timestamp(), True),
        (int(NOW.timestamp() * 1000), True),
        (int(NOW.timestamp() * 1e9), True),
        (int((NOW - timedelta(days=3)).timestamp()), False),
        (str(int(NOW.timestamp())), True),
        (20260615, True),
        (20260612, False),
        ("20260615115900", True),
        ("06/15/2026 11:59", True),
        ("14.6.2026 9:00", True),
        ("Mon, 15 Jun 2026 11:59:00 +0000", True),
        ("2026-06-15 9:5:0 UTC", True),
        ("12.06.2026", False),
        (NOW.timestamp() - 978_307_200, True),
        (NOW.timestamp() / 60, True),
        (NOW.timestamp() / 86_400 + 2_440_587.5, True),
        (17, False),
        ("0197f3c2-7d1e-7000-8000-000000000000", False),
        ("zz", False),
        (None, False),
    ],
)
def test_what_changed_just_now_is_not_believed(latest: object, doubtful: bool) -> None:
    assert is_doubtful(latest, NOW) is doubtful


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file be old enough to be believed: nobody can set the time of its last change back."""
    real = time.time
    monkeypatch.setattr("pfstore.sources.stamps.time.time", lambda: real() + 7200)


def _files(folder: Path, kind: str) -> SourceConfig:
    if kind == "npz":
        np.savez(folder / "f.npz", features=np.eye(4, dtype=np.float32), subject=np.array(["a", "a", "b", "c"]))
        return SourceConfig(path=folder / "f.npz", extractor="net")
    if kind == "npy":
        for number, name in enumerate("abc"):
            np.save(folder / f"{name}.npy", np.eye(4, dtype=np.float32)[number])
        return SourceConfig(path=folder, extractor="net")
    for number, name in enumerate("abc"):
        with h5py.File(folder / f"features_{name}.hdf5", "w") as file:
            file[f"{name}/gallery/images/0"] = np.eye(4, dtype=np.float32)[number : number + 1]
    return SourceConfig(path=folder, extractor="net")


def _touched(path: Path) -> None:
    """Write a file's own content into it again, and give it back the times that it had."""
    found = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize(
    ("kind", "file", "expected"),
    [("npy", "b.npy", {"b"}), ("hdf5", "features_b.hdf5", {"b"}), ("npz", "f.npz", {"a", "b", "c"})],
)
def test_a_file_that_was_written_shows_whatever_its_time(
    tmp_path: Path, kind: str, file: str, expected: set[str]
) -> None:
    config = _files(tmp_path, kind)
    with open_source(config, "s", tmp_path) as source:
        assert isinstance(source, MarkedSource)
        assert source.marks_by == "file"
        before = marks(source)
        assert len(before) == 3
        assert all(before.values())
    time.sleep(0.01)
    _touched(tmp_path / file)
    with open_source(config, "s", tmp_path) as source:
        assert isinstance(source, MarkedSource)
        assert differing(before, marks(source)) == expected
        wanted = source.range_of([one.key for one in source.marks() if one.subject == "b"])
        (batch,) = source.read(wanted, dimension=4, features=9, marks=True)
        assert batch.marks == {"b": marks(source)["b"]}


def test_a_young_file_is_not_believed(tmp_path: Path) -> None:
    with open_source(_files(tmp_path, "npy"), "s", tmp_path) as source:
        assert isinstance(source, MarkedSource)
        assert set(marks(source).values()) == {b""}


@pytest.mark.usefixtures("old")
def test_a_file_that_was_replaced_while_it_was_open(tmp_path: Path) -> None:
    config = _files(tmp_path, "hdf5")
    with open_source(config, "s", tmp_path) as source:
        assert isinstance(source, MarkedSource)
        (shard,) = source.shards(99)
        list(source.read(shard.range, dimension=4, features=9))
        path = tmp_path / "features_c.hdf5"
        shutil.copy(path, tmp_path / "new")
        with h5py.File(tmp_path / "new", "r+") as file:
            file["c/gallery/images/0"][:] = 7
        (tmp_path / "new").rename(path)
        (batch,) = source.read(shard.range, dimension=4, features=9, marks=True)
        assert batch.marks["c"] == marks(source)["c"]
        np.testing.assert_array_equal(batch.features.features[-1], [7, 7, 7, 7])


def test_keys_too_long_to_be_stored_have_no_mark(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'legacy.db'}"
    make_faces(url)
    insert(url, "faces", faces(("x" * 2001, "m", V), ("", "m", V), (None, "m", V), ("a", "m", V)))
    with opened(url) as source:
        assert list(marks(source)) == ["a"]
