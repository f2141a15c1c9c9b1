from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from pfstore.gallery.database import Database
from tests.cli.conftest import Run, write_legacy
from tests.memory import people


@pytest.fixture
def staff(folder: Path, run: Run) -> Path:
    """The user's folder with 60 people in the gallery staff, three of them twice and one three times."""
    subjects = people(60, dimension=32)
    again = {f"again-{number}": subjects[f"s{number:04}"] for number in (3, 17, 40)}
    (folder / "legacy.db").unlink()
    write_legacy(folder / "legacy.db", subjects | again | {"third-17": subjects["s0017"]})
    assert run("backfill", "staff").code == 0
    return folder


def test_it_finds_who_is_enrolled_twice(staff: Path, run: Run) -> None:
    said = run("dedupe", "staff", "--threshold", "0.99", "--json")
    assert (said.code, said.err) == (0, "")
    found = said.json
    assert (found["gallery"], found["version"], found["threshold"], found["fmr"]) == ("staff", 1, 0.99, None)
    assert (found["templates"], found["comparisons"]) == (64, 64 * 63 // 2)
    assert found["seconds"] > 0
    assert {(one["subject_a"], one["subject_b"]) for one in found["pairs"]} == {
        ("again-3", "s0003"), ("again-17", "s0017"), ("again-40", "s0040"), ("again-17", "third-17"),
        ("s0017", "third-17"),
    }  # fmt: skip
    assert all(set(one) == {"subject_a", "subject_b", "score"} and one["score"] > 0.99 for one in found["pairs"])
    clusters = run("dedupe", "staff", "--threshold", "0.99", "--clusters", "--json").json["clusters"]
    assert sorted((one["subjects"], one["pairs"]) for one in clusters) == [
        (["again-17", "s0017", "third-17"], 3), (["again-3", "s0003"], 1), (["again-40", "s0040"], 1),
    ]  # fmt: skip
    assert all(set(one) == {"subjects", "pairs", "best", "weakest"} for one in clusters)


def test_what_people_read(staff: Path, run: Run) -> None:
    lines = [line.rstrip() for line in run("dedupe", "staff", "--threshold", "0.99").out.splitlines()]
    head = r"version 1 of gallery staff: 5 pairs at or above 0.9900 in 2,016 comparisons of 64 templates, [\d.]+ s"
    assert re.fullmatch(head, lines[0])
    assert lines[2].split() == ["subject", "a", "subject", "b", "score"]
    assert len(lines) == 8
    assert {tuple(line.split()[:2]) for line in lines[3:]} >= {("again-3", "s0003"), ("s0017", "third-17")}
    again = run("dedupe", "staff", "--threshold", "0.99", "--top", "2").out
    assert "all or part of it compared by an earlier call" in again
    assert "3 pairs more: --top shows more" in again
    assert "earlier call" not in run("dedupe", "staff", "--threshold", "0.99", "--restart").out
    clusters = run("dedupe", "staff", "--threshold", "0.99", "--clusters").out
    assert "again-17, s0017, third-17" in clusters
    assert "weakest" in clusters


def test_at_a_false_match_rate(staff: Path, run: Run) -> None:
    stored = run("gallery", "show", "staff", "--json").json["versions"][0]["thresholds"]
    at = {one["target"]: one["threshold"] for one in stored if one["kind"] == "fmr"}
    strict = run("dedupe", "staff", "--json").json
    assert (strict["fmr"], strict["threshold"]) == (0.1, at[0.1])
    assert len(strict["pairs"]) > 100
    said = run("dedupe", "staff", "--fmr", "0.2").out
    assert "threshold: FMR at most 0.1 [" in said
    assert "gallery against gallery, all 64 subjects" in said
    assert "At this rate up to about 202 pairs of different persons are to be expected." in said
    refused = run("dedupe", "staff", "--fmr", "1e-6")
    assert (refused.code, refused.out) == (7, "")
    assert "an FMR of 1e-06 needs 30,000,000 non-mated comparisons" in refused.err


def test_without_any_threshold(folder: Path, run: Run) -> None:
    (folder / "legacy.db").unlink()
    write_legacy(folder / "legacy.db", people(5))
    run("backfill", "staff")
    said = run("dedupe", "staff")
    assert said.code == 7
    assert "too few subjects to tell a threshold: give one with --threshold" in said.err
    said = run("dedupe", "staff", "--threshold", "0.999", "--clusters")
    assert (said.code, ": 0 pairs at or above 0.9990 in 10 comparisons of 5 templates" in said.out) == (0, True)


def test_csv(staff: Path, run: Run) -> None:
    file = staff / "pairs.csv"
    file.write_text("an earlier one")
    found = run("dedupe", "staff", "--threshold", "0.9", "--csv", file, "--top", "1", "--json").json
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(one["subject_a"], one["subject_b"], float(one["score"])) for one in rows] == [
        tuple(one.values()) for one in found["pairs"]
    ]
    store = staff / "legacy.db"
    before = store.read_bytes()
    refused = run("dedupe", "staff", "--threshold", "0.9", "--csv", store)
    assert (refused.code, refused.out) == (9, "")
    assert "legacy.db: a file of pairs ends in .csv" in refused.err
    assert store.read_bytes() == before
    assert run("dedupe", "staff", "--threshold", "0.9", "--csv", staff / "no" / "pairs.csv").code == 9


def test_wrong_use(folder: Path, run: Run) -> None:
    for options in (("--threshold", "2"), ("--threshold", "nan"), ("--fmr", "0"), ("--fmr", "0.1", "--threshold", "0")):
        assert run("dedupe", "staff", *options).code == 2
    assert run("dedupe", "staff", "--top", "0").code == 2
    said = run("dedupe", "staff")
    assert (said.code, "there is no gallery 'staff'" in said.err) == (8, True)


# As `pfstore dedupe`, but in blocks so small that there is something to interrupt, and slow enough for it.
PROGRAM = """
import sys, time
import pfstore.cli
from pfstore.gallery import duplicates
from pfstore.jobs import dedupe
dedupe._rows = lambda version: 8
keep = duplicates.keep
duplicates.keep = lambda *values: (keep(*values), time.sleep(0.3))
sys.argv[1:] = ["dedupe", "staff", "--threshold", "0.5", "--json"]
pfstore.cli.main()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_it_goes_on(staff: Path, run: Run, database: Database, how: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    query = "SELECT count(done_at) FROM pfstore.dedupe_blocks"
    with psycopg.connect(database.uri, autocommit=True) as connection:
        while (done := connection.execute(query).fetchone()) == (0,):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
        assert out == ""
        if how == signal.SIGINT:
            assert process.returncode == 130
            assert "Finished blocks stay: the same command, without --restart, goes on from there." in err
        row = connection.execute("SELECT count(done_at), count(*) FROM pfstore.dedupe_blocks").fetchone()
        assert done is not None
        assert row is not None
        assert (0 < row[0] < row[1], row[1]) == (True, 8)
    went_on = run("dedupe", "staff", "--threshold", "0.5", "--json").json
    assert went_on["resumed"]
    anew = run("dedupe", "staff", "--threshold", "0.5", "--json", "--restart").json
    assert not anew["resumed"]
    assert went_on["pairs"] == anew["pairs"]
    assert went_on["run"] + 1 == anew["run"]
