"""The schema and the statements keep to the rules of Citus, and on a real Citus searches answer as without it."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
import pytest

from pfstore.errors import ConflictError
from pfstore.gallery import citus, galleries, indexing, models, schema, searching, tables
from pfstore.gallery.database import Connection, Database
from pfstore.jobs.backfill import backfill
from tests.cli import conftest as cli
from tests.cli.conftest import Run
from tests.gallery import hand_made
from tests.memory import MemorySource, Subjects, batch_of, people

run = cli.run
CODE = Path(__file__).parents[2]
TABLES = [table.name for table in tables.metadata.sorted_tables]
REFERENCES = [name for name in TABLES if name not in (*citus.DISTRIBUTED, *citus.LOCAL)]
BEFORE = "0008"
"""The last migration of which no database was distributed yet."""

_INTO = re.compile(r"INTO\s+pfstore\.(\w+)(?:(?!INSERT).)*?ON\s+CONFLICT\s*(?:\([^)]*\)\s*)?(.*)", re.DOTALL)


@pytest.fixture
def distributed(connection: Connection) -> list[str]:
    """The tables that are to be distributed, and a partition, as names for regclass."""
    version = hand_made.version_of(connection, hand_made.strangers(3))
    return [f"pfstore.{name}" for name in citus.DISTRIBUTED] + [f"pfstore.templates_v{version.version_id}"]


def _values(connection: Connection, query: str, *values: object) -> list[object]:
    return [value for (value,) in connection.execute(query.encode(), values)]


def test_every_unique_key_holds_the_column_of_distribution(connection: Connection, distributed: list[str]) -> None:
    keys = (
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = ANY (%s::regclass[])"
        " AND (indisunique OR indisexclusion)"
    )
    without = (
        f"{keys} AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = indrelid AND attname = %s"
        " AND attnum = ANY (indkey))"
    )
    assert len(_values(connection, keys, distributed)) == len(distributed)
    assert _values(connection, without, distributed, citus.COLUMN) == []


def test_the_column_is_alike_in_every_distributed_table(connection: Connection, distributed: list[str]) -> None:
    query = (
        "SELECT DISTINCT (atttypid::regtype, attcollation::regcollation, attnotnull)::text FROM pg_attribute"
        " WHERE attrelid = ANY (%s::regclass[]) AND attname = %s"
    )
    assert _values(connection, query, distributed, citus.COLUMN) == ['(text,"""C""",t)']


def test_foreign_keys_lead_to_reference_tables(connection: Connection, distributed: list[str]) -> None:
    query = (
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND connamespace = 'pfstore'::regnamespace"
        " AND confrelid = ANY (%s::regclass[])"
    )
    assert _values(connection, query, distributed) == []
    query = (
        "SELECT confrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND conrelid = ANY (%s::regclass[])"
    )
    found = set(_values(connection, query, distributed))
    assert found <= {f"pfstore.{name}" for name in REFERENCES}


def test_there_are_no_triggers(connection: Connection, distributed: list[str]) -> None:
    query = (
        "SELECT tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
        " WHERE NOT tgisinternal AND relnamespace = 'pfstore'::regnamespace"
    )
    assert distributed
    assert _values(connection, query) == []


def test_where_every_table_of_the_schema_goes_is_known(connection: Connection) -> None:
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'pfstore'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition AND relname <> 'alembic_version'"
    )
    assert set(_values(connection, query)) == set(TABLES)


def _texts(path: Path) -> Iterator[str]:
    """Yield the strings of a module; what an f-string puts in becomes {}."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


def _upserts() -> Iterator[tuple[str, str]]:
    """Yield the table of each INSERT with ON CONFLICT in the code, and what it does then."""
    for folder in ("pfstore", "migrations"):
        for path in sorted((CODE / folder).rglob("*.py")):
            for text in _texts(path):
                yield from ((table, action) for table, action in _INTO.findall(text))


def _is_plain(action: str) -> bool:
    """Tell whether ON CONFLICT does nothing, or sets columns to what was to be inserted."""
    changes = re.fullmatch(r"DO (?:NOTHING|UPDATE SET (.*?))(?:\s+RETURNING .*)?\s*", action.strip(), re.DOTALL)
    return changes is not None and all(
        re.fullmatch(r"(\w+) = excluded\.\1", change.strip()) for change in (changes[1] or "").split(",") if changes[1]
    )


def test_what_conflicts_with_distributed_rows_sets_only_what_was_to_be_inserted() -> None:
    found = list(_upserts())
    assert {"marks", "tunings"} <= {table for table, _ in found}
    assert [one for one in found if one[0] in citus.DISTRIBUTED and not _is_plain(one[1])] == []
    assert _is_plain("DO UPDATE SET a = excluded.a, b = excluded.b")
    assert not _is_plain("DO UPDATE SET a = excluded.a, b = now()")
    assert not _is_plain("DO UPDATE SET a = excluded.a WHERE b")


def _mixed(statement: str) -> bool:
    """Tell whether an ALTER TABLE adds a constraint and does something else as well, which Citus refuses."""
    # What stands in parentheses is no subcommand.
    while statement != (shorter := re.sub(r"\([^()]*\)", "", statement)):
        statement = shorter
    return "ALTER TABLE" in statement and "ADD CONSTRAINT" in statement and "," in statement


def test_later_migrations_add_constraints_by_statements_of_their_own() -> None:
    migrations = sorted((CODE / "migrations" / "versions").glob("[0-9]*.py"))
    later = [path for path in migrations if path.name[:4] > BEFORE]
    assert len(later) < len(migrations)
    assert [text for path in later for text in _texts(path) if _mixed(text)] == []
    assert _mixed("ALTER TABLE pfstore.runs ADD COLUMN a integer, ADD CONSTRAINT b CHECK (a > 0)")
    assert not _mixed("ALTER TABLE pfstore.runs ADD CONSTRAINT runs_kind_check CHECK (kind IN ('a', 'b'))")


def test_tables_come_after_those_that_they_refer_to() -> None:
    order = [name for name, _ in (*citus._references({}), *citus._distributions({}, 4))]
    assert sorted([*order, *citus.LOCAL]) == sorted(TABLES)
    for name in order:
        for key in tables.metadata.tables[f"pfstore.{name}"].foreign_keys:
            assert order.index(key.column.table.name) < order.index(name)


def test_without_the_extension(connection: Connection, database: Database, run: Run) -> None:
    with pytest.raises(ConflictError, match=r"no extension citus: install Citus on every node, .* CREATE EXTENSION"):
        citus.distribute(connection)
    for options in (("--dry-run",), ("--yes", "--shards", "4")):
        said = run("db", "distribute", *options, "--database", database.uri)
        assert (said.code, said.out) == (12, "")
        assert said.err.startswith("pfstore: the database has no extension citus")


@pytest.fixture
def cluster() -> Iterator[Database]:
    """The empty database of a Citus coordinator that TEST_CITUS names; what is made in it is dropped."""
    if (url := os.environ.get("TEST_CITUS")) is None:
        pytest.skip("TEST_CITUS names no database of a Citus coordinator")
    database = Database.open(url, Path())
    with database.connect() as connection:
        there = connection.execute("SELECT to_regnamespace('pfstore') IS NOT NULL").fetchone()
    assert there == (False,), "the database of TEST_CITUS has a schema pfstore, which this test would drop"
    schema.upgrade(database)
    yield database
    with database.connect() as connection:
        for one in ("pfstore", "pfstore_jobs"):
            connection.execute(f"DROP SCHEMA IF EXISTS {one} CASCADE".encode())
        name = psycopg.sql.Identifier(connection.info.dbname)
        for setting in citus.SETTINGS:
            change = psycopg.sql.SQL("ALTER DATABASE {} RESET {}").format(name, psycopg.sql.SQL(setting))
            connection.execute(change)


def _filled(connection: Connection, subjects: Subjects, gallery: str = "staff") -> None:
    fuser = models.load(connection, models.resolve(connection, "average").digest)
    backfill(connection, MemorySource(subjects), fuser, gallery=gallery, source_name="memory")


def _answers(connection: Connection, gallery: str = "staff", among: list[str] | None = None) -> list[list[object]]:
    """Return the candidate lists of everybody in `people(30)`, scores to six places."""
    version = galleries.version(connection, gallery)
    batch = batch_of(people(30))
    fuser = models.fuser_of(connection, version)
    probes = searching.probe_templates(fuser, version, batch.features, batch.set_offsets)
    lists = searching.search(connection, version, probes, top=5, among=among)
    return [[(one.rank, one.subject, round(one.score, 6)) for one in candidates] for candidates in lists]


@pytest.mark.citus
def test_a_cluster_answers_as_one_server_does(cluster: Database, connection: Connection) -> None:
    """Templates of before and after the distribution, changed and removed ones, versions made and dropped."""
    _filled(connection, people(30))
    expected, some = _answers(connection), _answers(connection, among=["s0003", "s0007"])
    with cluster.connect() as working:
        _filled(working, people(30))
        indexing.build(working, galleries.version(working, "staff"))
        working.execute(
            "INSERT INTO pfstore.schedules (name, gallery, cron, run_id)"
            " SELECT 'nightly', 'staff', '0 3 * * *', max(run_id) FROM pfstore.runs"
        )
        planned = citus.plan(working, 4)
        assert citus.distribute(working, 4) == planned
        assert citus.plan(working) == []
    with closing(psycopg.connect(cluster.uri, autocommit=True)) as working:
        kinds: dict[str, str] = dict(
            working.execute("SELECT table_name::text, citus_table_type FROM citus_tables").fetchall()
        )
        assert kinds["pfstore.templates_v1"] == "distributed"
        assert kinds["pfstore.runs"] == "reference"
        # Nothing of a person is left where it was.
        assert _values(working, "SELECT pg_relation_size('pfstore.templates_v1')") == [0]
        assert _values(working, "SELECT name FROM pfstore.schedules WHERE run_id = 1") == ["nightly"]
        assert _answers(working) == expected
        assert _answers(working, among=["s0003", "s0007"]) == some
        with pytest.raises(ConflictError, match="has 4 shards already, not 8"):
            citus.plan(working, 8)
        fewer = {name: media for name, media in people(30).items() if name not in ("s0003", "s0004")}
        fewer["s0005"] = people(1, seed=7)["s0000"]
        for one in (connection, working):
            _filled(one, fewer)
            _filled(one, fewer, "second")
        assert _answers(working) == _answers(connection)
        assert _answers(working, "second") == _answers(connection, "second") != expected
        galleries.drop(working, "second")
        assert galleries.counts(working) == {1: len(fewer)}
        assert np.isclose(_verified(working), _verified(connection))


def _verified(connection: Connection) -> float:
    version = galleries.version(connection, "staff")
    probe = np.full(version.template_dimension, version.template_dimension**-0.5, np.float32)
    return searching.verify(connection, version, "s0005", probe)
