"""Templates get an inline coarse vector with a bound on what it leaves out; versions may be compact, and are tuned."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UP = (
    # Of one value for each value of a block: Σ blocks / √blocks, in float32 and rounded once.
    """
    CREATE FUNCTION pfstore.projection(template halfvec, blocks integer) RETURNS vector
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
        SELECT sum(subvector(template::vector, b * width + 1, width))
            * array_fill((1 / sqrt(blocks))::real, ARRAY[width])::vector
        FROM generate_series(0, blocks - 1) AS b, (SELECT vector_dims(template) / blocks AS width) AS of_block
        GROUP BY width
    $$
    """,
    """
    CREATE FUNCTION pfstore.coarse(template halfvec, blocks integer) RETURNS halfvec
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT pfstore.projection(template, blocks)::halfvec $$
    """,
    """
    ALTER TABLE pfstore.versions
        ADD COLUMN compact boolean NOT NULL DEFAULT false
    """,
    """
    ALTER TABLE pfstore.templates
        ADD COLUMN coarse halfvec,
        ADD COLUMN residual real
    """,
    "ALTER TABLE pfstore.templates ALTER COLUMN coarse SET STORAGE PLAIN",
    # The sizes are the longest that fit a page beside the rest of a row. Squares of float32 tell a length to 0.002.
    """
    DO $$
    DECLARE
        one record;
        part text;
    BEGIN
        FOR one IN SELECT version_id, blocks, dimension FROM pfstore.versions WHERE dimension <= 3500 LOOP
            part := format('pfstore.templates_v%s', one.version_id);
            IF one.blocks = 1 THEN
                EXECUTE format('ALTER TABLE %s ALTER COLUMN template SET STORAGE PLAIN', part);
                EXECUTE format('UPDATE %s SET template = template::vector::halfvec', part);
            ELSE
                EXECUTE format('ALTER TABLE %s ALTER COLUMN coarse SET STORAGE PLAIN', part);
                EXECUTE format(
                    'UPDATE %s SET coarse = u::halfvec, residual ='
                    ' 0.002 + sqrt(greatest(0, (u <#> u) - (template <#> template)))'
                    ' FROM (SELECT subject_id AS subject, pfstore.projection(template, $1) AS u FROM %s) made'
                    ' WHERE subject_id = subject', part, part
                ) USING one.blocks;
            END IF;
            EXECUTE format('DROP INDEX IF EXISTS %s_hnsw', part);
        END LOOP;
    END
    $$
    """,
    """
    CREATE TABLE pfstore.tunings (
        version_id integer NOT NULL
            CONSTRAINT tunings_pkey PRIMARY KEY
            CONSTRAINT tunings_version_id_fkey REFERENCES pfstore.versions ON DELETE CASCADE,
        path text NOT NULL,
        target double precision NOT NULL,
        recall double precision NOT NULL,
        low double precision NOT NULL,
        high double precision NOT NULL,
        mated_recall double precision,
        probes bigint NOT NULL,
        basis text NOT NULL,
        ef_search integer NOT NULL,
        candidates integer NOT NULL,
        sure double precision,
        answered double precision NOT NULL,
        index_seconds double precision NOT NULL,
        exhaustive_seconds double precision NOT NULL,
        templates bigint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT tunings_path_check CHECK (path IN ('index', 'exhaustive'))
    )
    """,
)

_DOWN = (
    "DROP TABLE pfstore.tunings",
    "DELETE FROM pfstore.versions WHERE compact",
    "ALTER TABLE pfstore.templates DROP COLUMN residual, DROP COLUMN coarse",
    "ALTER TABLE pfstore.versions DROP COLUMN compact",
    "DROP FUNCTION pfstore.coarse(halfvec, integer)",
    "DROP FUNCTION pfstore.projection(halfvec, integer)",
)


def upgrade() -> None:
    """Add the columns, fill them for the templates that are there, and drop indexes on whole templates."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop compact versions, which earlier ones of pfstore cannot search, and what is derived of the others."""
    op.execute(
        """
        DO $$
        DECLARE one integer;
        BEGIN
            FOR one IN SELECT version_id FROM pfstore.versions WHERE compact LOOP
                EXECUTE format('DROP TABLE pfstore.templates_v%s', one);
            END LOOP;
        END
        $$
        """
    )
    for statement in _DOWN:
        op.execute(statement)
