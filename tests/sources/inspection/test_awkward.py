"""Inspection of databases with odd names, values, rights and sizes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from pfstore.config import load
from pfstore.errors import SourceError
from pfstore.sources import open_source
from pfstore.sources.inspection import Inspection, described, inspect, inspecting, report
from pfstore.sources.sql_urls import shareable
from tests.sources.stores import BLOBS, blob, execute, insert

SUBJECTS, ROWS = 12, 96


def vectors() -> list[bytes]:
    random = np.random.default_rng(5)
    people = random.standard_normal((SUBJECTS, 128))
    drawn = people[np.arange(ROWS) % SUBJECTS] + 0.5 * random.standard_normal((ROWS, 128))
    return [blob(*one) for one in drawn]


def blob_of(url: str) -> str:
    return BLOBS[sa.make_url(url).get_backend_name()]


def faces(**extra: Any) -> list[dict[str, Any]]:
    return [{"id": i, "person": i % SUBJECTS, "vec": vec, **extra} for i, vec in enumerate(vectors())]


def read(url: str, folder: Path) -> tuple[int, int]:
    """Paste what an inspection reports and return how many features and subjects that reads."""
    (folder / "pfstore.toml").write_text(report(inspect(url), "legacy", {"url": url}), encoding="utf-8")
    with open_source(load(folder / "pfstore.toml").source("legacy"), "legacy", folder) as source:
        batches = [
            batch.features
            for shard in source.shards(1000)
            for batch in source.read(shard.range, dimension=128, features=500)
        ]
    return sum(len(one.features) for one in batches), len({name for one in batches for name in one.subject_ids})


@pytest.mark.parametrize("name", ["é😀", "100%", "%s", "${HOME}", 'a"b', "new\nline", "\x01\x7f", "back\\slash", '"""'])
def test_what_is_printed_opens_whatever_things_are_called(url: str, tmp_path: Path, name: str) -> None:
    if "mysql" in url:
        name = name.replace("😀", "")  # names hold no such thing there
    kinds = {"id": "INTEGER PRIMARY KEY", "person": "INTEGER", "vec": blob_of(url), "model": "VARCHAR(40)"}
    execute(url, f"CREATE TABLE faces ({', '.join(f'{one} {kind}' for one, kind in kinds.items())}, deleted INTEGER)")
    insert(url, "faces", [{**row, "model": name, "deleted": int(row["id"] % 9 == 0)} for row in faces()])
    quote = '"' if "mysql" not in url else "`"
    for one in ("person", "vec", "model", "deleted"):
        new = quote + f"{one}{name}".replace(quote, 2 * quote) + quote
        execute(
            url, f"ALTER TABLE faces RENAME COLUMN {one} TO {new}".replace("%", "%%" if "sqlite" not in url else "%")
        )
    assert read(url, tmp_path) == (ROWS - len(range(0, ROWS, 9)), SUBJECTS)


def test_whole_numbers_with_a_point_may_be_the_subject(sqlite_url: str, tmp_path: Path) -> None:
    execute(sqlite_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, person REAL, vec BLOB)")
    insert(sqlite_url, "faces", faces())
    assert read(sqlite_url, tmp_path) == (ROWS, SUBJECTS)


def test_a_join_reads_every_feature_once(sqlite_url: str, tmp_path: Path) -> None:
    execute(sqlite_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, visit INTEGER, vec BLOB)")
    execute(sqlite_url, "CREATE TABLE visits (visit INTEGER, person INTEGER)")
    random = np.random.default_rng(2)
    people = random.standard_normal((40, 128))
    drawn = [blob(*(people[i // 20] + 0.5 * random.standard_normal(128))) for i in range(800)]
    insert(sqlite_url, "faces", [{"id": i, "visit": i // 2, "vec": vec} for i, vec in enumerate(drawn)])
    # One visit is there twice, beyond those that are looked up.
    insert(sqlite_url, "visits", [{"visit": visit, "person": visit // 10} for visit in [*range(400), 399]])
    assert read(sqlite_url, tmp_path)[0] == 800


def test_names_that_differ_in_case_alone_are_told_apart(sqlite_url: str, tmp_path: Path) -> None:
    execute(sqlite_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, track INTEGER, Name TEXT, vec BLOB)")
    execute(sqlite_url, "CREATE TABLE tracks (track_id INTEGER PRIMARY KEY, name TEXT)")
    rows = [{"id": one["id"], "track": one["id"], "Name": f"r{one['id']}", "vec": one["vec"]} for one in faces()]
    insert(sqlite_url, "faces", rows)
    insert(sqlite_url, "tracks", [{"track_id": i, "name": f"P{i % SUBJECTS}"} for i in range(ROWS)])
    assert read(sqlite_url, tmp_path) == (ROWS, SUBJECTS)


def test_a_key_far_from_all_others_does_not_thin_the_sample(sqlite_url: str) -> None:
    execute(sqlite_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, person INTEGER, vec BLOB)")
    insert(sqlite_url, "faces", [{**row, "id": row["id"] + 2**60 * (row["id"] == 0)} for row in faces()])
    execute(
        sqlite_url,
        *(
            f"INSERT INTO faces SELECT id + {ROWS} * {n}, person, vec FROM faces WHERE id BETWEEN 1 AND {ROWS}"
            for n in range(1, 20)
        ),
    )
    assert inspect(sqlite_url).findings[0].statistics.sampled > 1000


def test_a_reading_without_norms_is_still_json(sqlite_url: str) -> None:
    execute(sqlite_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, person INTEGER, vec BLOB)")
    insert(sqlite_url, "faces", faces())
    assert "NaN" not in json.dumps(described(inspect(sqlite_url)))


@pytest.mark.postgres15
def test_times_that_python_lacks_hide_no_table(postgres15_url: str, tmp_path: Path) -> None:
    times = "until TIMESTAMPTZ DEFAULT 'infinity', born DATE DEFAULT '0044-03-15 BC'"
    execute(postgres15_url, f"CREATE TABLE faces (id INTEGER PRIMARY KEY, person INTEGER, vec BYTEA, {times})")
    insert(postgres15_url, "faces", faces())
    assert read(postgres15_url, tmp_path) == (ROWS, SUBJECTS)


@pytest.mark.postgres15
def test_a_materialised_view_is_looked_at(postgres15_url: str) -> None:
    execute(postgres15_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, person INTEGER, vec BYTEA)")
    insert(postgres15_url, "faces", faces())
    execute(postgres15_url, "CREATE MATERIALIZED VIEW kept AS SELECT * FROM faces")
    assert [one.table.label for one in inspect(postgres15_url).findings] == ["faces", "kept"]


@pytest.mark.postgres15
def test_a_lookup_in_a_column_of_another_type_is_no_table_left_unread(postgres15_url: str) -> None:
    execute(postgres15_url, "CREATE TYPE mood AS ENUM ('sad', 'ok')", "CREATE TABLE moods (mood mood PRIMARY KEY)")
    execute(postgres15_url, "INSERT INTO moods VALUES ('sad'), ('ok')")
    execute(postgres15_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, person TEXT, vec BYTEA)")
    insert(postgres15_url, "faces", [{**row, "person": f"P{row['person']}"} for row in faces()])
    assert inspect(postgres15_url).unread == {}


@pytest.mark.postgres15
def test_one_table_of_a_search_path_is_found_once(postgres15_url: str) -> None:
    database = sa.make_url(postgres15_url).database
    execute(postgres15_url, "CREATE SCHEMA other", f'ALTER DATABASE "{database}" SET search_path = public, other')
    execute(postgres15_url, "CREATE TABLE other.faces (id INTEGER PRIMARY KEY, person INTEGER, vec BYTEA)")
    insert(postgres15_url, "faces", faces())
    assert [one.table.label for one in inspect(postgres15_url).findings] == ["other.faces"]


@pytest.mark.postgres15
def test_a_table_that_may_not_be_read_is_named_and_the_rest_is_read(postgres15_url: str) -> None:
    database = sa.make_url(postgres15_url).database
    execute(postgres15_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, person INTEGER, vec BYTEA)")
    insert(postgres15_url, "faces", faces())
    # The first table of a preset.
    execute(postgres15_url, "CREATE TABLE asset_faces (id INTEGER)", f'CREATE ROLE "{database}" LOGIN')
    execute(postgres15_url, f'GRANT SELECT ON faces TO "{database}"')
    reader = sa.make_url(postgres15_url).set(username=database).render_as_string(hide_password=False)
    try:
        found = inspect(reader)
    finally:
        execute(postgres15_url, f'DROP OWNED BY "{database}"', f'DROP ROLE "{database}"')
    assert [one.table.label for one in found.findings] == ["faces"]
    assert found.unread == {"asset_faces": "permission denied for table asset_faces"}


@pytest.mark.mariadb
def test_a_view_is_read_by_whom_may_only_read(mariadb_url: str) -> None:
    name = sa.make_url(mariadb_url).database
    execute(mariadb_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, person INTEGER, vec BLOB)")
    insert(mariadb_url, "faces", faces())
    execute(mariadb_url, "CREATE VIEW kept AS SELECT * FROM faces", f"CREATE USER '{name}' IDENTIFIED BY 'x'")
    execute(mariadb_url, f"GRANT SELECT ON {name}.* TO '{name}'")
    reader = sa.make_url(mariadb_url).set(username=name, password="x").render_as_string(hide_password=False)
    try:
        found = inspect(reader)
    finally:
        execute(mariadb_url, f"DROP USER '{name}'")
    assert (found.unread, len(found.findings)) == ({}, 2)


@pytest.mark.mariadb
def test_a_url_without_a_database_says_so(mariadb_url: str) -> None:
    with pytest.raises(SourceError, match="names no database"):
        inspect(sa.make_url(mariadb_url).set(database="").render_as_string(hide_password=False))


def test_the_source_of_a_preset_is_toml_whatever_the_url() -> None:
    found = Inspection("sqlite", str, 1, ["photoprism"], [])
    text = report(found, 'a "b"', {"url": 'sqlite:///C:\\x"y.db'})
    assert tomllib.loads(text)["sources"]['a "b"']["url"] == 'sqlite:///C:\\x"y.db'


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@${HOST}:${PORT}/x", "postgresql://me:${PASSWORD}@${HOST}:${PORT}/x"),
        ("postgresql://${ME}:secret@h/x", "postgresql://${ME}:${PASSWORD}@h/x"),
        ("postgresql://me:${SECRET}@h/x?a=1", "postgresql://me:${SECRET}@h/x?a=1"),
        ("postgresql://h:5432/x?password=secret&a=1", "postgresql://h:5432/x?password=${PASSWORD}&a=1"),
        ("sqlite:///a:b.db", "sqlite:///a:b.db"),
    ],
)
def test_no_password_is_in_a_url_that_is_shown(url: str, shown: str) -> None:
    assert shareable(url) == shown


def test_of_very_many_columns_of_features_the_first_are_examined(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "MOST_EXAMINED", 2)
    features = np.random.default_rng(0).normal(size=(40, 64)).astype("<f4")
    engine = sa.create_engine(sqlite_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for table in ("a", "b", "c"):
            connection.exec_driver_sql(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, vec BLOB)")
            connection.exec_driver_sql(
                f"INSERT INTO {table} VALUES (?, ?)", [(i, row.tobytes()) for i, row in enumerate(features)]
            )
    found = inspect(sqlite_url)
    assert len(found.findings) == 2
    assert found.rejected["c.vec"] == "looks like features, too; see --table c"
