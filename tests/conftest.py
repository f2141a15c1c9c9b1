"""Servers and databases for the tests: always real ones, a fresh database for each test that asks."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from pfstore.gallery import embedded, schema
from pfstore.gallery.database import Connection, Database

GOLDEN = Path(__file__).parent / "golden"
REALDATA = Path(__file__).parents[2] / "shared" / "realdata"


@pytest.fixture(autouse=True)
def _scrubbed_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's own settings, files and PostgreSQL variables out of every test."""
    for name in list(os.environ):
        if name.startswith(("PFSTORE_", "PG")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))


@pytest.fixture(scope="session")
def server_uri() -> Iterator[str]:
    """The URI of an embedded PostgreSQL with pgvector that lives as long as the tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="pfstore-test-"))
    server = embedded.start(folder / "data", cleanup="delete")
    # Tests throw their databases away, so nothing is worth an fsync.
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for setting in ("fsync = off", "full_page_writes = off", "synchronous_commit = off"):
            connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(server_uri: str, template: str = "template1") -> Iterator[str]:
    """Make a database of a unique name on the server and drop it afterwards; gives its URI."""
    name = f"pfstore_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_uri, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        yield sa.make_url(server_uri).set(database=name).render_as_string(hide_password=False)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def embedded_uri(server_uri: str) -> Iterator[str]:
    """The libpq URI of a fresh, empty database on the embedded server."""
    with fresh_database(server_uri) as uri:
        yield uri


@pytest.fixture
def embedded_url(embedded_uri: str) -> str:
    """The SQLAlchemy URL of a fresh, empty database on the embedded server; pgvector is there to be created."""
    return _sqlalchemy(embedded_uri)


@pytest.fixture(scope="session")
def migrated_database(server_uri: str) -> Iterator[str]:
    """The name of a database with the schema, for tests to clone."""
    with fresh_database(server_uri) as uri:
        schema.upgrade(Database(uri, "test"))
        yield str(sa.make_url(uri).database)


@pytest.fixture
def database(server_uri: str, migrated_database: str) -> Iterator[Database]:
    """A fresh database with pfstore's schema on the embedded server."""
    with fresh_database(server_uri, migrated_database) as uri:
        yield Database(uri, "the test database")


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """A connection to the fresh database with pfstore's schema."""
    with database.connect() as connected:
        yield connected


@pytest.fixture
def postgres15_url() -> Iterator[str]:
    """The SQLAlchemy URL of a fresh, empty database on the PostgreSQL 15 that plays a legacy store."""
    uri = os.environ.get("TEST_POSTGRES15", "postgresql://postgres@127.0.0.1:5432/postgres")
    try:
        psycopg.connect(uri, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        _missing(f"no PostgreSQL on 127.0.0.1:5432: {error}")
    with fresh_database(uri) as fresh:
        yield _sqlalchemy(fresh)


@pytest.fixture
def mariadb_url() -> Iterator[str]:
    """The SQLAlchemy URL of a fresh, empty database on the MariaDB that plays a legacy store."""
    pymysql = pytest.importorskip("pymysql")
    try:
        connection = pymysql.connect(host="127.0.0.1", user="root", connect_timeout=3, autocommit=True)
    except pymysql.err.OperationalError as error:
        _missing(f"no MariaDB on 127.0.0.1:3306: {error}")
    name = f"pfstore_test_{uuid.uuid4().hex[:12]}"
    with connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        # Making ready for TLS, which a server on this machine has not, takes longer than most tests.
        yield f"mysql+pymysql://root@127.0.0.1:3306/{name}?ssl_disabled=1"
        cursor.execute(f"DROP DATABASE `{name}`")


def _sqlalchemy(uri: str) -> str:
    return sa.make_url(uri).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
