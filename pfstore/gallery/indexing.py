"""A version's HNSW index over what the first stage of a search reads: built beside the one that is there, dropped."""

from __future__ import annotations

import psycopg
from psycopg import sql

from pfstore.errors import ConflictError
from pfstore.gallery import galleries
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import BRIEFLY, HNSW_MOST_DIMENSIONS, Version
from pfstore.gallery.tables import PARTITION_PREFIX, SCHEMA

M = 16
EF_CONSTRUCTION = 64
"""pgvector's own defaults."""


def name_of(version: Version) -> str:
    """Return the name of a version's index, whether it is there or not."""
    return f"{PARTITION_PREFIX}{version.version_id}_hnsw"


def oid_of(connection: Connection, version: Version) -> int | None:
    """Return what tells an index from one that was there before, None where there is none."""
    row = connection.execute("SELECT to_regclass(%s)::oid::bigint", (f"{SCHEMA}.{name_of(version)}",)).fetchone()
    return row and row[0]


def build(connection: Connection, version: Version, *, m: int = M, ef_construction: int = EF_CONSTRUCTION) -> None:
    """Build an index, instead of the one that is there. Searches are exhaustive until it is tuned.

    Searches go on meanwhile, writing waits. m: edges of a vertex; ef_construction: the breadth of the search for them;
    pgvector's parameters. Raises ConflictError where the vectors are longer than pgvector can index.
    """
    if not version.indexable:
        raise ConflictError(
            f"vectors of {version.scanned_values} values cannot be indexed: HNSW takes at most "
            f"{HNSW_MOST_DIMENSIONS}; make the gallery compact, or select fewer experts"
        )
    fresh = _identifier(version, "_new")
    statement = sql.SQL(
        "CREATE INDEX {} ON {} USING hnsw (({}::halfvec({})) halfvec_ip_ops) WITH (m={}, ef_construction={})"
    )
    column, breadth = sql.Identifier(version.scanned), max(ef_construction, 2 * m)
    create = statement.format(
        sql.Identifier(f"{name_of(version)}_new"), version.partition, column, version.scanned_values, m, breadth
    )
    for parallel in (True, False):
        try:
            with connection.transaction():
                _allow_memory(connection, version, m, parallel=parallel)
                connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(fresh))
                connection.execute(create)
            break
        except psycopg.errors.DiskFull:
            # Workers share the graph in /dev/shm, which in a container may be small.
            if not parallel:
                raise
    with connection.transaction():
        connection.execute(BRIEFLY)
        connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(_identifier(version)))
        connection.execute("DELETE FROM pfstore.tunings WHERE version_id = %s", (version.version_id,))
        connection.execute(sql.SQL("ALTER INDEX {} RENAME TO {}").format(fresh, sql.Identifier(name_of(version))))


def drop(connection: Connection, version: Version) -> None:
    """Drop a version's index, where it has one; searches are exhaustive again."""
    with connection.transaction():
        connection.execute(BRIEFLY)
        for ending in ("", "_new"):
            connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(_identifier(version, ending)))


def _identifier(version: Version, ending: str = "") -> sql.Identifier:
    return sql.Identifier(SCHEMA, f"{name_of(version)}{ending}")


def _allow_memory(connection: Connection, version: Version, m: int, *, parallel: bool) -> None:
    """Let the graph be built in memory, on all cores: one that does not fit is built many times slower."""
    # A vertex: its vector, 2·m edges at the bottom and m above, its own fields; and room for the allocator.
    vertex = 2 * version.scanned_values + 3 * m * 16 + 200
    wanted = int(1.3 * galleries.size(connection, version) * vertex) + 2**26
    # What memory the server has only its operator has told it.
    query = """
        SELECT set_config('maintenance_work_mem', greatest(
            pg_size_bytes(current_setting('maintenance_work_mem')),
            least(%s, pg_size_bytes(current_setting('effective_cache_size')) / 2)) / 1024 || 'kB', true)
    """
    connection.execute(query, (wanted,))
    workers = "current_setting('max_parallel_workers')" if parallel else "'0'"
    connection.execute(f"SELECT set_config('max_parallel_maintenance_workers', {workers}, true)".encode())
