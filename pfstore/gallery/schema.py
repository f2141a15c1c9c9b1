"""Bringing a database to this version's schema, and telling how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pfstore.errors import DatabaseError
from pfstore.gallery import tables

if TYPE_CHECKING:
    from alembic.config import Config

    from pfstore.gallery.database import Database

MINIMUM_POSTGRESQL = 16
MINIMUM_PGVECTOR = (0, 8)


@dataclass(frozen=True)
class SchemaStatus:
    """Versions: of the server, of pgvector (None: not there), of the schema (None: none), of this pfstore's schema."""

    server: str
    pgvector: str | None
    schema: str | None
    latest: str

    @property
    def is_current(self) -> bool:
        """Whether the database has the schema that this pfstore works with."""
        return self.schema == self.latest


def upgrade(database: Database) -> SchemaStatus:
    """Create or upgrade the schema in one transaction and return where it stands.

    Raises DatabaseError: the server or its pgvector is too old or missing, the user may not create,
    the schema is newer than this pfstore.
    """
    from alembic import command

    before = status(database)
    _check_server(before, available_pgvector(database))
    _check_not_newer(before)
    with _connection(database) as connection:
        command.upgrade(_alembic(connection), "head")
    return status(database)


def status(database: Database) -> SchemaStatus:
    """Tell the versions of the server, of pgvector and of the schema. Changes nothing."""
    with database.connect() as connection:
        server = connection.execute("SHOW server_version").fetchone()
        vector = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        there = connection.execute("SELECT to_regclass('pfstore.alembic_version') IS NOT NULL").fetchone()
        schema = None
        if there and there[0]:
            schema = connection.execute("SELECT version_num FROM pfstore.alembic_version").fetchone()
    assert server is not None
    return SchemaStatus(server[0], vector and vector[0], schema and schema[0], latest())


def check(database: Database) -> list[str]:
    """List what differs between the database's schema and what this pfstore expects; empty means nothing."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with _connection(database) as connection:
        options = {
            "include_schemas": True,
            "include_object": is_ours,
            "version_table_schema": tables.SCHEMA,
            "compare_type": True,
            "compare_server_default": True,
        }
        context = MigrationContext.configure(connection, opts=options)
        return [_described(difference) for difference in compare_metadata(context, tables.metadata)]


def latest() -> str:
    """Return the revision of the newest migration of this pfstore."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_alembic(None)).get_current_head()
    assert head is not None
    return head


def is_ours(item: Any, name: str | None, kind: str, *_: object) -> bool:
    """Tell Alembic which objects to compare: those of our schema but for the partitions, made as versions come."""
    table = item if kind == "table" else getattr(item, "table", None)
    if table is None or table.schema != tables.SCHEMA:
        return False
    partition = str(table.name).startswith(tables.PARTITION_PREFIX)
    return not partition and name != "alembic_version"


def configured_engine() -> sa.Engine:
    """Return an engine on the database of PFSTORE_DATABASE or pfstore.toml, for Alembic's own commands."""
    import os

    from pfstore import config
    from pfstore.gallery.database import Database

    settings = config.load()
    url = os.environ.get("PFSTORE_DATABASE", settings.database.url)
    return Database.open(url, settings.folder).engine()


def _alembic(connection: sa.Connection | None) -> Config:
    from alembic.config import Config

    return Config(_ini(), attributes={"connection": connection} if connection is not None else {})


def _ini() -> Path:
    # In a wheel the migrations lie inside the package, in a checkout beside it.
    package = Path(__file__).resolve().parents[1]
    places = (package / "alembic.ini", package.parent / "alembic.ini")
    return next(place for place in places if place.is_file())


def _connection(database: Database) -> Any:
    return _Transaction(database)


class _Transaction:
    """A SQLAlchemy transaction whose database errors are pfstore's."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine()
        self._begin = self._engine.begin()

    def __enter__(self) -> sa.Connection:
        return self._begin.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._begin.__exit__(kind, error, trace)
        self._engine.dispose()
        if isinstance(error, sa.exc.DBAPIError):
            reason = " ".join(str(error.orig).split())
            raise DatabaseError(f"the schema cannot be created or upgraded: {reason}") from error


def available_pgvector(database: Database) -> str | None:
    """Return the version of pgvector that the server could install, None where it has none."""
    with database.connect() as connection:
        row = connection.execute("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'").fetchone()
    return row and row[0]


def _check_server(found: SchemaStatus, available: str | None) -> None:
    if int(found.server.split(".")[0]) < MINIMUM_POSTGRESQL:
        raise DatabaseError(f"PostgreSQL {found.server} is too old: pfstore needs {MINIMUM_POSTGRESQL} or newer")
    vector = found.pgvector or available
    wanted = ".".join(map(str, MINIMUM_PGVECTOR))
    if vector is None:
        raise DatabaseError(f"the server has no pgvector: install its package for PostgreSQL, {wanted} or newer")
    if tuple(int(part) for part in vector.split(".")[:2]) < MINIMUM_PGVECTOR:
        raise DatabaseError(
            f"pgvector {vector} is too old: pfstore needs {wanted} or newer (ALTER EXTENSION vector UPDATE)"
        )


def _check_not_newer(found: SchemaStatus) -> None:
    if found.schema is not None and found.schema > found.latest:
        raise DatabaseError(
            f"the schema is at {found.schema}, newer than the {found.latest} of this pfstore: upgrade pfstore"
        )


def _described(difference: Any) -> str:
    parts = difference if isinstance(difference, tuple) else tuple(difference)
    return " ".join(str(part) for part in parts)
