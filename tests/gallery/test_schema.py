import importlib.util
import uuid
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from pfstore.errors import DatabaseError
from pfstore.gallery import schema, tables
from pfstore.gallery.database import Connection, Database


def test_the_migrations_make_what_the_tables_say(database: Database) -> None:
    assert schema.check(database) == []


def test_a_change_by_hand_is_found(database: Database, connection: Connection) -> None:
    connection.execute("ALTER TABLE pfstore.galleries ADD COLUMN colour text")
    connection.execute("DROP INDEX pfstore.runs_version_id_idx")
    found = " ".join(schema.check(database))
    assert "colour" in found
    assert "runs_version_id_idx" in found


def test_check_constraints_are_those_of_the_tables(connection: Connection) -> None:
    query = (
        "SELECT conname FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace"
        " WHERE nspname = 'pfstore' AND contype = 'c'"
    )
    there = {name for (name,) in connection.execute(query.encode())}
    constraints = (one for table in tables.metadata.tables.values() for one in table.constraints)
    assert there == {str(one.name) for one in constraints if isinstance(one, sa.CheckConstraint)}
    assert there


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    before = schema.status(database)
    assert before.is_current
    assert schema.upgrade(database) == before


def test_an_empty_database_has_no_schema(embedded_uri: str) -> None:
    database = Database(embedded_uri, "an empty database")
    assert schema.status(database).schema is None
    with (
        pytest.raises(DatabaseError, match="an empty database has no pfstore schema.*pfstore init"),
        database.connect() as connection,
    ):
        connection.execute("SELECT * FROM pfstore.models")


def test_a_newer_schema_is_left_alone(database: Database, connection: Connection) -> None:
    connection.execute("UPDATE pfstore.alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseError, match="newer than.*upgrade pfstore"):
        schema.upgrade(database)


def test_a_failing_migration_leaves_nothing(embedded_uri: str) -> None:
    with psycopg.connect(embedded_uri, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA pfstore")
        connection.execute("CREATE TABLE pfstore.thresholds (taken int)")
    with pytest.raises(DatabaseError, match="thresholds"):
        schema.upgrade(Database(embedded_uri, "test"))
    with psycopg.connect(embedded_uri) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'pfstore'").fetchall()
    assert rows == [("thresholds",)]


def test_downgrade_drops_every_table(database: Database, connection: Connection) -> None:
    from alembic import command

    engine = database.engine()
    with engine.begin() as migrating:
        command.downgrade(schema._alembic(migrating), "base")
    row = connection.execute(
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'pfstore' AND tablename <> 'alembic_version'"
    ).fetchone()
    assert row == (0,)


@pytest.mark.postgres15
def test_an_old_server_is_refused(postgres15_url: str) -> None:
    with pytest.raises(DatabaseError, match=r"PostgreSQL 15.* is too old: pfstore needs 16"):
        schema.upgrade(Database.open(postgres15_url, Path()))


def test_every_migration_has_a_docstring() -> None:
    for path in (Path(schema._ini()).parent / "migrations" / "versions").glob("*.py"):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.__doc__


def test_the_owner_of_a_database_need_not_be_a_superuser(embedded_uri: str) -> None:
    name, owner = sa.make_url(embedded_uri).database, f"owner_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(embedded_uri, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(owner)))
        connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(str(name)), sql.Identifier(owner))
        )
        connection.execute("CREATE EXTENSION vector")
    uri = sa.make_url(embedded_uri).set(username=owner).render_as_string(hide_password=False)
    assert schema.upgrade(Database(uri, "the test database")).is_current
    with psycopg.connect(embedded_uri, autocommit=True) as connection:
        connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(owner)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(owner)))
