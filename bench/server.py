"""An embedded server to measure with, for as long as that takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import sql

from pfstore.gallery import embedded, schema
from pfstore.gallery.database import Database


@contextmanager
def served() -> Iterator[tuple[Path, Database]]:
    """Run a server with the schema, in a folder of its own that is gone afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with server(folder) as database:
            yield folder, database


@contextmanager
def server(folder: Path, megabytes: int | None = None) -> Iterator[Database]:
    """Run a server with the schema and so much shared memory, or what is usual.

    PostgreSQL does not keep in its buffers a table that is scanned and larger than a quarter of them.
    """
    database = Database.open("embedded:server", folder)
    running = embedded.start((folder / "server").resolve())
    if megabytes is not None:
        with database.connect() as connection:
            connection.execute(sql.SQL("ALTER SYSTEM SET shared_buffers = {}").format(sql.Literal(f"{megabytes}MB")))
            # No checkpoint should fall into what is timed.
            connection.execute("ALTER SYSTEM SET max_wal_size = '16GB'")
        running.stop()
        running.ensure_postgres_running()
    schema.upgrade(database)
    try:
        yield database
    finally:
        running.cleanup()
