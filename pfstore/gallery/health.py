"""How the galleries' database is, for a report of what is wrong: versions, settings, indexes, searches, clock, disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg.rows import class_row

from pfstore.gallery import galleries, paths, schema
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Version
from pfstore.gallery.schema import SchemaStatus


@dataclass(frozen=True)
class ServerHealth:
    """The server's memory and workers, and how it can build indexes. Sizes are in bytes.

    available: the pgvector that could be installed, None where there is none. clock: the server's time less ours, in
    seconds, to half of what a round trip takes. disk: free bytes where an embedded server has its files.
    """

    available: str | None
    shared_buffers: int
    maintenance_work_mem: int
    max_parallel_workers: int
    clock: float
    disk: int | None


@dataclass(frozen=True)
class Index:
    """An HNSW index of so many bytes. valid: the server may use it."""

    bytes: int
    valid: bool


@dataclass(frozen=True)
class VersionHealth:
    """An active version: its size, and how it is searched.

    table_bytes: of templates, those stored out of line and all indexes but the HNSW one. fits: whether that one fits
    the server's shared_buffers. scans: what the planner reads the templates by. wrong: what is wrong with its plan.
    """

    gallery: str
    version: int
    partition: str
    templates: int
    table_bytes: int
    analysed: bool
    index: Index | None
    fits: bool | None
    search: paths.Path
    scans: Sequence[str]
    wrong: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        index = self.index and asdict(self.index)
        return vars(self) | {"index": index, "search": self.search.as_dict(), "scans": list(self.scans)}


@dataclass(frozen=True)
class Health:
    """How a database is that can be reached. versions: the active ones, if the schema is current."""

    schema: SchemaStatus
    server: ServerHealth
    versions: Sequence[VersionHealth]

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        told = asdict(self.schema) | {"current": self.schema.is_current}
        return told | asdict(self.server) | {"versions": [one.as_dict() for one in self.versions]}


def examine(database: Database, folder: Path | None = None) -> Health:
    """Look at a database; changes nothing. folder: where an embedded server has its files.

    The time is linear in the number of templates, which are counted. Raises DatabaseError where it cannot be reached.
    """
    found = schema.status(database)
    available = schema.available_pgvector(database)
    with database.connect() as connection:
        server = _server(connection, available, folder)
        active = [one for one in galleries.versions(connection) if one.state == "active"] if found.is_current else []
        return Health(found, server, [_version(connection, one, server.shared_buffers) for one in active])


def _server(connection: Connection, available: str | None, folder: Path | None) -> ServerHealth:
    settings = {
        name: int(value)
        for name, value in connection.execute(
            "SELECT name, CASE unit WHEN '8kB' THEN 8192 WHEN 'kB' THEN 1024 ELSE 1 END * setting::bigint"
            " FROM pg_settings WHERE name IN ('shared_buffers', 'maintenance_work_mem', 'max_parallel_workers')"
        )
    }
    disk = shutil.disk_usage(folder).free if folder else None
    return ServerHealth(available=available, **settings, clock=_clock(connection), disk=disk)


def _clock(connection: Connection) -> float:
    """Return the least sure difference of three: that of the fastest round trip."""
    seen: list[tuple[timedelta, float]] = []
    for _ in range(3):
        before = datetime.now(UTC)
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        taken = datetime.now(UTC) - before
        assert row is not None
        seen.append((taken, (row[0] - before - taken / 2).total_seconds()))
    return min(seen)[1]


_SIZES = """
    SELECT pg_total_relation_size(c.oid) - coalesce(pg_relation_size(i.indexrelid), 0) AS table_bytes,
           EXISTS (SELECT FROM pg_stats WHERE schemaname = 'pfstore' AND tablename = c.relname) AS analysed,
           pg_relation_size(i.indexrelid) AS index_bytes, i.indisvalid AND i.indisready AS valid
    FROM pg_class c
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indexrelid = to_regclass('pfstore.' || c.relname || '_hnsw')
    WHERE c.relnamespace = 'pfstore'::regnamespace AND c.relname = 'templates_v' || %s
"""


@dataclass(frozen=True)
class _Sizes:
    table_bytes: int
    analysed: bool
    index_bytes: int | None
    valid: bool | None


def _version(connection: Connection, one: Version, shared_buffers: int) -> VersionHealth:
    sizes = connection.cursor(row_factory=class_row(_Sizes)).execute(_SIZES, (one.version_id,)).fetchone()
    assert sizes is not None
    index = None if sizes.index_bytes is None else Index(sizes.index_bytes, bool(sizes.valid))
    kind, plan = paths.planned(connection, one)
    way = paths.path(connection, one)
    return VersionHealth(
        gallery=one.gallery,
        version=one.number,
        partition=f"pfstore.templates_v{one.version_id}",
        templates=way.templates,
        table_bytes=sizes.table_bytes,
        analysed=sizes.analysed,
        index=index,
        fits=None if index is None else index.bytes <= shared_buffers,
        search=way,
        scans=tuple(dict.fromkeys(plan.scans)),
        wrong=paths.judged(one, kind, plan),
    )
