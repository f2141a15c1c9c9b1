"""Searches while templates are rewritten and versions change places: none fails, waits or mixes two versions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from pfstore.gallery import galleries, models, searching
from pfstore.gallery.database import Connection, Database
from pfstore.jobs.backfill import backfill
from tests.memory import MemorySource, people

PROBES = np.eye(8, dtype=np.float32)
SECONDS = 2.0
SLOWEST = 1.5
"""Seconds; a search that waits for a lock waits much longer."""


@dataclass
class Seen:
    """What one searching thread saw: prefixes of the subjects' names in each list, seconds, errors."""

    lists: list[frozenset[str]] = field(default_factory=list)
    slowest: float = 0
    errors: list[BaseException] = field(default_factory=list)


@contextmanager
def _meanwhile(database: Database, *searches: Callable[[Connection], list[list[str]]]) -> Iterator[list[Seen]]:
    """Search again and again, each on a connection of its own, until the end."""
    over, seen = threading.Event(), [Seen() for _ in searches]

    def loop(one: Callable[[Connection], list[list[str]]], told: Seen) -> None:
        try:
            with database.connect() as connection:
                register_vector(connection)
                while not over.is_set():
                    started = time.monotonic()
                    told.lists += [frozenset(name[0] for name in line) for line in one(connection)]
                    told.slowest = max(told.slowest, time.monotonic() - started)
        except BaseException as error:
            told.errors.append(error)

    threads = [threading.Thread(target=loop, args=pair) for pair in zip(searches, seen, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _fill(connection: Connection, prefix: str, model: str, seed: int) -> None:
    fuser = models.load(connection, models.resolve(connection, model).digest)
    source = MemorySource(people(60, prefix=prefix, seed=seed))
    backfill(connection, source, fuser, gallery="staff", source_name="memory", restart=True)


def _in_sql(connection: Connection) -> list[list[str]]:
    query = "SELECT array_agg(subject ORDER BY rank) FROM pfstore.search('staff', %s, 20)"
    return [connection.execute(query, (HalfVector(probe),)).fetchone()[0] for probe in PROBES]  # type: ignore[index]


def _in_python(connection: Connection) -> list[list[str]]:
    version = galleries.version(connection, "staff")
    found = searching.search(connection, version, PROBES, top=20)
    return [[one.subject for one in line] for line in found]


@pytest.fixture
def two_versions(connection: Connection) -> None:
    """Version 1 holds subjects a…, the active version 2 subjects b…."""
    _fill(connection, "a", "average", 1)
    _fill(connection, "b", "norm-weighted", 2)
    galleries.promote(connection, "staff", 2)


def _is_well(seen: list[Seen]) -> None:
    for one in seen:
        assert one.errors == []
        assert one.slowest < SLOWEST
        assert len(one.lists) > 100


@pytest.mark.usefixtures("two_versions")
def test_while_versions_change_places(database: Database, connection: Connection) -> None:
    changes, until = 0, time.monotonic() + SECONDS
    pinned = galleries.version(connection, "staff", 2)

    def in_version_2(own: Connection) -> list[list[str]]:
        return [[one.subject for one in line] for line in searching.search(own, pinned, PROBES, top=20)]

    with _meanwhile(database, _in_sql, _in_python, in_version_2) as seen:
        while time.monotonic() < until:
            galleries.rollback(connection, "staff")
            changes += 1
            time.sleep(0.01)
    assert changes > 10
    _is_well(seen)
    assert {one for told in seen for one in told.lists} == {frozenset("a"), frozenset("b")}
    assert set(seen[0].lists) == set(seen[1].lists) == {frozenset("a"), frozenset("b")}
    assert set(seen[2].lists) == {frozenset("b")}


@pytest.mark.usefixtures("two_versions")
def test_while_a_backfill_rewrites_templates(database: Database, connection: Connection) -> None:
    runs, until = 0, time.monotonic() + SECONDS
    with _meanwhile(database, _in_sql, _in_python) as seen:
        while time.monotonic() < until or runs < 3:
            runs += 1
            _fill(connection, "b", "norm-weighted", seed=10 + runs)
    _is_well(seen)
    assert {one for told in seen for one in told.lists} == {frozenset("b")}
