"""A legacy system goes on writing while pfstore reads it: nothing waits for pfstore, and pfstore writes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from pfstore.errors import SourceError
from pfstore.fusion import load_model
from pfstore.gallery import models
from pfstore.gallery.database import Connection
from pfstore.jobs.backfill import backfill
from pfstore.sources.sql import SqlSource
from tests.sources.stores import blob, execute, faces, insert, make_faces, opened

SUBJECTS, FEATURES = 60, 20
SERVERS = [
    pytest.param("mariadb_url", id="mariadb", marks=pytest.mark.mariadb),
    pytest.param("postgres15_url", id="postgres15", marks=pytest.mark.postgres15),
]
# A writer that met a lock of pfstore's would fail after a second instead of waiting.
IMPATIENT = {"mysql": "SET SESSION innodb_lock_wait_timeout = 1", "postgresql": "SET lock_timeout = '1s'"}


@pytest.fixture(params=SERVERS)
def store(request: pytest.FixtureRequest) -> str:
    """A store of some people on a server, with an index on the person as such systems have one."""
    url = str(request.getfixturevalue(request.param))
    make_faces(url, extra=", seen INTEGER")
    execute(url, "CREATE INDEX by_person ON faces (person)")
    rows = [(f"p{n % SUBJECTS:03}", str(n), blob(1 + n % 7, 2, 3, n % 5)) for n in range(SUBJECTS * FEATURES)]
    insert(url, "faces", faces(*rows, seen=0))
    return url


@contextmanager
def writer(url: str) -> Iterator[sa.Connection]:
    """Connect as the legacy system does: every statement commits."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(IMPATIENT[engine.dialect.name])
        yield connection


@dataclass
class LegacySystem:
    """Inserts, changes and deletes rows of subjects that are being read, until told to stop."""

    url: str
    statements: int = 0
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._write, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _write(self, stop: threading.Event) -> None:
        with writer(self.url) as connection:
            number = 100_000
            while not stop.is_set() or self.statements < 3:
                number += 1
                person = f"p{number % SUBJECTS:03}"
                try:
                    connection.exec_driver_sql(
                        f"INSERT INTO faces SELECT {number}, '{person}', 'new', vec, 1 FROM faces WHERE id = 1"
                    )
                    connection.exec_driver_sql(f"UPDATE faces SET seen = seen + 1 WHERE person = '{person}'")
                    connection.exec_driver_sql(f"DELETE FROM faces WHERE id = {number}")
                    self.statements += 3
                except sa.exc.DBAPIError as error:
                    self.errors.append(str(error))
                    return


def test_a_backfill_holds_up_no_writer(store: str, connection: Connection) -> None:
    models.resolve(connection, "average")
    legacy = LegacySystem(store)
    with legacy.running(), opened(store) as source:
        for _ in range(3):
            done = backfill(connection, source, load_model("average"), gallery="staff", source_name="hr", restart=True)
            assert done.counts.seen == SUBJECTS
    assert legacy.errors == []
    assert legacy.statements >= 3


def test_rows_that_are_being_read_can_be_written(store: str) -> None:
    """In the middle of a shard, with its cursor open, every row of the table can be changed and deleted."""
    with opened(store) as source:
        (shard,) = [one for one in source.shards(10**6) if one.subjects]
        batches = source.read(shard.range, dimension=4, features=50)
        first = next(batches)
        with writer(store) as other:
            changed = other.exec_driver_sql("UPDATE faces SET seen = 7").rowcount
            deleted = other.exec_driver_sql("DELETE FROM faces").rowcount
            _assert_no_lock(other)
        # One snapshot: what the writer did meanwhile is not seen.
        read = first.read + sum(batch.read for batch in batches)
    assert changed == deleted == read == SUBJECTS * FEATURES


def _assert_no_lock(other: sa.Connection) -> None:
    """Look at the locks that others than this connection hold in its database."""
    if other.dialect.name == "postgresql":
        held = other.exec_driver_sql(
            "SELECT DISTINCT mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND relname = 'faces' AND pid <> pg_backend_pid()"
        )
        assert held.scalars().all() == ["AccessShareLock"]
    else:
        held = other.exec_driver_sql(
            "SELECT trx_tables_locked, trx_rows_locked FROM information_schema.innodb_trx t"
            " JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id WHERE p.db = database()"
        )
        assert held.all() == [(0, 0)]


def test_the_transaction_itself_refuses_to_write(store: str) -> None:
    with opened(store) as source, pytest.raises(SourceError, match=r"(?i)read.only"), _snapshot(source) as connection:
        connection.exec_driver_sql("DELETE FROM faces")
    with writer(store) as other:
        assert other.exec_driver_sql("SELECT count(*) FROM faces").scalar() == SUBJECTS * FEATURES


@contextmanager
def _snapshot(source: SqlSource) -> Iterator[sa.Connection]:
    with source._database.snapshot() as connection:
        yield connection


def test_who_may_only_select_can_be_a_source(store: str, connection: Connection) -> None:
    url = sa.make_url(store)
    reader = f"reader_{url.database}"[:32]
    if url.get_backend_name() == "mysql":
        make = f"CREATE USER '{reader}'@'127.0.0.1' IDENTIFIED BY 'secret'"
        statements = [make, f"GRANT SELECT ON {url.database}.faces TO '{reader}'@'127.0.0.1'"]
        drop = [f"DROP USER '{reader}'@'127.0.0.1'"]
    else:
        statements = [f"CREATE ROLE {reader} LOGIN PASSWORD 'secret'", f"GRANT SELECT ON faces TO {reader}"]
        drop = [f"DROP OWNED BY {reader}", f"DROP ROLE {reader}"]
    execute(store, *statements)
    try:
        limited = url.set(username=reader, password="secret").render_as_string(hide_password=False)
        models.resolve(connection, "average")
        with opened(limited) as source:
            done = backfill(connection, source, load_model("average"), gallery="staff", source_name="hr")
        assert done.counts.fused == SUBJECTS * FEATURES
    finally:
        execute(store, *drop)
