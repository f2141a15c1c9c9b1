"""`pfstore gallery`: how searches go (`index`, `tune`, `show`), and in which version (`compare`, `promote`, …)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from psycopg.types.json import Jsonb

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


@pytest.fixture
def two_versions(folder: Path, run: Run) -> Path:
    """The user's folder after two backfills: version 1 is active, version 2 of another model waits."""
    assert run("backfill", "staff").code == 0
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text().replace('"average"', '"norm-weighted"'))
    assert run("backfill", "staff").code == 0
    return folder


def _lose(folder: Path, run: Run, *people: str) -> None:
    """Remove people from the legacy store, and fill version 2 again."""
    connection = sqlite3.connect(folder / "legacy.db")
    connection.executemany("DELETE FROM faces WHERE person = ?", [(one,) for one in people])
    connection.commit()
    connection.close()
    assert run("backfill", "staff").code == 0


@pytest.mark.usefixtures("two_versions")
def test_two_versions_are_compared(run: Run) -> None:
    said = run("gallery", "compare", "staff", "--json")
    assert (said.code, said.err) == (0, "")
    found = said.json
    assert (found["gallery"], found["version"], found["against"], found["warnings"]) == ("staff", 2, 1, [])
    assert (found["coverage"]["both"], found["coverage"]["lacks"], found["agreement"]["pairs"]) == (30, 0, 435)
    assert run("gallery", "compare", "staff", "2", "--json").json == found
    some = run("gallery", "compare", "staff", "--sample", "10", "--seed", "3", "--json").json["agreement"]
    assert (some["subjects"], some["pairs"]) == (10, 45)
    shown = [" ".join(line.split()) for line in run("gallery", "compare", "staff").out.splitlines()]
    assert {"version 2 version 1", "subjects 30 30", "thresholds automatic automatic", "in both 30 subjects"} <= {
        *shown
    }
    assert "held-out accuracy the model cards tell none of both at one FMR" in shown
    assert any(line.startswith("agreement of scores Pearson ") for line in shown)
    assert run("gallery", "compare", "staff", "--sample", "2").code == 2
    assert run("gallery", "compare", "staff", "7").code == 8
    assert run("gallery", "list", "--json").json[0]["state"] == "active"


@pytest.mark.usefixtures("two_versions")
def test_promoting_compares_and_switches(run: Run) -> None:
    compared = run("gallery", "compare", "staff", "2", "--json").json
    said = run("gallery", "promote", "staff", "2", "--json")
    assert (said.code, said.err) == (0, "")
    assert (said.json["number"], said.json["state"], said.json["comparison"]) == (2, "active", compared)
    assert run("gallery", "rollback", "staff").out == "version 1 of gallery staff answers searches\n"
    text = run("gallery", "promote", "staff", "2").out
    assert "in both" in text
    assert text.endswith("\nversion 2 of gallery staff answers searches\n")
    quick = run("gallery", "promote", "staff", "1", "--no-compare")
    assert (quick.code, quick.out) == (0, "version 1 of gallery staff answers searches\n")
    assert run("gallery", "promote", "staff", "1", "--no-compare", "--json").json["comparison"] is None
    alone = run("gallery", "promote", "staff", "1")
    assert "there is no other active version to compare it with" in alone.out


def test_one_that_lacks_subjects_is_refused(two_versions: Path, run: Run) -> None:
    _lose(two_versions, run, "s0003", "s0007")
    lacks = "lacks 2 of the 30 subjects of version 1 (6.67%: 's0003', 's0007')"
    said = run("gallery", "promote", "staff", "2")
    assert (said.code, said.out) == (12, "")
    assert said.err == (
        f"pfstore: version 2 of gallery 'staff' is not promoted: it {lacks}, whom searches would miss; run "
        "`pfstore backfill staff`, or promote with --force\n"
    )
    assert run("gallery", "list", "--json").json[0]["state"] == "active"
    assert "2 subjects: s0003, s0007" in run("gallery", "compare", "staff").out
    forced = run("gallery", "promote", "staff", "2", "--force", "--json")
    assert (forced.code, forced.json["comparison"]["coverage"]["only_old"]) == (0, 2)
    assert forced.err == f"pfstore: warning: version 2 {lacks}\n"
    # Version 1 was made before version 2, and no run has looked at the source for it since.
    assert run("gallery", "promote", "staff", "1").err.startswith("pfstore: warning: version 1 was not refreshed since")
    assert run("-q", "gallery", "promote", "staff", "2", "--force").err == ""


@pytest.mark.usefixtures("two_versions")
def test_one_without_thresholds_is_warned_of(run: Run, database: Database) -> None:
    with database.connect() as connection:
        connection.execute("DELETE FROM pfstore.thresholds")
    warning = "pfstore: warning: version 2 has no thresholds: run `pfstore calibrate staff --version 2`\n"
    assert run("gallery", "compare", "staff").err == warning
    assert run("gallery", "promote", "staff", "2").err == warning
    assert run("gallery", "promote", "staff", "2", "--no-compare").err == warning
    assert run("gallery", "promote", "staff", "2", "--no-compare", "-q").err == ""


@pytest.mark.usefixtures("two_versions")
def test_rolling_back_and_dropping(run: Run) -> None:
    run("gallery", "promote", "staff", "2")
    for number in (1, 2):
        assert run("gallery", "rollback", "staff", "--json").json["number"] == number
    assert run("gallery", "drop", "staff", "--version", "2", "--yes").code == 12
    assert run("gallery", "drop", "staff", "--version", "1", "--yes", "--json").json["templates"] == 30
    gone = run("gallery", "rollback", "staff")
    assert (gone.code, gone.err) == (8, "pfstore: gallery 'staff' has no earlier version to go back to\n")
    lone = run("gallery", "compare", "staff")
    assert (lone.code, "has no version beside the active one" in lone.err) == (8, True)


@pytest.mark.usefixtures("two_versions")
def test_held_out_accuracy_is_shown_and_warned_of(run: Run, database: Database) -> None:
    rows = [
        {"method": "nan", "fmr": 0.001, "fnmr": 0.25, "low": 0.24, "high": 0.26},
        {"method": "average", "fmr": 0.001, "fnmr": 0.2, "low": 0.19, "high": 0.21},
    ]
    card = {"contract": {"extractor": "test-extractor"}, "validation": rows}
    with database.connect() as connection:
        connection.execute(
            "UPDATE pfstore.models SET kind = 'nan', details = details || %s WHERE name = 'norm-weighted'",
            (Jsonb({"card": card}),),
        )
    said = run("gallery", "promote", "staff", "2")
    shown = [" ".join(line.split()) for line in said.out.splitlines()]
    assert "held-out FNMR at FMR 0.001 0.2500 0.2400–0.2600 0.2000 0.1900–0.2100" in shown
    assert "perhaps of other people" not in said.out
    assert (said.code, said.err) == (
        0,
        "pfstore: warning: on held-out people version 2 makes more errors than version 1: FNMR 0.2500 against 0.2000 "
        "at FMR 0.001\n",
    )
