"""`pfstore refresh`: what it prints, and what it answers to wrong use."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.cli.conftest import Run


def _change(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "legacy.db") as legacy:
        for statement in statements:
            legacy.execute(statement)


def test_a_gallery_is_filled_kept_fresh_and_told_of(folder: Path, run: Run) -> None:
    first = run("refresh", "staff", "--json").json
    assert (first["subjects"]["written"], first["promoted"], first["active"]) == (30, True, 1)
    _change(
        folder, "DELETE FROM faces WHERE person = 's0003'", "UPDATE faces SET person = 's0005' WHERE person = 's0004'"
    )
    shown = run("refresh", "staff", "--dry-run")
    assert "0 new, 1 changed or not certain, 2 vanished, 27 unchanged" in shown.out
    assert [line.split() for line in shown.out.splitlines()[-3:]] == [
        ["changed", "s0005"],
        ["vanished", "s0003"],
        ["vanished", "s0004"],
    ]
    preview = run("refresh", "staff", "--dry-run", "--json").json
    assert preview["subjects"] == {"new": [], "changed": ["s0005"], "vanished": ["s0003", "s0004"]}
    done = run("refresh", "staff", "--json")
    assert done.err == ""
    assert done.json["subjects"] == {"seen": 28, "written": 1, "unchanged": 27, "removed": 2, "rejected": 0}
    assert done.json["by"] == "content"
    again = run("refresh", "staff")
    assert "28 seen = 0 written + 28 unchanged + 0 rejected" in again.out
    assert "0 read = 0 fused + 0 rejected" in again.out


def test_rejects_are_counted_and_strict_answers_eleven(folder: Path, run: Run) -> None:
    run("backfill", "staff")
    run("refresh", "staff")
    _change(folder, "UPDATE faces SET vec = NULL WHERE person = 's0003'")
    done = run("refresh", "staff", "--strict")
    assert done.code == 11
    assert "empty; `pfstore status --rejects` lists them" in done.out


def test_a_profile(folder: Path, run: Run) -> None:
    assert set(run("refresh", "staff", "--profile", "--json").json["profile"]["stages"]) >= {"planning", "finishing"}


def test_wrong_use(folder: Path, run: Run) -> None:
    said = run("refresh", "staf")
    assert (said.code, said.err.count("\n")) == (3, 1)
    assert "did you mean staff?" in said.err
    said = run("refresh", "staff", "--dry-run")
    assert (said.code, said.err) == (
        8,
        "pfstore: gallery 'staff' has no version yet: `pfstore backfill staff --dry-run`\n",
    )
    run("backfill", "staff")
    said = run("refresh", "staff", "--version", "7")
    assert (said.code, said.err) == (8, "pfstore: gallery 'staff' has no version 7 (there: 1)\n")
    assert run("refresh", "staff", "--removals", "2").code == 2
    _change(folder, "DELETE FROM faces WHERE person > 's0009'")
    said = run("refresh", "staff")
    assert (said.code, said.err.count("\n")) == (12, 1)
    assert "20 of the 30 subjects of version 1" in said.err
    assert run("refresh", "staff", "--removals", "1", "--json").json["subjects"]["removed"] == 20
