"""A gallery in a server: as pfstore keeps it and as everybody would first."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql

from bench.filling import fill
from bench.search_data import BLOCKS, DIMENSION, Crowd, units
from bench.search_peers import TOP, Contestant
from pfstore.features import Floats
from pfstore.gallery import galleries, indexing, models, searching, tuning
from pfstore.gallery.calibration import Probes
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Contract, Version

NAIVE = (
    "SELECT subject_id, -(template <#> %(probe)s) AS score FROM naive WHERE version_id = 1"
    f" ORDER BY template <#> %(probe)s, subject_id LIMIT {TOP}"
)
NAIVE_HNSW = (
    "SELECT subject_id, -(template <#> %(probe)s) AS score FROM naive"
    f" ORDER BY template::halfvec({BLOCKS * DIMENSION}) <#> %(probe)s LIMIT {TOP}"
)
UNFUSED = (
    "SELECT subject_id, max(-(feature <#> %(probe)s)) AS score FROM unfused GROUP BY subject_id"
    f" ORDER BY score DESC LIMIT {TOP}"
)


def load(connection: Connection, crowd: Crowd, gallery: str = "crowd") -> Version:
    """Write a crowd's templates as a gallery's active version."""
    model = models.register(connection, crowd.fuser, gallery)
    contract = Contract(crowd.population.extractor, DIMENSION, crowd.fuser.normalisation, model.digest, "set")
    version = galleries.ensure(connection, gallery, contract, crowd.fuser.blocks)
    fill(connection, version, crowd.chunks(), crowd.population.name)
    return galleries.promote(connection, gallery, version.number, force=True)


def load_naive(connection: Connection, version: Version) -> None:
    """Copy a version into the table that one would make first."""
    connection.execute("DROP TABLE IF EXISTS naive")
    connection.execute(
        f"CREATE TABLE naive (version_id integer, subject_id text, template halfvec({BLOCKS * DIMENSION}),"
        " PRIMARY KEY (version_id, subject_id))"
    )
    connection.execute(
        sql.SQL("INSERT INTO naive SELECT 1, subject_id, template FROM {} ORDER BY subject_id").format(
            version.partition
        )
    )
    connection.execute("VACUUM ANALYZE naive")


def load_unfused(connection: Connection, crowd: Crowd) -> None:
    """Write the features that a crowd's templates are made of, L2-normalised, a row each."""
    register_vector(connection)
    connection.execute("DROP TABLE IF EXISTS unfused")
    connection.execute(f"CREATE TABLE unfused (subject_id text, feature halfvec({DIMENSION}))")
    with connection.cursor().copy("COPY unfused FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["text", "halfvec"])
        for batch in crowd.population.batches():
            owners = np.repeat(np.arange(len(batch.subject_ids)), np.diff(batch.set_offsets))
            for owner, unit in zip(owners.tolist(), units(batch.features), strict=True):
                copy.write_row((batch.subject_ids[owner], HalfVector(unit)))
    connection.execute("VACUUM ANALYZE unfused")


def selecting(connection: Connection, statement: str) -> Callable[[Floats], int]:
    """Return a search by a statement of one's own."""
    register_vector(connection)
    cursor = connection.cursor(binary=True)

    def find(probe: Floats) -> int:
        rows: list[Any] = cursor.execute(statement, {"probe": HalfVector(probe)}).fetchall()
        return _number(rows[0][0])

    return find


def scanning(connection: Connection, statement: str) -> Callable[[Floats], int]:
    """Return such a search that compares all, whatever index there is."""
    connection.execute("SET enable_indexscan = off")
    return selecting(connection, statement)


def asking(connection: Connection, version: Version, *, exact: bool = False) -> Callable[[Floats], int]:
    """Return a search by pfstore."""

    def find(probe: Floats) -> int:
        (candidates,) = searching.search(connection, version, probe[None], top=TOP, exact=exact)
        return _number(candidates[0].subject) if candidates else -1

    return find


def exhaustive(connection: Connection, version: Version, name: str) -> Contestant:
    """Return pfstore's exact search under a name."""
    size = megabytes(connection, version.partition.as_string(connection))
    return Contestant(name, asking(connection, version, exact=True), size)


def naive_hnsw(connection: Connection, crowd: Crowd, m: int, ef_construction: int) -> Contestant:
    """Index the whole templates of the naive table; its planner is told to use that index."""
    with connection.transaction():
        connection.execute(f"SET LOCAL maintenance_work_mem = '{int(len(crowd) * 0.006) + 64}MB'")
        connection.execute(
            "SELECT set_config('max_parallel_maintenance_workers', current_setting('max_parallel_workers'), true)"
        )
        started = time.perf_counter()
        connection.execute(
            f"CREATE INDEX naive_hnsw ON naive USING hnsw ((template::halfvec({BLOCKS * DIMENSION})) halfvec_ip_ops)"
            f" WITH (m = {m}, ef_construction = {ef_construction})"
        )
        seconds = time.perf_counter() - started
    connection.execute("SET enable_seqscan = off")

    def widen(breadth: int) -> None:
        connection.execute(f"SET hnsw.ef_search = {breadth}")

    return Contestant("naive HNSW", selecting(connection, NAIVE_HNSW), megabytes(connection, "naive"), seconds, widen)


def pfstore_tuned(
    connection: Connection, version: Version, m: int, ef_construction: int, probes: Probes, target: float
) -> Contestant:
    """Build pfstore's index and let it be tuned: where nothing is gained or kept, searches stay exhaustive."""
    started = time.perf_counter()
    indexing.build(connection, version, m=m, ef_construction=ef_construction)
    seconds = time.perf_counter() - started
    tuned = tuning.tune(connection, version, target=target, probes=probes)
    size = megabytes(connection, version.partition.as_string(connection))
    breadth = tuned.ef_search if tuned.path == "index" else 0
    return Contestant("pfstore, tuned", asking(connection, version), size, seconds, breadth=breadth)


def megabytes(connection: Connection, table: str) -> float:
    """Megabytes of a table with everything that belongs to it."""
    row = connection.execute("SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchone()
    assert row is not None
    return float(row[0] / 1e6)


def _number(subject: str) -> int:
    return int(subject.removeprefix("person-"))
