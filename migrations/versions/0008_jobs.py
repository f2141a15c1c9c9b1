"""The queue of jobs, procrastinate's, in a schema of its own; the schedules and the workers that take from it."""

from __future__ import annotations

from importlib import resources

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Procrastinate's own migrations, which it never edits, up to the last of 3.10.0. Its schema.sql changes with every
# version; a later version needs a revision that applies the migrations after this one.
_LAST = "03.04.00_50"

_UP = (
    """
    CREATE TABLE pfstore.schedules (
        name text CONSTRAINT schedules_pkey PRIMARY KEY,
        gallery text NOT NULL,
        cron text NOT NULL,
        known_since timestamp with time zone NOT NULL DEFAULT now(),
        due_at timestamp with time zone,
        started_at timestamp with time zone,
        finished_at timestamp with time zone,
        result text,
        failed boolean NOT NULL DEFAULT false,
        run_id bigint CONSTRAINT schedules_run_id_fkey REFERENCES pfstore.runs ON DELETE SET NULL
    )
    """,
    """
    CREATE TABLE pfstore.workers (
        worker_id bigint CONSTRAINT workers_pkey PRIMARY KEY,
        host text NOT NULL,
        pid integer NOT NULL,
        pfstore text NOT NULL,
        started_at timestamp with time zone NOT NULL DEFAULT now()
    )
    """,
)

_DOWN = ("DROP TABLE pfstore.workers", "DROP TABLE pfstore.schedules", "DROP SCHEMA pfstore_jobs CASCADE")


def upgrade() -> None:
    """Make the queue, empty, and the tables beside it."""
    op.execute("CREATE SCHEMA pfstore_jobs")
    connection = op.get_bind()
    before = connection.scalar(sa.text("SELECT current_setting('search_path')"))
    connection.execute(sa.text("SET LOCAL search_path TO pfstore_jobs, pg_catalog"))
    for script in _scripts():
        # Many statements at once, with per cent signs in them: a matter between the driver and the server.
        cursor = connection.connection.cursor()
        cursor.execute(script)
        cursor.close()
    connection.execute(sa.text("SELECT set_config('search_path', :before, true)"), {"before": before})
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Forget the queue, whatever waits in it, and when which schedule ran."""
    for statement in _DOWN:
        op.execute(statement)


def _scripts() -> list[str]:
    folder = resources.files("procrastinate.sql") / "migrations"
    scripts = {one.name: one for one in folder.iterdir() if one.name.endswith(".sql")}
    return [scripts[name].read_text(encoding="utf-8") for name in sorted(scripts) if name[: len(_LAST)] <= _LAST]
