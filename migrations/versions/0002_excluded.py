"""Shards count the rows that the mapping leaves out, by cause."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the counts; shards of earlier runs left nothing out."""
    op.execute("ALTER TABLE pfstore.shards ADD COLUMN excluded jsonb NOT NULL DEFAULT '{}'::jsonb")


def downgrade() -> None:
    """Forget the counts."""
    op.execute("ALTER TABLE pfstore.shards DROP COLUMN excluded")
