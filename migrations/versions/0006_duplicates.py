"""Subjects that are perhaps one person: runs that compare all templates of a version, and the pairs they found."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_UP = (
    """
    CREATE TABLE pfstore.dedupes (
        dedupe_id bigint GENERATED ALWAYS AS IDENTITY
            CONSTRAINT dedupes_pkey PRIMARY KEY,
        version_id integer NOT NULL
            CONSTRAINT dedupes_version_id_fkey REFERENCES pfstore.versions ON DELETE CASCADE,
        threshold double precision NOT NULL,
        templates bigint NOT NULL,
        contents bigint NOT NULL,
        state text NOT NULL,
        pfstore text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz,
        CONSTRAINT dedupes_state_check CHECK (state IN ('running', 'done', 'abandoned'))
    )
    """,
    "CREATE INDEX dedupes_version_id_idx ON pfstore.dedupes (version_id)",
    """
    CREATE TABLE pfstore.dedupe_blocks (
        dedupe_id bigint NOT NULL
            CONSTRAINT dedupe_blocks_dedupe_id_fkey REFERENCES pfstore.dedupes ON DELETE CASCADE,
        number integer NOT NULL,
        first_subject text COLLATE "C" NOT NULL,
        last_subject text COLLATE "C" NOT NULL,
        done_at timestamptz,
        CONSTRAINT dedupe_blocks_pkey PRIMARY KEY (dedupe_id, number)
    )
    """,
    """
    CREATE TABLE pfstore.dedupe_pairs (
        dedupe_id bigint NOT NULL
            CONSTRAINT dedupe_pairs_dedupe_id_fkey REFERENCES pfstore.dedupes ON DELETE CASCADE,
        subject_a text COLLATE "C" NOT NULL,
        subject_b text COLLATE "C" NOT NULL,
        score double precision NOT NULL,
        CONSTRAINT dedupe_pairs_pkey PRIMARY KEY (dedupe_id, subject_a, subject_b),
        CONSTRAINT dedupe_pairs_order_check CHECK (subject_a < subject_b)
    )
    """,
)


def upgrade() -> None:
    """Create the tables."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Forget what was found."""
    for name in ("dedupe_pairs", "dedupe_blocks", "dedupes"):
        op.execute(f"DROP TABLE pfstore.{name}")
