"""Models in chunks, galleries, versions, templates partitioned by version, runs, shards, rejects, thresholds."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    "CREATE EXTENSION IF NOT EXISTS vector",
    """
    CREATE TABLE pfstore.models (
        digest text NOT NULL CONSTRAINT models_pkey PRIMARY KEY,
        name text NOT NULL CONSTRAINT models_name_key UNIQUE,
        kind text NOT NULL,
        dimension integer,
        blocks integer NOT NULL,
        normalisation text NOT NULL,
        details jsonb NOT NULL,
        bytes bigint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE pfstore.model_chunks (
        digest text NOT NULL CONSTRAINT model_chunks_digest_fkey REFERENCES pfstore.models ON DELETE CASCADE,
        number integer NOT NULL,
        data bytea NOT NULL,
        CONSTRAINT model_chunks_pkey PRIMARY KEY (digest, number)
    )
    """,
    # Weights do not compress; trying costs more than the rest of the insert.
    "ALTER TABLE pfstore.model_chunks ALTER COLUMN data SET STORAGE EXTERNAL",
    """
    CREATE TABLE pfstore.galleries (
        gallery_id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT galleries_pkey PRIMARY KEY,
        name text NOT NULL CONSTRAINT galleries_name_key UNIQUE,
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE pfstore.versions (
        version_id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT versions_pkey PRIMARY KEY,
        gallery_id integer NOT NULL CONSTRAINT versions_gallery_id_fkey REFERENCES pfstore.galleries,
        number integer NOT NULL,
        extractor text NOT NULL,
        dimension integer NOT NULL,
        normalisation text NOT NULL,
        model_digest text NOT NULL CONSTRAINT versions_model_digest_fkey REFERENCES pfstore.models,
        strategy text NOT NULL,
        blocks integer NOT NULL,
        state text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        promoted_at timestamptz,
        CONSTRAINT versions_gallery_id_number_key UNIQUE (gallery_id, number),
        CONSTRAINT versions_state_check CHECK (state IN ('building', 'active', 'retired')),
        CONSTRAINT versions_strategy_check CHECK (strategy IN ('media', 'set'))
    )
    """,
    "CREATE UNIQUE INDEX versions_one_active ON pfstore.versions (gallery_id) WHERE state = 'active'",
    """
    CREATE TABLE pfstore.templates (
        version_id integer NOT NULL,
        subject_id text COLLATE "C" NOT NULL,
        template halfvec NOT NULL,
        features integer NOT NULL,
        media integer NOT NULL,
        fingerprint bytea NOT NULL,
        run_id bigint NOT NULL,
        fused_at timestamptz NOT NULL,
        CONSTRAINT templates_pkey PRIMARY KEY (version_id, subject_id)
    ) PARTITION BY LIST (version_id)
    """,
    # Halves of a unit vector do not compress either.
    "ALTER TABLE pfstore.templates ALTER COLUMN template SET STORAGE EXTERNAL",
    """
    CREATE TABLE pfstore.runs (
        run_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT runs_pkey PRIMARY KEY,
        version_id integer NOT NULL
            CONSTRAINT runs_version_id_fkey REFERENCES pfstore.versions ON DELETE CASCADE,
        kind text NOT NULL,
        source text NOT NULL,
        plan text NOT NULL,
        state text NOT NULL,
        pfstore text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz,
        vanished bigint NOT NULL DEFAULT 0,
        CONSTRAINT runs_kind_check CHECK (kind IN ('backfill', 'try')),
        CONSTRAINT runs_state_check CHECK (state IN ('running', 'done', 'abandoned'))
    )
    """,
    "CREATE INDEX runs_version_id_idx ON pfstore.runs (version_id)",
    """
    CREATE TABLE pfstore.shards (
        run_id bigint NOT NULL CONSTRAINT shards_run_id_fkey REFERENCES pfstore.runs ON DELETE CASCADE,
        number integer NOT NULL,
        range jsonb NOT NULL,
        planned_features bigint NOT NULL,
        planned_subjects bigint NOT NULL,
        done_at timestamptz,
        read bigint NOT NULL DEFAULT 0,
        fused bigint NOT NULL DEFAULT 0,
        rejected bigint NOT NULL DEFAULT 0,
        seen bigint NOT NULL DEFAULT 0,
        written bigint NOT NULL DEFAULT 0,
        unchanged bigint NOT NULL DEFAULT 0,
        removed bigint NOT NULL DEFAULT 0,
        subjects_rejected bigint NOT NULL DEFAULT 0,
        kept text[] NOT NULL DEFAULT '{}'::text[],
        CONSTRAINT shards_pkey PRIMARY KEY (run_id, number),
        CONSTRAINT shards_features_check CHECK (read = fused + rejected),
        CONSTRAINT shards_subjects_check CHECK (seen = written + unchanged + subjects_rejected)
    )
    """,
    """
    CREATE TABLE pfstore.rejects (
        run_id bigint NOT NULL CONSTRAINT rejects_run_id_fkey REFERENCES pfstore.runs ON DELETE CASCADE,
        shard integer NOT NULL,
        position bigint NOT NULL,
        subject_id text,
        medium text NOT NULL,
        "row" text NOT NULL,
        reason text NOT NULL,
        detail text NOT NULL,
        CONSTRAINT rejects_pkey PRIMARY KEY (run_id, shard, position)
    )
    """,
    """
    CREATE TABLE pfstore.thresholds (
        version_id integer NOT NULL
            CONSTRAINT thresholds_version_id_fkey REFERENCES pfstore.versions ON DELETE CASCADE,
        fmr double precision NOT NULL,
        threshold double precision NOT NULL,
        comparisons bigint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT thresholds_pkey PRIMARY KEY (version_id, fmr)
    )
    """,
)

_TABLES = (
    "thresholds",
    "rejects",
    "shards",
    "runs",
    "templates",
    "versions",
    "galleries",
    "model_chunks",
    "models",
)


def upgrade() -> None:
    """Create everything; pgvector must be installed on the server."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop every table with what it holds; the extension stays, others may use it."""
    for table in _TABLES:
        op.execute(f"DROP TABLE pfstore.{table}")
