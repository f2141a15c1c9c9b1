"""`pfstore doctor`: what runs here, what is wrong, how to mend it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pfstore.gallery import galleries, indexing, tuning, tunings
from pfstore.gallery.database import Database
from pfstore.gallery.findings import findings
from pfstore.gallery.health import Health, Index, examine
from tests.cli.conftest import Run
from tests.gallery import hand_made
from tests.gallery.tuned import tune


def _whats(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["severity"], one["what"]) for one in document["findings"]]


def _gallery(database: Database, count: int = 1200) -> None:
    with database.connect() as connection:
        version = hand_made.version_of(connection, hand_made.strangers(count))
        galleries.analyze(connection, version)
        indexing.build(connection, version)


def _health(database: Database, folder: Path) -> Health:
    _gallery(database)
    found = examine(database, folder)
    server = replace(found.server, available="0.8.5", disk=2**40)
    return replace(found, server=server, schema=replace(found.schema, pgvector="0.8.5"))


def test_where_nothing_is_wrong(folder: Path, run: Run) -> None:
    said = run("doctor", "--json")
    assert said.code == 0
    assert said.json["findings"] == []
    assert {"python", "pfstore", "torch", "psycopg", "numpy"} <= set(said.json["versions"])
    assert said.json["device"]["threads"] >= 1
    database = said.json["database"]
    assert (database["reached"], database["current"], database["versions"]) == (True, True, [])
    assert database["shared_buffers"] > 2**20
    assert abs(database["clock"]) < 1
    assert database["disk"] is None
    assert run("doctor").out.rstrip().endswith("nothing is wrong")
    assert folder.exists()


def test_galleries_and_their_searches(folder: Path, run: Run, database: Database) -> None:
    _gallery(database)
    said = run("doctor", "--json")
    assert said.code == 0
    [one] = said.json["database"]["versions"]
    assert (one["gallery"], one["version"], one["templates"], one["analysed"]) == ("staff", 1, 1200, True)
    assert one["index"]["valid"]
    assert one["index"]["bytes"] > 100_000
    assert one["table_bytes"] > 1200 * 32
    assert (one["search"]["path"], one["scans"], one["wrong"], one["fits"]) == ("exhaustive", ["Seq Scan"], None, True)
    [(severity, what)] = _whats(said.json)
    assert (severity, what.partition(":")[0]) == ("warning", "the index of version 1 of gallery 'staff' is not tuned")
    text = run("doctor").out
    assert "to mend it: run `pfstore gallery tune staff`" in text
    assert "staff, version 1: the index is not tuned" in text
    assert folder.exists()


def test_a_database_that_cannot_be_reached(folder: Path, run: Run) -> None:
    url = "postgresql://someone:secret@127.0.0.1:1/nowhere"
    said = run("doctor", "--json", "--database", url)
    assert said.code == 4
    document = json.loads(said.out)
    assert document["database"]["reached"] is False
    assert document["database"]["url"].startswith("postgresql://someone:***@127.0.0.1:1/nowhere")
    assert [severity for severity, _ in _whats(document)] == ["error"]
    assert document["versions"]["torch"]
    text = run("doctor", "--database", url)
    assert text.code == 4
    assert "error: postgresql://someone" in text.out
    assert "secret" not in said.out + said.err + text.out + text.err
    assert folder.exists()


def test_a_configuration_that_cannot_be_read(folder: Path, run: Run) -> None:
    (folder / "pfstore.toml").write_text("[databas]\n")
    said = run("doctor", "--json")
    assert said.code == 3
    [(severity, what)] = _whats(said.json)
    assert severity == "error"
    assert "databas: unknown key" in what


def test_a_database_without_the_schema(folder: Path, run: Run, embedded_uri: str) -> None:
    said = run("doctor", "--json", "--database", embedded_uri)
    assert said.code == 4
    assert _whats(said.json) == [("error", "the database has no pfstore schema")]
    assert said.json["findings"][0]["mend"] == "run `pfstore init`"
    assert folder.exists()


def test_an_index_that_is_invalid_and_templates_never_analysed(folder: Path, run: Run, database: Database) -> None:
    with database.connect() as connection:
        # Nobody else may analyse it meanwhile.
        version = hand_made.version_of(connection, hand_made.strangers(10))
        connection.execute(b"ALTER TABLE pfstore.templates_v%d SET (autovacuum_enabled = off)" % version.version_id)
        more = {f"t{number}": row for number, row in enumerate(hand_made.strangers(1200, seed=1).values())}
        hand_made.add(connection, version, more)
        indexing.build(connection, version)
        tune(connection, version)
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text LIKE '%_hnsw'")
    said = run("doctor", "--json")
    assert said.code == 4
    whats = _whats(said.json)
    assert whats[0] == ("error", "the index of version 1 of gallery 'staff' is invalid, so no search can use it")
    assert said.json["findings"][0]["mend"] == "run `pfstore gallery index staff --version 1`"
    assert any(what.startswith("the planner knows nothing of the 1,210 templates") for _, what in whats)
    assert "the planner does not use" in said.json["database"]["versions"][0]["wrong"]
    assert folder.exists()


def test_an_embedded_server_and_its_disk(tmp_path: Path, database: Database) -> None:
    health = _health(database, tmp_path)
    full = replace(health, server=replace(health.server, disk=2**20))
    assert examine(database, tmp_path).server.disk not in (None, 0)
    assert any(one.what.startswith("1.0 MB are free") for one in findings(full))


@pytest.mark.parametrize(
    ("installed", "available", "workers", "expected", "mend"),
    [
        ("0.8.0", "0.8.0", 8, "can write beyond its memory", "upgrade its package to 0.8.4 or newer"),
        ("0.8.1", "0.8.5", 8, "can write beyond its memory", "run ALTER EXTENSION vector UPDATE in the database"),
        ("0.8.1", "0.8.5", 0, "has faults in the vacuum", "run ALTER EXTENSION vector UPDATE in the database"),
        ("0.8.3", "0.8.3", 8, "has faults in the vacuum", "upgrade its package"),
    ],
)
def test_old_pgvectors(
    tmp_path: Path, database: Database, installed: str, available: str, workers: int, expected: str, mend: str
) -> None:
    health = _health(database, tmp_path)
    assert not any("pgvector" in one.what for one in findings(health))
    server = replace(health.server, available=available, max_parallel_workers=workers)
    old = replace(health, server=server, schema=replace(health.schema, pgvector=installed))
    [found] = [one for one in findings(old) if "pgvector" in one.what]
    assert (found.severity, expected in found.what) == ("warning", True)
    assert found.mend.startswith(mend)


def test_what_else_can_be_wrong(tmp_path: Path, database: Database) -> None:
    health = _health(database, tmp_path)
    with database.connect() as connection:
        version = galleries.version(connection, "staff")
        one = tuning.tune(connection, version, sample=20)
        tunings.write(connection, version, replace(one, templates=1000))
    assert [found.what for found in findings(examine(database))] == [
        "version 1 of gallery 'staff' was tuned at 1,000 templates and has 1,200 now: "
        "it may miss more than it was tuned to"
    ]
    late = replace(health.server, clock=-70.0)
    large = replace(health.versions[0], index=Index(300 * 2**20, True), fits=False)
    said = [found.what for found in findings(replace(health, server=late, versions=[large]))]
    assert said[0] == "the server's clock is 70 s behind this machine's"
    assert "takes 300 MB and the server's shared_buffers are" in said[1]
    [memory] = [found for found in findings(replace(health, versions=[large])) if "shared_buffers" in found.what]
    assert memory.mend == "run ALTER SYSTEM SET shared_buffers = '384MB' and restart the server"
    older = findings(replace(health, schema=replace(health.schema, schema="0003")))
    assert (older[0].severity, older[0].mend) == ("error", "run `pfstore db upgrade`")
    newer = findings(replace(health, schema=replace(health.schema, schema="9999")))
    assert (newer[0].severity, newer[0].mend) == ("error", "upgrade pfstore")
