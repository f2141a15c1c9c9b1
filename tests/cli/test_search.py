"""`pfstore search` in all its forms: files, sources, among whom, and what it says of how it was answered."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import psycopg
import pytest

from pfstore.gallery import galleries
from pfstore.gallery.database import Database
from tests.cli.conftest import Run, write_probe
from tests.gallery.tuned import tune
from tests.memory import people

PEOPLE = people(30)
SETS = {name: np.concatenate(list(media.values())) for name, media in PEOPLE.items()}


@pytest.fixture
def filled(folder: Path, run: Run) -> Path:
    run("backfill", "staff")
    write_probe(folder / "probes.npz", {name: SETS[name] for name in ("s0003", "s0011", "s0020")})
    return folder


def test_json_lines_say_the_same(filled: Path, run: Run) -> None:
    document = run("search", "staff", "--probes", "probes.npz", "--top", "2", "--json").json
    lines = [
        json.loads(line)
        for line in run("search", "staff", "--probes", "probes.npz", "--top", "2", "--jsonl").out.splitlines()
    ]
    assert document["search"] == {"path": "exhaustive", "exact": True, "tuned": None}
    assert lines == [one | {"search": document["search"]} for one in document["probes"]]


@pytest.mark.parametrize("form", ["--jsonl", "--json", "table"])
def test_what_stands_before_a_mistake_is_answered(filled: Path, run: Run, form: str) -> None:
    lines = [json.dumps({"id": f"p{i}", "features": SETS[f"s000{i}"].tolist()}) for i in (1, 2)]
    Path("x.jsonl").write_text("\n".join([*lines, "{oops", lines[0]]))
    said = run("search", "staff", "--probes", "x.jsonl", "--top", "1", *([form] if form != "table" else []))
    assert said.code == 9
    assert said.err.splitlines()[-1].startswith("pfstore: x.jsonl: line 3: not JSON")
    if form == "--json":
        assert said.out == ""
    else:
        assert [line.count("p1") + line.count("p2") for line in said.out.splitlines()].count(1) == 2


def test_probes_that_cancel_are_named(filled: Path, run: Run) -> None:
    write_probe(filled / "x.npz", {"good": SETS["s0001"], "void": np.array([[1.0] * 8, [-1.0] * 8], np.float32)})
    said = run("search", "staff", "--probes", "x.npz", "--jsonl")
    assert said.code == 9
    assert [json.loads(line)["id"] for line in said.out.splitlines()] == ["good"]
    assert "probe 'void' cancel to zero" in said.err


def test_a_source_is_searched_for(filled: Path, run: Run) -> None:
    legacy = sqlite3.connect("legacy.db")
    legacy.execute("INSERT INTO faces (id, person, image, vec) VALUES (9001, 'ghost', 'x', zeroblob(32))")
    plus = np.ones(8, "<f4")
    for vector in (plus, -plus):
        legacy.execute("INSERT INTO faces (person, image, vec) VALUES ('void', 'x', ?)", (vector.tobytes(),))
    legacy.commit()
    legacy.close()
    said = run("search", "staff", "--source", "hr", "--top", "1", "--json")
    assert [one["id"] for one in said.json["probes"]] == sorted(PEOPLE)
    assert all(one["candidates"][0]["subject"] == one["id"] for one in said.json["probes"])
    assert said.json["rejected"] == {"zero norm": 1, "cancelled out": 2}
    assert said.err == "pfstore: 3 rows of source 'hr' were rejected (2 cancelled out, 1 zero norm)\n"
    assert run("-q", "search", "staff", "--source", "hr", "--jsonl").err == ""


def test_a_source_of_another_contract(filled: Path, run: Run) -> None:
    toml = filled / "pfstore.toml"
    toml.write_text(toml.read_text().replace('"test-extractor"', '"other"'))
    said = run("search", "staff", "--source", "hr")
    assert (said.code, said.out) == (7, "")
    assert "come from 'other', gallery 'staff' holds 'test-extractor'" in said.err
    assert run("search", "staff", "--source", "nowhere").code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--probes", "probes.npz", "--source", "hr"],
        ["--source", "hr", "--extractor", "x"],
        ["--probes", "-", "--among", "@-"],
        ["--probes", "probes.npz", "--deadline", "0"],
        ["--probes", "probes.npz", "--deadline", "nan"],
        ["--probes", "probes.npz", "--top", "10001"],
        ["--probes", "probes.npz", "--top", "0"],
    ],
)
def test_wrong_use(filled: Path, run: Run, arguments: list[str]) -> None:
    assert run("search", "staff", *arguments).code == 2


def test_bounds(filled: Path, run: Run) -> None:
    found = run("search", "staff", "--probes", "probes.npz", "--top", "10000", "--exact", "--json").json
    assert [len(one["candidates"]) for one in found["probes"]] == [30] * 3
    with_deadline = run(
        "search", "staff", "--probes", "probes.npz", "--top", "10000", "--deadline", "60", "--json"
    ).json
    assert with_deadline["probes"] == found["probes"]


def test_among_a_file(filled: Path, run: Run) -> None:
    Path("some.txt").write_bytes("\ufeffs0003\r\n\r\ns0005\ns0005\nnobody".encode())
    said = run("search", "staff", "--probes", "probes.npz", "--among", "@some.txt", "--json")
    assert said.json["among"] == {"named": 3, "enrolled": 2}
    assert all({line["subject"] for line in one["candidates"]} == {"s0003", "s0005"} for one in said.json["probes"])
    assert "1 of the 3 subjects of --among have no template" in said.err
    assert said.err.endswith("'nobody'\n")
    assert run("-q", "search", "staff", "--probes", "probes.npz", "--among", "@some.txt").err == ""


def test_among_a_query(filled: Path, run: Run, database: Database) -> None:
    with psycopg.connect(database.uri) as connection:
        connection.execute("CREATE SCHEMA hr")
        connection.execute(
            "CREATE TABLE hr.people AS SELECT 's000' || i AS person_id, i % 2 AS site FROM generate_series(1, 9) i"
        )
    query = "SELECT person_id FROM hr.people WHERE site = 1"
    found = run("search", "staff", "--probes", "probes.npz", "--among", query, "--json").json
    assert found["among"] == {"named": 5, "enrolled": 5}
    assert all(len(one["candidates"]) == 5 for one in found["probes"])


@pytest.mark.parametrize(
    ("among", "code", "says"),
    [
        ("@nowhere.txt", 9, "--among: nowhere.txt: cannot be read: No such file"),
        ("@latin.txt", 9, "--among: latin.txt: line 2 is not UTF-8"),
        ("@nul.txt", 9, "--among: nul.txt: line 2 holds a NUL"),
        ("@empty.txt", 9, "--among names nobody"),
        ("SELECT 'x' WHERE false", 9, "--among names nobody"),
        ("SELECT 1, 2", 9, "--among: the query gives 2 columns"),
        ("some.txt", 9, "--among: the query fails, or is not one query of one column"),
        ("VALUES ('ada'), ('bob')", 8, "none of the 2 subjects of --among has a template in version 1"),
    ],
)
def test_among_nobody(filled: Path, run: Run, among: str, code: int, says: str) -> None:
    Path("latin.txt").write_bytes(b"a\n\xe4\n")
    Path("nul.txt").write_bytes(b"a\nb\0\n")
    Path("empty.txt").write_bytes(b"\n\n")
    said = run("search", "staff", "--probes", "probes.npz", "--among", among)
    assert (said.code, said.out) == (code, "")
    assert says in said.err


def test_it_says_how_it_was_answered(filled: Path, run: Run, database: Database) -> None:
    assert run("search", "staff", "--probes", "probes.npz").out.splitlines()[-1] == "exhaustive, exact"
    run("gallery", "index", "staff")
    assert run("search", "staff", "--probes", "probes.npz").out.splitlines()[-1] == "exhaustive, exact"
    with database.connect() as connection:
        tune(connection, galleries.version(connection, "staff"))
    assert run("search", "staff", "--probes", "probes.npz").out.splitlines()[-1] == "index, tuned to 0.999 of rank 1"
    told = run("search", "staff", "--probes", "probes.npz", "--json").json["search"]
    tuned = {"target": 0.999, "recall": 0.9995, "interval": [0.997, 1.0]}
    assert told == {"path": "index", "exact": False, "tuned": tuned}
    assert run("search", "staff", "--probes", "probes.npz", "--exact").out.splitlines()[-1] == "exhaustive, exact"
    Path("some.txt").write_text("s0003\n")
    few = run("search", "staff", "--probes", "probes.npz", "--among", "@some.txt", "--json").json["search"]
    assert few["exact"] is True


def test_verify_with_a_deadline(filled: Path, run: Run) -> None:
    write_probe(filled / "one.npz", {"x": SETS["s0003"]})
    assert run("verify", "staff", "s0003", "--probe", "one.npz", "--deadline", "60").code == 0


def test_fresh_where_there_is_no_replica(filled: Path, run: Run) -> None:
    document = run("search", "staff", "--probes", "probes.npz", "--json").json
    assert run("search", "staff", "--probes", "probes.npz", "--json", "--fresh").json == document
    assert "replica" not in document
    write_probe(filled / "one.npz", {"x": SETS["s0003"]})
    assert run("verify", "staff", "s0003", "--probe", "one.npz", "--fresh").code == 0
