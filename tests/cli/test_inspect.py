"""`pfstore source inspect` and `source presets`: what is printed can be pasted and works."""

from __future__ import annotations

import os
import sqlite3
import tomllib
from pathlib import Path

import pytest
import sqlalchemy as sa

from pfstore import synthetic
from tests.cli.conftest import Run, process
from tests.sources.lookalikes.base import People
from tests.sources.lookalikes.photoprism import PhotoPrism


@pytest.fixture
def legacy(folder: Path) -> Path:
    """A made-up attendance system beside the user's pfstore.toml."""
    synthetic.write_sqlite(folder / "attendance.db", synthetic.Population(subjects=60, dimension=128), damage=2)
    return folder / "attendance.db"


@pytest.fixture
def photoprism(folder: Path) -> Path:
    engine = sa.create_engine(f"sqlite:///{folder / 'photos.db'}", poolclass=sa.NullPool)
    PhotoPrism("sqlite").create(engine, People.load())
    return folder / "photos.db"


def append(folder: Path, text: str, source: str) -> None:
    """Paste what was printed into pfstore.toml, with a gallery of it."""
    toml = folder / "pfstore.toml"
    gallery = f'[galleries.found]\nsource = "{source}"\nmodel = "average"\n'
    toml.write_text(f"{toml.read_text()}\n{text}\n{gallery}")


def test_what_is_printed_works_when_pasted(run: Run, legacy: Path) -> None:
    said = run("source", "inspect", "sqlite:///attendance.db", "--name", "attendance")
    assert said.code == 0
    source = tomllib.loads(said.out)["sources"]["attendance"]
    assert source["url"] == "sqlite:///attendance.db"
    assert source["subject"] == "person_id"
    assert source["feature"] == {"column": "vec", "encoding": "float32-le"}
    assert source["extractor"] == {"column": "model", "value": "synthetic/sphere-128"}
    append(legacy.parent, said.out, "attendance")
    done = run("backfill", "found", "--json").json
    assert done["subjects"]["written"] == 60
    assert done["features"]["read"] == done["features"]["fused"] + done["features"]["rejected"]


def test_a_file_is_named_by_its_path(run: Run, legacy: Path) -> None:
    assert 'url = "sqlite:///attendance.db"' in run("source", "inspect", "attendance.db").out


def test_the_document_tells_all(run: Run, legacy: Path) -> None:
    found = run("source", "inspect", legacy, "--json").json
    (finding,) = found["findings"]
    assert finding["subject"]["columns"] == ["person_id"]
    assert finding["subject"]["within"] > finding["subject"]["between"]
    assert finding["subjects"] == 62
    assert finding["mapping"]["table"] == synthetic.TABLE
    assert {one["encoding"] for one in finding["other_readings"]} >= {"float32-be", "float64-le"}
    assert found["presets"] == []
    assert found["unread"] == {}


def test_a_known_system_is_named_and_its_preset_works(run: Run, photoprism: Path) -> None:
    said = run("source", "inspect", photoprism, "--name", "photos")
    source = tomllib.loads(said.out)["sources"]["photos"]
    assert source == {"url": f"sqlite:///{photoprism}", "preset": "photoprism"}
    assert "markers.embeddings_json is json:0" in said.out
    append(photoprism.parent, said.out, "photos")
    done = run("backfill", "found", "--json").json
    assert done["subjects"]["written"] == 8
    assert done["excluded"] == PhotoPrism.excluded
    assert "excluded  " in run("backfill", "found").out
    assert "person hidden" in run("source", "check", "photos").out


def test_a_changed_schema_is_answered_with_what_is_missing(run: Run, photoprism: Path) -> None:
    with sqlite3.connect(photoprism) as connection:
        connection.execute("ALTER TABLE markers RENAME COLUMN subj_uid TO person_uid")
    append(photoprism.parent, '[sources.photos]\nurl = "sqlite:///photos.db"\npreset = "photoprism"', "photos")
    said = run("backfill", "found")
    assert said.code == 5
    assert said.err.count("\n") == 1
    assert "the table 'markers' has no column 'subj_uid'" in said.err


def test_a_mapping_that_does_not_fit_names_the_preset_that_does(run: Run, photoprism: Path) -> None:
    mapping = (
        '[sources.photos]\nurl = "sqlite:///photos.db"\ntable = "markers"\nsubject = "no_such_column"\n'
        'feature = { column = "embeddings_json", encoding = "json" }\nextractor = "facenet"\n'
    )
    append(photoprism.parent, mapping, "photos")
    said = run("source", "check", "photos")
    assert said.code == 5
    assert "there is no column 'no_such_column'" in said.err
    assert 'the database looks like PhotoPrism (preset = "photoprism")' in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.db"], 9, "neither a URL"),
        (["pfstore.toml"], 9, "no SQLite database"),
        (["sqlite:///nowhere.db"], 5, "there is no SQLite file"),
        (["nosuch://x/y"], 5, "there is no kind of database"),
        (["postgresql://${NO_SUCH_VARIABLE}@h/x"], 3, "NO_SUCH_VARIABLE is not set"),
        (
            ["attendance.db", "--table", "face_feature"],
            5,
            "there is no table 'face_feature'; did you mean face_features?",
        ),
        (["attendance.db", "--plot", "x.jpg"], 9, "a picture ends in .png, .svg, .pdf"),
    ],
)
def test_wrong_use_is_one_line(run: Run, legacy: Path, arguments: list[str], code: int, words: str) -> None:
    said = run("source", "inspect", *arguments)
    assert said.code == code, said
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err


def test_a_database_without_features_says_so(run: Run, folder: Path) -> None:
    with sqlite3.connect("shop.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, cart TEXT, picture BLOB)")
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?, ?)", [(i, '{"items": [1, 2, 3]}', os.urandom(2048)) for i in range(50)]
        )
    said = run("source", "inspect", "shop.db")
    assert said.code == 8
    assert said.err == "pfstore: nothing that looks like features in 1 table\n"
    assert all(line.startswith("#") or not line for line in said.out.splitlines())
    assert run("source", "inspect", "shop.db", "--json").json["findings"] == []


def test_a_password_is_not_printed(run: Run, legacy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    for url in ("postgresql://me:hunter2@127.0.0.1:1/x", "postgresql://me:${SECRET}@127.0.0.1:1/x"):
        said = run("source", "inspect", url)
        assert said.code == 5
        assert "hunter2" not in said.out + said.err


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_picture_is_drawn(run: Run, legacy: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    assert run("source", "inspect", legacy, "--plot", f"found.{suffix}").code == 0
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert Path(f"found.{suffix}").read_bytes().startswith(start)


def test_a_name_is_no_formula_in_a_picture(run: Run, legacy: Path) -> None:
    pytest.importorskip("matplotlib")
    with sqlite3.connect(legacy) as connection:
        connection.execute(f'ALTER TABLE {synthetic.TABLE} RENAME TO "$\\frac{{$"')
    assert run("source", "inspect", legacy, "--plot", "found.png").code == 0


def test_a_narrow_terminal_and_a_pipe_get_the_same_toml(legacy: Path) -> None:
    narrow = process("source", "inspect", legacy, COLUMNS="30")
    wide = process("source", "inspect", legacy, COLUMNS="200")
    assert narrow.out == wide.out
    assert tomllib.loads(narrow.out)
    assert narrow.err == ""


def test_presets_are_listed_and_shown(run: Run, folder: Path) -> None:
    names = {row["preset"] for row in run("source", "presets", "--json").json}
    assert {"photoprism", "immich-3.2", "ijb", "briar"} <= names
    assert "PhotoPrism" in run("source", "presets").out
    shown = run("source", "presets", "immich")
    assert shown.out.count("[sources.immich]") == len([name for name in names if name.startswith("immich-")])
    assert "excluded: no person assigned" in shown.out
    unknown = run("source", "presets", "imich")
    assert unknown.code == 3
    assert "did you mean immich?" in unknown.err
