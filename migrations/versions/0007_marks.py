"""Marks tell what the source said of a subject when its template was made; runs refresh; shards keep their error."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_UP = (
    # Citus needs the distribution column, subject_id, in every key.
    """
    CREATE TABLE pfstore.marks (
        version_id integer NOT NULL
            CONSTRAINT marks_version_id_fkey REFERENCES pfstore.versions ON DELETE CASCADE,
        subject_id text COLLATE "C" NOT NULL,
        mark bytea NOT NULL,
        rejected boolean NOT NULL,
        CONSTRAINT marks_pkey PRIMARY KEY (version_id, subject_id)
    )
    """,
    "ALTER TABLE pfstore.runs DROP CONSTRAINT runs_kind_check",
    """
    ALTER TABLE pfstore.runs
        ADD COLUMN whole boolean NOT NULL DEFAULT true,
        ADD COLUMN unchanged bigint NOT NULL DEFAULT 0,
        ADD COLUMN rejected bigint NOT NULL DEFAULT 0,
        ADD COLUMN removals double precision,
        ADD COLUMN templates bigint
    """,
    "ALTER TABLE pfstore.runs ADD CONSTRAINT runs_kind_check CHECK (kind IN ('backfill', 'try', 'refresh'))",
    "UPDATE pfstore.runs SET whole = false WHERE kind = 'try'",
    "ALTER TABLE pfstore.runs ALTER COLUMN whole DROP DEFAULT",
    """
    ALTER TABLE pfstore.shards
        ADD COLUMN failures integer NOT NULL DEFAULT 0,
        ADD COLUMN error text
    """,
)

_DOWN = (
    "ALTER TABLE pfstore.shards DROP COLUMN error, DROP COLUMN failures",
    "DELETE FROM pfstore.runs WHERE kind = 'refresh'",
    "ALTER TABLE pfstore.runs DROP CONSTRAINT runs_kind_check",
    """
    ALTER TABLE pfstore.runs
        DROP COLUMN templates,
        DROP COLUMN removals,
        DROP COLUMN rejected,
        DROP COLUMN unchanged,
        DROP COLUMN whole
    """,
    "ALTER TABLE pfstore.runs ADD CONSTRAINT runs_kind_check CHECK (kind IN ('backfill', 'try'))",
    "DROP TABLE pfstore.marks",
)


def upgrade() -> None:
    """Add the marks; what is there has none, so the first refresh looks at everything."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Forget the marks and the refreshes."""
    for statement in _DOWN:
        op.execute(statement)
