"""Search, verification and comparison as SQL functions, with the checks of the contract inside."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# PF404: not there. PF409: another contract. PF422: a value that makes no sense.
_FUNCTIONS = (
    """
    CREATE FUNCTION pfstore.version_of(gallery text, version integer, extractor text, probe halfvec)
    RETURNS pfstore.versions
    LANGUAGE plpgsql STABLE
    SET search_path = {path}
    AS $$
    DECLARE
        chosen pfstore.versions;
        length double precision := l2_norm(probe);
    BEGIN
        SELECT v.* INTO chosen
        FROM pfstore.versions v JOIN pfstore.galleries g USING (gallery_id)
        WHERE g.name = version_of.gallery
            AND CASE WHEN version_of.version IS NULL THEN v.state = 'active' ELSE v.number = version_of.version END;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING errcode = 'PF404', message = CASE
                WHEN NOT EXISTS (SELECT FROM pfstore.galleries g WHERE g.name = version_of.gallery)
                    THEN format('there is no gallery %L', version_of.gallery)
                WHEN version_of.version IS NULL THEN format('gallery %L has no active version yet', version_of.gallery)
                ELSE format('gallery %L has no version %s', version_of.gallery, version_of.version) END;
        END IF;
        IF version_of.extractor <> chosen.extractor THEN
            RAISE EXCEPTION USING errcode = 'PF409', message = format(
                'the probe''s features come from %L, gallery %L holds %L: scores between them mean nothing',
                version_of.extractor, version_of.gallery, chosen.extractor);
        END IF;
        IF vector_dims(probe) <> chosen.blocks * chosen.dimension THEN
            RAISE EXCEPTION USING errcode = 'PF409', message = format(
                'the probe has %s values, the templates of gallery %L have %s (%s blocks of %s)',
                vector_dims(probe), version_of.gallery, chosen.blocks * chosen.dimension, chosen.blocks,
                chosen.dimension);
        END IF;
        IF probe IS NULL OR abs(length - 1) > 0.02 THEN
            RAISE EXCEPTION USING errcode = 'PF422', message = CASE
                WHEN probe IS NULL THEN 'the probe is NULL'
                ELSE format('the probe has the length %s, a template has 1: it is not normalised', length)
                END;
        END IF;
        RETURN chosen;
    END
    $$
    """,
    """
    CREATE FUNCTION pfstore.path_of(version_id integer, exact boolean DEFAULT false, named integer DEFAULT NULL)
    RETURNS text
    LANGUAGE sql STABLE
    SET search_path = {path}
    AS $$
        SELECT CASE
            -- Few are found sooner by their keys, and an index may come to its end before there are enough.
            WHEN named < (
                SELECT 0.1 * reltuples FROM pg_class
                WHERE oid = to_regclass(format('pfstore.templates_v%s', version_id))
            ) THEN 'exhaustive'
            WHEN exact OR to_regclass(format('pfstore.templates_v%s_hnsw', version_id)) IS NULL THEN 'exhaustive'
            ELSE coalesce((SELECT t.path FROM pfstore.tunings t WHERE t.version_id = path_of.version_id), 'exhaustive')
        END
    $$
    """,
    # $1 the probe, $2 its coarse vector, $3 what that leaves out, $4 how many, $5 the least score,
    # $6 among whom, $7 how many are compared in full at first.
    # Where t = E(u) + e and p = E(v) + f, E putting a coarse vector into every block, the score is at most
    # u·v + |e||f| but for the rounding of u and v to halves, at most 2⁻¹¹ each. So what the first stage leaves out
    # is known to be worse, or else everything that could be better is compared in full.
    """
    CREATE FUNCTION pfstore.search_statement(
        version_id integer, blocks integer, dimension integer, path text, filtered boolean
    )
    RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = {path}
    AS $$
        SELECT replace(replace(replace(replace(
            CASE
                WHEN path = 'index' THEN
                    'SELECT subject_id, score FROM (SELECT subject_id, -(template <#> $1) AS score FROM ('
                    ' SELECT subject_id, template FROM TEMPLATES WHERE FILTER'
                    ' ORDER BY COLUMN::halfvec(DIMENSION) <#> $2::halfvec(DIMENSION) LIMIT $7) nearest) compared'
                    ' WHERE score >= $5 ORDER BY score DESC, subject_id LIMIT $4'
                WHEN blocks = 1 OR dimension > 3500 THEN
                    'SELECT subject_id, score FROM (SELECT subject_id, -(template <#> $1) AS score FROM TEMPLATES'
                    ' WHERE FILTER ORDER BY score DESC, subject_id LIMIT $4) compared'
                    ' WHERE score >= $5 ORDER BY score DESC, subject_id'
                ELSE
                    'WITH likely AS MATERIALIZED ('
                    ' SELECT subject_id, template, $3 * residual - (coarse <#> $2) AS bound FROM TEMPLATES'
                    ' WHERE FILTER ORDER BY bound DESC LIMIT $7),'
                    ' compared AS MATERIALIZED (SELECT subject_id, -(template <#> $1) AS score, bound FROM likely),'
                    ' needed AS MATERIALIZED (SELECT greatest($5, coalesce('
                    ' (SELECT score FROM compared ORDER BY score DESC OFFSET $4 - 1 LIMIT 1), ''-infinity'')) - 0.0012'
                    ' AS bound),'
                    ' told AS MATERIALIZED (SELECT count(*) < $7 OR min(compared.bound) < min(needed.bound) AS enough'
                    ' FROM compared, needed)'
                    ' SELECT subject_id, score FROM ('
                    ' SELECT subject_id, score FROM compared WHERE (SELECT enough FROM told)'
                    ' UNION ALL SELECT subject_id, -(template <#> $1) FROM (SELECT subject_id, template FROM TEMPLATES'
                    ' WHERE NOT (SELECT enough FROM told)'
                    ' AND $3 * residual - (coarse <#> $2) >= (SELECT bound FROM needed) AND FILTER'
                    -- Whoever is out of reach must not be read whole for the sake of the last condition.
                    ' OFFSET 0) near) found'
                    ' WHERE score >= $5 ORDER BY score DESC, subject_id LIMIT $4'
            END,
            'TEMPLATES', format('pfstore.templates_v%s', version_id)),
            'COLUMN', CASE WHEN blocks > 1 THEN 'coarse' ELSE 'template' END),
            'DIMENSION', dimension::text),
            'FILTER', CASE WHEN filtered THEN 'subject_id = ANY ($6)' ELSE 'true' END)
    $$
    """,
    """
    CREATE FUNCTION pfstore.search(
        gallery text,
        probe halfvec,
        k integer DEFAULT 10,
        threshold double precision DEFAULT -1,
        among text[] DEFAULT NULL,
        exact boolean DEFAULT false,
        version integer DEFAULT NULL,
        extractor text DEFAULT NULL
    )
    RETURNS TABLE (rank integer, subject text, score double precision)
    LANGUAGE plpgsql STABLE
    SET search_path = {path}
    SET jit = off
    SET enable_seqscan = on
    SET hnsw.ef_search = 100
    SET hnsw.iterative_scan = off
    SET hnsw.max_scan_tuples = 20000
    AS $$
    #variable_conflict use_column
    DECLARE
        chosen pfstore.versions := pfstore.version_of(search.gallery, search.version, search.extractor, search.probe);
        tuning pfstore.tunings;
        way text := pfstore.path_of(chosen.version_id, search.exact, cardinality(search.among));
        filtered boolean := search.among IS NOT NULL;
        -- In half precision the score of two opposite templates can be a little below -1.
        least double precision := CASE WHEN search.threshold > -1 THEN search.threshold ELSE '-infinity' END;
        projection vector;
        coarse halfvec := search.probe;
        beyond double precision := 0;
        first integer := greatest(100, 2 * search.k);
        subjects text[];
        scores double precision[];
    BEGIN
        IF search.k IS NULL OR search.k NOT BETWEEN 1 AND 10000 THEN
            RAISE EXCEPTION USING errcode = 'PF422',
                message = format('k is %s, it must be from 1 to 10000', coalesce(search.k::text, 'NULL'));
        END IF;
        -- A threshold that is not known must not be none at all.
        IF search.threshold IS NULL OR search.threshold = 'NaN' THEN
            RAISE EXCEPTION USING errcode = 'PF422', message = format(
                'the threshold is %s, it must be a score; pfstore.threshold() gives NULL where none keeps to the rate',
                coalesce(search.threshold::text, 'NULL'));
        END IF;
        IF chosen.blocks > 1 THEN
            projection := pfstore.projection(search.probe, chosen.blocks);
            coarse := projection::halfvec;
            -- Not of what is rounded: that can be longer by more than the rest. Squares of float32 tell to 0.002.
            beyond := sqrt(greatest(0, (projection <#> projection) - (search.probe <#> search.probe))) + 0.002;
        END IF;
        IF way = 'index' THEN
            SELECT t.* INTO tuning FROM pfstore.tunings t WHERE t.version_id = chosen.version_id;
            first := greatest(tuning.candidates, 2 * search.k);
            PERFORM set_config('enable_seqscan', 'off', true),
                set_config('hnsw.ef_search', least(1000, greatest(tuning.ef_search, first))::text, true);
            IF filtered OR first > 1000 THEN
                PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true);
            END IF;
        END IF;
        LOOP
            EXECUTE format(
                'SELECT array_agg(subject_id), array_agg(score) FROM (%s) found',
                pfstore.search_statement(chosen.version_id, chosen.blocks, chosen.dimension, way, filtered)
            )
                INTO subjects, scores
                USING search.probe, coarse, beyond, search.k,
                    CASE way WHEN 'index' THEN '-infinity' ELSE least END, search.among, first;
            -- Somebody who is that near is the nearest; and there must be as many as there are, which an index that
            -- is full of what was deleted does not give.
            EXIT WHEN way = 'exhaustive'
                OR (tuning.sure IS NULL OR coalesce(scores[1] >= tuning.sure, false))
                AND coalesce(cardinality(subjects) >= search.k, false);
            way := 'exhaustive';
            first := greatest(100, 2 * search.k);
            PERFORM set_config('enable_seqscan', 'on', true);
        END LOOP;
        RETURN QUERY SELECT place::integer, one, value
            FROM unnest(subjects, scores) WITH ORDINALITY AS found (one, value, place)
            WHERE value >= least;
    END
    $$
    """,
    """
    CREATE FUNCTION pfstore.threshold(
        gallery text, kind text, rate double precision, version integer DEFAULT NULL
    )
    RETURNS double precision
    LANGUAGE sql STABLE
    SET search_path = {path}
    AS $$
        SELECT t.threshold
        FROM pfstore.thresholds t
        JOIN pfstore.versions v USING (version_id)
        JOIN pfstore.galleries g USING (gallery_id)
        WHERE g.name = threshold.gallery AND t.kind = threshold.kind AND t.target <= threshold.rate
            AND CASE WHEN threshold.version IS NULL THEN v.state = 'active' ELSE v.number = threshold.version END
        ORDER BY t.target DESC
        LIMIT 1
    $$
    """,
    """
    CREATE FUNCTION pfstore.verify(
        gallery text,
        subject text,
        probe halfvec,
        fmr double precision DEFAULT 0.001,
        version integer DEFAULT NULL,
        extractor text DEFAULT NULL
    )
    RETURNS TABLE (score double precision, threshold double precision, match boolean)
    LANGUAGE plpgsql STABLE
    SET search_path = {path}
    AS $$
    DECLARE
        chosen pfstore.versions := pfstore.version_of(verify.gallery, verify.version, verify.extractor, verify.probe);
    BEGIN
        SELECT -(t.template <#> verify.probe) INTO verify.score
        FROM pfstore.templates t
        WHERE t.version_id = chosen.version_id AND t.subject_id = verify.subject;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING errcode = 'PF404',
                message = format('gallery %L has no template of subject %L', verify.gallery, verify.subject);
        END IF;
        verify.threshold := pfstore.threshold(verify.gallery, 'fmr', verify.fmr, chosen.number);
        verify.match := verify.score >= verify.threshold;
        RETURN NEXT;
    END
    $$
    """,
    """
    CREATE FUNCTION pfstore.compare(a halfvec, b halfvec) RETURNS double precision
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = {path}
    AS $$
    BEGIN
        IF vector_dims(a) <> vector_dims(b) THEN
            RAISE EXCEPTION USING errcode = 'PF409', message = format(
                'templates of %s and of %s values are not of one contract', vector_dims(a), vector_dims(b));
        END IF;
        RETURN 1 - (a <=> b);
    END
    $$
    """,
)

_NAMES = (
    "compare(halfvec, halfvec)",
    "verify(text, text, halfvec, double precision, integer, text)",
    "threshold(text, text, double precision, integer)",
    "search(text, halfvec, integer, double precision, text[], boolean, integer, text)",
    "search_statement(integer, integer, integer, text, boolean)",
    "path_of(integer, boolean, integer)",
    "version_of(text, integer, text, halfvec)",
)


def upgrade() -> None:
    """Create the functions; they find pgvector's operators where it is installed, and nothing else by search_path."""
    connection = op.get_bind()
    schema = connection.scalar(
        sa.text(
            "SELECT quote_ident(nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
            " WHERE extname = 'vector'"
        )
    )
    for statement in _FUNCTIONS:
        op.execute(statement.replace("{path}", f"pg_catalog, {schema}, pg_temp"))


def downgrade() -> None:
    """Drop the functions."""
    for name in _NAMES:
        op.execute(f"DROP FUNCTION pfstore.{name}")
