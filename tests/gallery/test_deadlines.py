"""Searches that take too long end in time, at the client and on the server."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psycopg
import pytest

from pfstore.errors import DeadlineError, NotFoundError
from pfstore.gallery import searching
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.deadlines import limited
from pfstore.gallery.galleries import Version
from tests.gallery.hand_made import strangers, version_of

PROBES = np.eye(16, dtype=np.float32)[:3]


@pytest.fixture
def version(connection: Connection) -> Version:
    return version_of(connection, strangers(50))


@contextmanager
def locked(database: Database, version: Version) -> Iterator[Connection]:
    """Keep every search of a version waiting."""
    with database.connect() as other, other.transaction(force_rollback=True):
        other.execute(f"LOCK TABLE pfstore.templates_v{version.version_id} IN ACCESS EXCLUSIVE MODE".encode())
        yield other


@contextmanager
def stopped(connection: Connection) -> Iterator[None]:
    """Stop the server's process of a connection."""
    backend = connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend, signal.SIGCONT)


def running(observer: Connection, backend: int) -> bool:
    query = "SELECT state FROM pg_stat_activity WHERE pid = %s"
    return observer.execute(query, (backend,)).fetchone() == ("active",)


def ends(observer: Connection, backend: int, within: float = 5) -> bool:
    """Tell whether a backend stops working within so many seconds."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if not running(observer, backend):
            return True
        time.sleep(0.05)
    return False


def test_in_time_it_changes_nothing(connection: Connection, version: Version) -> None:
    connection.execute("SET statement_timeout = '77s'")
    plain = list(searching.search(connection, version, PROBES))
    found = searching.search(connection, version, PROBES, deadline=30)
    assert next(found) == plain[0]
    assert connection.execute("SHOW statement_timeout").fetchone() == ("77s",)
    assert list(found) == plain[1:]
    assert searching.verify(connection, version, "s0001", PROBES[0], deadline=30) == pytest.approx(
        searching.verify(connection, version, "s0001", PROBES[0])
    )
    with pytest.raises(NotFoundError):
        searching.verify(connection, version, "nobody", PROBES[0], deadline=30)
    assert connection.execute("SHOW statement_timeout").fetchone() == ("77s",)
    assert not [one for one in threading.enumerate() if one.name == "pfstore-deadline"]


def test_within_a_transaction(connection: Connection, version: Version) -> None:
    with connection.transaction():
        assert len(list(searching.search(connection, version, PROBES, deadline=30))) == 3
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_a_slow_search_ends(connection: Connection, version: Version, database: Database) -> None:
    found = searching.search(connection, version, PROBES, deadline=0.4, names=["ada", "bob", "cy"])
    assert len(next(found)) == 10
    with locked(database, version) as other:
        started = time.monotonic()
        with pytest.raises(DeadlineError, match=r"^probe 'bob': the gallery database gave no answer within 0\.4 s$"):
            next(found)
        assert 0.4 <= time.monotonic() - started < 1.5
        assert not running(other, connection.info.backend_pid)
        with pytest.raises(DeadlineError, match="subject 's0001'"):
            searching.verify(connection, version, "s0001", PROBES[0], deadline=0.2)
    assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
    assert len(list(searching.search(connection, version, PROBES, deadline=5))) == 3


def _sleep_without_a_timeout(connection: Connection) -> None:
    connection.execute("SELECT set_config('statement_timeout', '0', false)")
    connection.execute("SELECT pg_sleep(20)")


def test_a_server_that_does_not_stop_by_itself_is_cancelled(connection: Connection) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineError), limited(connection, 0.2, "x"):
        _sleep_without_a_timeout(connection)
    assert time.monotonic() - started < 1.5
    assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("deadline", [0.3, 1.0])
def test_a_stopped_server_holds_nobody(database: Database, version: Version, deadline: float) -> None:
    with database.connect() as observer:
        client = psycopg.connect(database.uri, autocommit=True)
        backend = client.info.backend_pid
        found = searching.search(client, version, PROBES, deadline=deadline)
        assert next(found)
        started = time.monotonic()
        with stopped(client):
            with pytest.raises(DeadlineError, match="probe 1: "):
                next(found)
            assert deadline <= time.monotonic() - started < deadline + 2
            assert client.closed
        assert ends(observer, backend)


def test_other_errors_are_not_taken_for_it(database: Database, connection: Connection) -> None:
    with database.connect() as other:
        cancel = threading.Timer(0.3, other.execute, ["SELECT pg_cancel_backend(%s)", [connection.info.backend_pid]])
        cancel.start()
        with pytest.raises(psycopg.errors.QueryCanceled), limited(connection, 30, "x"):
            connection.execute("SELECT pg_sleep(5)")
        cancel.join()


def test_searches_end_with_their_client(connection: Connection, version: Version) -> None:
    list(searching.search(connection, version, PROBES))
    assert connection.execute("SHOW client_connection_check_interval").fetchone() == ("1s",)
