from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run, write_probe
from tests.memory import people

PEOPLE = people(30)


def _probe(subject: str) -> dict[str, np.ndarray]:
    return {subject: np.concatenate(list(PEOPLE[subject].values()))}


def test_the_main_job(folder: Path, run: Run) -> None:
    filled = run("backfill", "staff", "--json").json
    rows = sum(len(features) for media in PEOPLE.values() for features in media.values())
    assert filled["features"] == {"read": rows, "fused": rows, "rejected": 0}
    assert filled["subjects"] == {"seen": 30, "written": 30, "unchanged": 0, "removed": 0, "rejected": 0}
    assert filled["promoted"] is True

    probes = write_probe(folder / "probes.npz", _probe("s0003") | _probe("s0011"))
    found = run("search", "staff", "--probes", probes, "--top", "3", "--json").json
    assert (found["gallery"], found["version"]) == ("staff", 1)
    assert [one["id"] for one in found["probes"]] == ["s0003", "s0011"]
    for one in found["probes"]:
        assert [line["rank"] for line in one["candidates"]] == [1, 2, 3]
        assert one["candidates"][0]["subject"] == one["id"]

    one = write_probe(folder / "one.npz", _probe("s0003"))
    match = run("verify", "staff", "s0003", "--probe", one, "--json")
    assert match.code == 0
    assert match.json["match"] is True
    assert match.json["score"] >= match.json["threshold"]
    assert match.json["fmr"] == pytest.approx(3 / (30 * 29 / 2))
    other = run("verify", "staff", "s0011", "--probe", one, "--json")
    assert other.code == 1
    assert other.json["match"] is False
    assert run("verify", "staff", "s0011", "--probe", one, "--threshold", "-1").code == 0


def test_what_people_read(folder: Path, run: Run) -> None:
    said = run("backfill", "staff")
    assert said.code == 0
    assert "run 1: gallery staff, version 1" in said.out
    assert "subjects  30 seen = 30 written + 0 unchanged + 0 rejected" in said.out
    assert "30 unchanged" in run("backfill", "staff").out
    assert "active" in run("status").out
    assert "average" in run("gallery", "show", "staff").out
    one = write_probe(folder / "one.npz", _probe("s0003"))
    assert run("verify", "staff", "s0003", "--probe", one).out.startswith("match: s0003, score ")
    found = run("search", "staff", "--probes", one, "--top", "1").out.splitlines()
    assert found[1].split()[:3] == ["s0003", "1", "s0003"]
    assert found[2:] == ["", "exhaustive, exact"]


def test_it_tells_where_the_time_went(folder: Path, run: Run) -> None:
    told = run("backfill", "staff", "--profile")
    assert told.code == 0
    assert "features/s alone" in told.out
    assert told.out.count("the limit") == 1
    profile = run("backfill", "staff", "--profile", "--restart", "--json").json["profile"]
    assert set(profile) == {"stages", "wall", "features", "limit"}
    assert profile["limit"] in profile["stages"]
    assert profile["stages"]["decoding"] > 0
    assert max(profile["stages"].values()) <= profile["wall"]


def test_a_device_that_is_not_here(folder: Path, run: Run) -> None:
    for more in ([], ["--dry-run"]):
        told = run("backfill", "staff", "--device", "cuda:99", *more)
        assert told.code == 3
        assert told.err == "pfstore: there is no device 'cuda:99' here: use cpu\n"


def test_rejects_are_listed(folder: Path, run: Run) -> None:
    import sqlite3

    connection = sqlite3.connect(folder / "legacy.db")
    connection.execute("INSERT INTO faces (id, person, image, vec) VALUES (9001, 'ghost', 'x', zeroblob(32))")
    connection.execute("INSERT INTO faces (id, person, image, vec) VALUES (9002, NULL, 'x', zeroblob(32))")
    connection.commit()
    connection.close()
    said = run("backfill", "staff", "--strict")
    assert said.code == 11
    assert "rejected  1 no subject, 1 zero norm; `pfstore status --rejects` lists them" in said.out
    assert said.err.splitlines()[-1] == "pfstore: 2 rows were rejected, and --strict was asked for"
    rejects = run("status", "--rejects", "--json").json["rejects"]
    assert {(one["subject"], one["row"], one["reason"]) for one in rejects} == {
        ("ghost", "9001", "zero norm"),
        (None, "9002", "no subject"),
    }
    assert run("backfill", "staff").code == 0


def test_a_dry_run_writes_nothing(folder: Path, run: Run) -> None:
    said = run("backfill", "staff", "--dry-run", "--json").json
    assert said["run"] is None
    assert said["subjects"]["seen"] == 30
    assert run("gallery", "list", "--json").json == []


def test_source_check(folder: Path, run: Run) -> None:
    found = run("source", "check", "hr", "--json").json
    assert (found["dimension"], found["rejected"]) == (8, {})
    assert found["read"] == found["usable"]
    assert "test-extractor" in run("source", "check", "hr").out


def test_versions_from_the_command_line(folder: Path, run: Run) -> None:
    run("backfill", "staff")
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text().replace('"average"', '"norm-weighted"'))
    assert run("backfill", "staff", "--json").json["version"] == 2
    assert run("gallery", "promote", "staff", "2", "--json").json["state"] == "active"
    assert run("gallery", "rollback", "staff", "--json").json["number"] == 1
    assert run("gallery", "index", "staff").code == 0
    one = write_probe(folder / "one.npz", _probe("s0003"))
    plain = run("search", "staff", "--probes", one, "--json").json
    assert run("search", "staff", "--probes", one, "--exact", "--json").json == plain
    assert run("gallery", "drop", "staff", "--version", "2", "--yes", "--json").json["templates"] == 30
    assert run("gallery", "drop", "staff", "--yes").code == 0
    assert run("search", "staff", "--probes", one).code == 8


def test_it_says_which_version_answers(folder: Path, run: Run) -> None:
    assert "No version answers searches yet" in run("backfill", "staff", "--limit", "3").out
    assert "Searches answer from it now" in run("backfill", "staff").out
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text().replace('"average"', '"norm-weighted"'))
    said = run("backfill", "staff").out
    assert "Searches still answer from version 1; to switch: pfstore gallery promote staff 2" in said


def test_keys_are_text_and_nothing_else(folder: Path, run: Run) -> None:
    import sqlite3

    connection = sqlite3.connect(folder / "legacy.db")
    connection.execute("UPDATE faces SET person = '[/red]' WHERE person = 's0003'")
    connection.execute("UPDATE faces SET person = 'a' || char(27) || '[31m' || char(10) || 'b' WHERE person = 's0004'")
    connection.commit()
    connection.close()
    assert run("backfill", "staff").code == 0
    one = write_probe(folder / "one.npz", _probe("s0003"))
    assert run("verify", "staff", "[/red]", "--probe", one).out.startswith("match: [/red], score")
    assert " [/red] " in run("search", "staff", "--probes", one, "--top", "1").out
    two = write_probe(folder / "two.npz", _probe("s0004"))
    assert "a\\x1b[31m\\nb" in run("search", "staff", "--probes", two, "--top", "1").out
    assert run("gallery", "create", "[x]").out == "gallery [x]: made, empty\n"


def test_what_is_not_a_number(folder: Path, run: Run) -> None:
    for option in ("--threshold", "--fmr"):
        assert run("verify", "staff", "s0003", "--probe", "x", option, "nan").code == 2
    assert run("search", "staff", "--probes", "x", "--threshold", "nan").code == 2
    assert run("verify", "staff", "\udcff", "--probe", "x").code == 2


def test_verbose_tells_what_is_used(folder: Path, run: Run) -> None:
    said = run("-v", "status", "--json")
    assert said.json["runs"] == []
    assert said.err.splitlines()[0] == f"configuration: {folder / 'pfstore.toml'}"
    assert said.err.splitlines()[1].startswith("database: postgresql://")
    assert run("status", "--json").err == run("-v", "-q", "status", "--json").err == ""
