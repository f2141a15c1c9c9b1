"""Four clients search without pause while versions are promoted, rolled back and dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from pfstore.errors import BusyError, ConflictError, DatabaseError, NotFoundError
from pfstore.gallery import galleries, indexing, searching
from pfstore.gallery.database import Connection, Database
from tests.gallery.test_searches_meanwhile import PROBES, SLOWEST, Seen, _fill, _meanwhile

Answers: TypeAlias = list[list[tuple[str, float]]]
"""For each probe the subjects and scores of its candidate list."""

CLIENTS = 4
SWITCHES = 50


def _in_sql(connection: Connection) -> Answers:
    query = "SELECT subject, score FROM pfstore.search('staff', %s, 20)"
    return [connection.execute(query, (HalfVector(probe),)).fetchall() for probe in PROBES]


def _in_python(connection: Connection, number: int | None = None) -> Answers:
    found = searching.search(connection, galleries.version(connection, "staff", number), PROBES, top=20)
    return [[(one.subject, one.score) for one in line] for line in found]


@pytest.fixture
def answers(connection: Connection) -> dict[str, Answers]:
    """What version 1 with subjects a…, and the active version 2 with subjects b…, answer; by that letter."""
    register_vector(connection)
    _fill(connection, "a", "average", 1)
    _fill(connection, "b", "norm-weighted", 2)
    galleries.promote(connection, "staff", 2)
    return {letter: _in_python(connection, number) for number, letter in ((1, "a"), (2, "b"))}


@contextmanager
def _clients(database: Database, answers: dict[str, Answers]) -> Iterator[list[Seen]]:
    """Let four clients search, two of each kind, who fail at a list that is not wholly one of one version."""

    def checked(search: Callable[[Connection], Answers]) -> Callable[[Connection], list[list[str]]]:
        def one(connection: Connection) -> list[list[str]]:
            found = search(connection)
            for place, line in enumerate(found):
                assert line in [known[place] for known in answers.values()], line
            return [[subject for subject, _ in line] for line in found]

        return one

    with _meanwhile(database, *[checked(search) for search in (_in_sql, _in_python)] * (CLIENTS // 2)) as seen:
        yield seen


def _are_well(seen: list[Seen], *letters: str) -> None:
    assert len(seen) == CLIENTS
    for one in seen:
        assert one.errors == []
        assert one.slowest < SLOWEST
        assert len(one.lists) > 100
        assert set(one.lists) == {frozenset(letter) for letter in letters}


def test_promotions_and_rollbacks(database: Database, connection: Connection, answers: dict[str, Answers]) -> None:
    with _clients(database, answers) as seen:
        for number in range(SWITCHES):
            active = galleries.version(connection, "staff").number
            if number % 2:
                changed = galleries.rollback(connection, "staff")
            else:
                changed = galleries.promote(connection, "staff", 3 - active)
            assert changed.number == 3 - active
            time.sleep(0.05)
    _are_well(seen, "a", "b")


def test_versions_that_come_and_go(database: Database, connection: Connection, answers: dict[str, Answers]) -> None:
    with _clients(database, answers) as seen:
        for _ in range(5):
            _fill(connection, "c", "trimmed-mean", 3)
            assert galleries.drop(connection, "staff", galleries.versions(connection, "staff")[-1].number) == 60
    _are_well(seen, "b")


def test_several_promote_at_once(database: Database, connection: Connection, answers: dict[str, Answers]) -> None:
    failed: list[Exception] = []

    def switch(number: int) -> None:
        try:
            with database.connect() as own:
                for turn in range(20):
                    galleries.promote(own, "staff", 1 + (number + turn) % 2)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=switch, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(one.state for one in galleries.versions(connection, "staff")) == ["active", "retired"]


def test_rollbacks_go_back_and_forth(connection: Connection, answers: dict[str, Answers]) -> None:
    for number in (1, 2, 1, 2):
        assert galleries.rollback(connection, "staff").number == number
        assert _in_sql(connection) == answers["ab"[number - 1]]
    assert galleries.drop(connection, "staff", 1) == 60
    with pytest.raises(NotFoundError, match="gallery 'staff' has no earlier version to go back to"):
        galleries.rollback(connection, "staff")
    assert _in_sql(connection) == answers["b"]


def test_a_drop_frees_the_space(connection: Connection, answers: dict[str, Answers]) -> None:
    retired, before = galleries.version(connection, "staff", 1), _bytes(connection)
    indexing.build(connection, retired)
    assert _bytes(connection) > before
    table = f"pfstore.templates_v{retired.version_id}"
    relations = connection.execute(
        "SELECT %(table)s::regclass::oid UNION SELECT reltoastrelid FROM pg_class WHERE oid = %(table)s::regclass"
        " UNION SELECT indexrelid FROM pg_index WHERE indrelid = %(table)s::regclass",
        {"table": table},
    ).fetchall()
    assert len(relations) == 4
    active = f"pfstore.templates_v{galleries.version(connection, 'staff').version_id}"
    kept = connection.execute("SELECT pg_total_relation_size(%s::regclass)", (active,)).fetchone()
    galleries.drop(connection, "staff", 1)
    assert (_bytes(connection),) == kept
    left = "SELECT count(*) FROM pg_class WHERE oid = ANY(%s)"
    assert connection.execute(left, ([oid for (oid,) in relations],)).fetchone() == (0,)


def _bytes(connection: Connection) -> int:
    query = (
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
        " JOIN pg_inherits ON inhrelid = c.oid WHERE inhparent = 'pfstore.templates'::regclass"
    )
    [(size,)] = connection.execute(query)
    return int(size)


@contextmanager
def _reading(database: Database) -> Iterator[None]:
    """Keep the templates, as a calibration does, in a transaction that has read some."""
    with database.connect() as reader, reader.transaction():
        reader.execute("SELECT count(*) FROM pfstore.templates WHERE subject_id LIKE 'b%'")
        yield


class _Beside(threading.Thread):
    """A call on a connection of its own; `ended` gives what it returned or raised."""

    def __init__(self, database: Database, call: Callable[[Connection], Any]) -> None:
        super().__init__()
        self._database, self._call = database, call
        self.pid = 0
        self.result: Any = None
        self.start()

    def run(self) -> None:
        try:
            with self._database.connect() as own:
                self.pid = own.info.backend_pid
                self.result = self._call(own)
        except Exception as error:
            self.result = error

    def ended(self) -> Any:
        self.join()
        return self.result


def _dropping(database: Database, connection: Connection, number: int) -> _Beside:
    """Begin to drop a version, and return when the drop has the version's row and tries to get its table."""
    started = _Beside(database, lambda own: galleries.drop(own, "staff", number))
    _until(connection, "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = %s AND query ~ 'DROP|ROLLBACK'", started)
    return started


def _until(connection: Connection, query: str, beside: _Beside) -> None:
    deadline = time.monotonic() + 10
    while connection.execute(query.encode(), (beside.pid,)).fetchone() != (True,):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nobody_waits_for_a_drop_that_waits(
    database: Database, connection: Connection, answers: dict[str, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galleries, "PATIENCE", 2.0)
    with _reading(database), _clients(database, answers) as seen, pytest.raises(BusyError) as error:
        galleries.drop(connection, "staff", 1)
    assert str(error.value) == (
        "version 1 of gallery 'staff' is not dropped: other transactions have been reading or writing templates for "
        "2 s (`calibrate` does so for as long as it compares); try again when they are over"
    )
    _are_well(seen, "b")
    assert galleries.rollback(connection, "staff").number == 1
    assert _in_sql(connection) == answers["a"]


def test_a_drop_waits_for_its_turn(database: Database, connection: Connection, answers: dict[str, Answers]) -> None:
    with _reading(database):
        dropping = _dropping(database, connection, 1)
        time.sleep(0.5)
        assert dropping.is_alive()
    assert dropping.ended() == 60
    assert [one.number for one in galleries.versions(connection, "staff")] == [2]


def test_a_killed_drop_leaves_all_as_it_was(
    database: Database, connection: Connection, answers: dict[str, Answers]
) -> None:
    before = galleries.versions(connection, "staff"), _bytes(connection)
    with _reading(database):
        dropping = _dropping(database, connection, 1)
        connection.execute("SELECT pg_terminate_backend(%s)", (dropping.pid,))
        assert isinstance(dropping.ended(), DatabaseError)
    assert (galleries.versions(connection, "staff"), _bytes(connection)) == before
    assert _in_python(connection, 1) == answers["a"]
    assert galleries.drop(connection, "staff", 1) == 60


def test_one_that_is_dropped_meanwhile_is_not_promoted(
    database: Database, connection: Connection, answers: dict[str, Answers]
) -> None:
    with _reading(database):
        dropping = _dropping(database, connection, 1)
        rolling = _Beside(database, lambda own: galleries.rollback(own, "staff"))
        _until(
            connection,
            "SELECT count(*) > 0 FROM pg_locks WHERE pid = %s AND locktype = 'transactionid' AND NOT granted",
            rolling,
        )
        assert _in_sql(connection) == answers["b"]
    assert dropping.ended() == 60
    assert isinstance(error := rolling.ended(), NotFoundError)
    assert str(error) == (
        "version 1 of gallery 'staff' was dropped meanwhile, so it cannot answer searches: promote another"
    )
    assert galleries.version(connection, "staff").number == 2


def test_one_that_is_promoted_meanwhile_is_not_dropped(
    database: Database, connection: Connection, answers: dict[str, Answers]
) -> None:
    with connection.transaction():
        galleries.rollback(connection, "staff")
        dropping = _Beside(database, lambda own: galleries.drop(own, "staff", 1))
        with database.connect() as other:
            _until(
                other,
                "SELECT count(*) > 0 FROM pg_locks WHERE pid = %s AND locktype = 'transactionid' AND NOT granted",
                dropping,
            )
    assert isinstance(error := dropping.ended(), ConflictError)
    assert str(error) == "version 1 answers the searches of 'staff': promote another one first"
    assert _in_sql(connection) == answers["a"]
