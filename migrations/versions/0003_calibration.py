"""Thresholds are at an FMR or an FPIR, with an interval, what they rest on, and whether a backfill made them."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UP = (
    "ALTER TABLE pfstore.thresholds RENAME COLUMN fmr TO target",
    # What earlier backfills left is kept. It tells neither interval nor size, so the next backfill makes it anew.
    """
    ALTER TABLE pfstore.thresholds
        ADD COLUMN kind text NOT NULL DEFAULT 'fmr',
        ADD COLUMN low double precision,
        ADD COLUMN high double precision,
        ADD COLUMN templates bigint,
        ADD COLUMN basis text NOT NULL DEFAULT 'gallery against gallery',
        ADD COLUMN automatic boolean NOT NULL DEFAULT true,
        DROP CONSTRAINT thresholds_pkey,
        ADD CONSTRAINT thresholds_pkey PRIMARY KEY (version_id, kind, target),
        ADD CONSTRAINT thresholds_kind_check CHECK (kind IN ('fmr', 'fpir'))
    """,
    """
    ALTER TABLE pfstore.thresholds
        ALTER COLUMN kind DROP DEFAULT,
        ALTER COLUMN basis DROP DEFAULT,
        ALTER COLUMN automatic DROP DEFAULT
    """,
)

_DOWN = (
    "DELETE FROM pfstore.thresholds WHERE kind <> 'fmr'",
    """
    ALTER TABLE pfstore.thresholds
        DROP CONSTRAINT thresholds_kind_check,
        DROP CONSTRAINT thresholds_pkey,
        DROP COLUMN kind,
        DROP COLUMN low,
        DROP COLUMN high,
        DROP COLUMN templates,
        DROP COLUMN basis,
        DROP COLUMN automatic
    """,
    "ALTER TABLE pfstore.thresholds RENAME COLUMN target TO fmr",
    "ALTER TABLE pfstore.thresholds ADD CONSTRAINT thresholds_pkey PRIMARY KEY (version_id, fmr)",
)


def upgrade() -> None:
    """Widen the table; the thresholds that are there are at FMRs, from the gallery's own templates."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Forget the thresholds at FPIRs and everything but score and count of the others."""
    for statement in _DOWN:
        op.execute(statement)
