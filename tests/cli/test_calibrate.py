from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from pfstore.cli import calibrate as command
from pfstore.gallery import calibration
from tests.cli.conftest import Run, write_legacy, write_probe
from tests.memory import people

PEOPLE = people(30)


@pytest.fixture
def staff(folder: Path, run: Run) -> Path:
    """The user's folder with 350 people in the gallery staff."""
    (folder / "legacy.db").unlink()
    write_legacy(folder / "legacy.db", people(350))
    assert run("backfill", "staff").code == 0
    return folder


def _probes(folder: Path, count: int, prefix: str = "x", seed: int = 9) -> Path:
    sets = {
        name: np.concatenate(list(media.values())) for name, media in people(count, seed=seed, prefix=prefix).items()
    }
    return write_probe(folder / "probes.npz", sets)


def _one(folder: Path, subject: str) -> Path:
    return write_probe(folder / "one.npz", {subject: np.concatenate(list(PEOPLE[subject].values()))})


def test_it_stores_what_verify_and_search_use(staff: Path, run: Run) -> None:
    found = run("calibrate", "staff", "--fmr", "0.01", "--fmr", "0.05", "--fpir", "0.1", "--json").json
    assert (found["gallery"], found["version"], found["templates"]) == ("staff", 1, 350)
    assert (found["comparisons"], found["searches"]) == (350 * 349 // 2, 350)
    loose, strict, search = found["thresholds"]
    assert [(one["kind"], one["target"]) for one in (loose, strict, search)] == [
        ("fmr", 0.05), ("fmr", 0.01), ("fpir", 0.1),
    ]  # fmt: skip
    basis = "gallery against gallery, all 350 subjects"
    one = _one(staff, "s0003")
    verified = run("verify", "staff", "s0003", "--probe", one, "--fmr", "0.05", "--json").json
    assert set(verified) == {"subject", "score", "threshold", "fmr", "match", "interval", "comparisons", "basis"}
    assert (verified["threshold"], verified["fmr"], verified["match"]) == (loose["threshold"], 0.05, True)
    assert verified["interval"] == [loose["low"], loose["high"]]
    assert (verified["comparisons"], verified["basis"]) == (61_075, basis)
    searched = run("search", "staff", "--probes", one, "--fpir", "0.1", "--json").json
    assert (searched["threshold"], searched["fpir"], searched["searches"]) == (search["threshold"], 0.1, 350)
    assert (searched["interval"], searched["basis"]) == ([search["low"], search["high"]], basis)
    assert searched["templates"] == {"calibrated": 350, "now": 350}
    assert all(line["score"] >= search["threshold"] for line in searched["probes"][0]["candidates"])
    matched = run("search", "staff", "--probes", one, "--fmr", "0.02", "--json").json
    assert (matched["threshold"], matched["fmr"], matched["comparisons"]) == (strict["threshold"], 0.01, 61_075)


def test_what_people_read(staff: Path, run: Run) -> None:
    said = run("calibrate", "staff")
    assert said.err == ""
    lines = [line.rstrip() for line in said.out.splitlines()]
    assert lines[0].startswith("version 1 of gallery staff: gallery against gallery, all 350 subjects, ")
    assert lines[2].split() == ["rate", "at", "most", "threshold", "95", "%", "interval", "of"]
    assert [line.split()[:2] for line in lines[3:]] == [
        ["FMR", "0.1"], ["FMR", "0.01"], ["FMR", "0.001"], ["FPIR", "0.1"],
    ]  # fmt: skip
    assert lines[3].endswith("61,075 comparisons")
    assert lines[6].endswith("350 searches")
    one = _one(staff, "s0003")
    verified = run("verify", "staff", "s0003", "--probe", one, "--fmr", "0.01").out
    assert "(FMR at most 0.01 [" in verified
    assert "], 61,075 non-mated comparisons, gallery against gallery, all 350 subjects)" in verified
    rests = run("search", "staff", "--probes", one, "--fpir", "0.1").out.splitlines()[-2]
    assert rests.startswith("at or above 0.")
    assert ": FPIR at most 0.1 [" in rests
    assert rests.endswith("], 350 non-mated searches, gallery against gallery, all 350 subjects")


def test_a_score_of_ones_own(staff: Path, run: Run) -> None:
    [stored] = run("calibrate", "staff", "--fmr", "0.01", "--json").json["thresholds"][:1]
    one = _one(staff, "s0003")
    above = run("verify", "staff", "s0003", "--probe", one, "--threshold", "0.999", "--json").json
    assert (above["fmr"], above["interval"], above["comparisons"]) == (0.01, None, 61_075)
    assert stored["threshold"] < 0.999
    said = run("verify", "staff", "s0003", "--probe", one, "--threshold", "0.999").out
    assert "(FMR at most 0.01, 61,075 non-mated comparisons, gallery" in said
    below = run("verify", "staff", "s0003", "--probe", one, "--threshold", "-1", "--json").json
    assert (below["fmr"], below["interval"], below["comparisons"], below["basis"]) == (None, None, None, None)
    assert "(FMR unknown)" in run("verify", "staff", "s0003", "--probe", one, "--threshold", "-1").out


def test_probes(staff: Path, run: Run) -> None:
    file = _probes(staff, 100)
    said = run("calibrate", "staff", "--probes", file, "--fmr", "0.01", "--json")
    assert said.json["basis"] == "100 probes against the gallery's 350 subjects, none of them of a subject of it"
    assert (said.json["comparisons"], said.json["searches"], said.json["mated"]) == (35_000, 100, 0)
    assert "no probe has the id of a subject of the gallery, so all are taken for strangers" in said.err
    assert run("-q", "calibrate", "staff", "--probes", file).err == ""
    assert run("calibrate", "staff", "--probes", "nowhere.npz").code == 9
    assert run("calibrate", "staff", "--probes", file, "--extractor", "other").code == 7
    assert run("calibrate", "staff", "--extractor", "other").code == 2


def test_probes_of_the_gallerys_own_subjects(staff: Path, run: Run) -> None:
    said = run("calibrate", "staff", "--probes", _probes(staff, 30, prefix="s", seed=0))
    assert "30 probes against the gallery's 350 subjects, 30 mated left out" in said.out
    assert said.err == ""


def test_a_sample(staff: Path, run: Run) -> None:
    first = run("calibrate", "staff", "--sample", "100", "--seed", "4", "--json").json
    assert first["basis"] == "gallery against gallery, 100 of 350 subjects against all, seed 4"
    again = run("calibrate", "staff", "--sample", "100", "--seed", "4", "--json").json
    assert [one["threshold"] for one in again["thresholds"]] == [one["threshold"] for one in first["thresholds"]]
    assert run("calibrate", "staff", "--all", "--json").json["comparisons"] == 61_075


def test_the_sample_that_help_tells_is_the_one_taken(run: Run) -> None:
    assert calibration.SAMPLE == command.SAMPLE
    assert f"[default: {calibration.SAMPLE}]" in " ".join(run("calibrate", "--help").out.split())


def test_a_rate_that_the_gallery_does_not_support(staff: Path, run: Run) -> None:
    before = run("gallery", "show", "staff", "--json").json
    said = run("calibrate", "staff", "--fmr", "1e-6")
    assert (said.code, said.out) == (7, "")
    assert said.err.splitlines()[-1].startswith(
        "pfstore: an FMR of 1e-06 needs 30,000,000 non-mated comparisons, so that 30 errors can be expected; there are "
        "61,075 (gallery against gallery, all 350 subjects): ask for 0.0005 or more"
    )
    assert run("gallery", "show", "staff", "--json").json == before
    one = _one(staff, "s0003")
    refused = run("verify", "staff", "s0003", "--probe", one, "--fmr", "1e-6")
    assert (refused.code, "an FMR of 1e-06 needs 30,000,000" in refused.err) == (7, True)
    refused = run("search", "staff", "--probes", one, "--fpir", "0.001")
    assert (refused.code, "an FPIR of 0.001 needs 30,000 non-mated searches" in refused.err) == (7, True)


def test_wrong_use(folder: Path, run: Run) -> None:
    for rate in ("0", "1", "2", "-0.1", "nan", "x"):
        assert run("calibrate", "staff", "--fmr", rate).code == 2
        assert run("calibrate", "staff", "--fpir", rate).code == 2
    for options in (("--all", "--sample", "3"), ("--all", "--probes", "x"), ("--sample", "3", "--probes", "x")):
        assert run("calibrate", "staff", *options).code == 2
    assert run("calibrate", "staff", "--sample", "0").code == 2
    assert run("search", "staff", "--probes", "x", "--fpir", "0.1", "--threshold", "0.5").code == 2
    assert run("search", "staff", "--probes", "x", "--fpir", "0.1", "--fmr", "0.5").code == 2
    assert run("search", "staff", "--probes", "x", "--fpir", "nan").code == 2
    assert "there is no gallery 'staff'" in run("calibrate", "staff").err
    assert run("calibrate", "staff").code == 8


def test_a_gallery_of_one_subject(folder: Path, run: Run) -> None:
    run("backfill", "staff", "--limit", "1")
    said = run("calibrate", "staff", "--version", "1")
    assert said.code == 7
    assert "allows no non-mated comparison" in said.err


def test_search_says_that_the_gallery_has_grown(staff: Path, run: Run) -> None:
    run("calibrate", "staff")
    one = _one(staff, "s0003")
    _enrol(staff, 386)
    run("backfill", "staff")
    said = run("search", "staff", "--probes", one, "--fpir", "0.1", "--json")
    assert said.json["templates"] == {"calibrated": 350, "now": 386}
    assert said.err == (
        "pfstore: the gallery had 350 templates when it was calibrated and has 386 now, so the FPIR is higher than "
        "said: run `pfstore calibrate staff` again\n"
    )
    assert run("-q", "search", "staff", "--probes", one, "--fpir", "0.1").err == ""
    assert run("search", "staff", "--probes", one, "--fmr", "0.1").err == ""
    run("calibrate", "staff")
    assert run("search", "staff", "--probes", one, "--fpir", "0.1").err == ""


def test_gallery_show_tells_what_thresholds_rest_on(staff: Path, run: Run) -> None:
    assert (
        "version 1: gallery against gallery, all 350 subjects, by backfill, 20" in run("gallery", "show", "staff").out
    )
    run("calibrate", "staff", "--probes", _probes(staff, 100), "--fmr", "0.01")
    _enrol(staff, 353)
    run("backfill", "staff")
    [version] = run("gallery", "show", "staff", "--json").json["versions"]
    assert version["written_since"] == 3
    [stored] = version["thresholds"]
    assert set(stored) == {
        "kind", "target", "threshold", "comparisons", "low", "high", "templates", "basis", "automatic", "created_at",
    }  # fmt: skip
    assert (stored["automatic"], stored["templates"], stored["comparisons"]) == (False, 350, 35_000)
    said = run("gallery", "show", "staff").out
    assert (
        "version 1: 100 probes against the gallery's 350 subjects, none of them of a subject of it, by calibrate"
        in said
    )
    assert "older than 3 templates" in said
    assert "35,000 comparisons" in said


def _enrol(folder: Path, count: int) -> None:
    """Let the legacy store have so many people, as before and more."""
    legacy = folder / "legacy.db"
    legacy.unlink()
    write_legacy(legacy, people(count))
    with sqlite3.connect(legacy) as connection:
        assert connection.execute("SELECT count(DISTINCT person) FROM faces").fetchone() == (count,)
    connection.close()
