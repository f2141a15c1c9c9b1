"""`pfstore gallery index`, `tune` and `show`: how searches go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pfstore.gallery.database import Database
from tests.cli.conftest import Run, write_probe
from tests.gallery import hand_made


@pytest.fixture
def staff(folder: Path, database: Database) -> Path:
    """The user's folder with 600 templates of 16 values in the gallery staff."""
    with database.connect() as connection:
        hand_made.version_of(connection, hand_made.strangers(600))
    return folder


def test_an_index_is_tuned_and_shown(staff: Path, run: Run) -> None:
    assert run("gallery", "index", "staff", "--m", "8", "--ef-construction", "40").out == (
        "version 1 of gallery staff: index built; "
        "searches use it once `pfstore gallery tune staff` knows what it finds\n"
    )
    said = run("gallery", "tune", "staff", "--target", "0.9", "--sample", "50", "--seed", "3", "--json")
    assert (said.code, said.err) == (0, "")
    found = said.json
    assert (found["gallery"], found["version"], found["probes"], found["templates"]) == ("staff", 1, 50, 600)
    assert found["basis"].startswith("50 worn templates, seed 3")
    assert found["low"] <= found["mated_recall"] <= found["high"]
    [version] = run("gallery", "show", "staff", "--json").json["versions"]
    search = version["search"]
    assert (search["path"], search["why"], search["wrong"]) == (found["path"], found["why"], None)
    assert search["tuning"]["ef_search"] == found["ef_search"]
    assert search["tuning"]["outgrown"] is False
    shown = " ".join(run("gallery", "show", "staff").out.split())
    assert f"version 1 is searched {'through its index' if found['path'] == 'index' else 'exhaustively'}: " in shown
    text = run("gallery", "tune", "staff", "--target", "0.9", "--sample", "50").out
    assert "from now on: " in text
    assert "asked for: 0.9" in text
    assert staff.exists()


def test_the_options_of_an_index_reach_it(staff: Path, run: Run, database: Database) -> None:
    assert run("gallery", "index", "staff", "--m", "5", "--ef-construction", "33").code == 0
    with database.connect() as connection:
        row = connection.execute("SELECT reloptions FROM pg_class WHERE relname LIKE 'templates_v%_hnsw'").fetchone()
    assert row == (["m=5", "ef_construction=33"],)
    assert run("gallery", "index", "staff", "--drop").code == 0
    for wrong, said in (
        (("--m", "1"), "2<=x<=100"),
        (("--ef-construction", "1001"), "4<=x<=1000"),
        (("--ef-construction", "20"), "--ef-construction 20 is less than twice --m 16"),
        (("--drop", "--m", "8"), "give none with --drop"),
    ):
        answer = run("gallery", "index", "staff", *wrong)
        assert (answer.code, said in answer.err) == (2, True)
    assert staff.exists()


def test_probes_of_a_file(staff: Path, run: Run) -> None:
    random = np.random.default_rng(0)
    sets = {
        name: (row / np.linalg.norm(row) + 0.1 * random.normal(size=16)).astype(np.float32)[None]
        for name, row in list(hand_made.strangers(600).items())[:40]
    }
    file = write_probe(staff / "probes.npz", sets)
    assert run("gallery", "index", "staff").code == 0
    found = run("gallery", "tune", "staff", "--probes", file, "--json").json
    assert found["basis"].startswith("40 mated probes")
    other = run("gallery", "tune", "staff", "--probes", file, "--extractor", "other")
    assert (other.code, "come from 'other'" in other.err) == (7, True)


def test_what_cannot_be_tuned(staff: Path, run: Run) -> None:
    said = run("gallery", "tune", "staff")
    assert said.code == 12
    assert said.err == (
        "pfstore: version 1 of gallery 'staff' has no index: its searches are exhaustive and exact; "
        "`pfstore gallery index staff` builds one\n"
    )
    assert "version 1 is searched exhaustively: no index: all 600 templates are compared" in " ".join(
        run("gallery", "show", "staff").out.split()
    )
    for wrong in (("--target", "0"), ("--target", "1.1"), ("--extractor", "x"), ("--probes", "x", "--sample", "3")):
        assert run("gallery", "tune", "staff", *wrong).code == 2
    assert run("gallery", "tune", "nobody").code == 8
    assert staff.exists()
