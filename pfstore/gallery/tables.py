"""The schema of a store as it should be; migrations/ brings a database there and a test compares the two."""

from __future__ import annotations

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql as pg

SCHEMA = "pfstore"
PARTITION_PREFIX = "templates_v"

metadata = sa.MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    },
)

_NOW = sa.text("now()")


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, pg.TIMESTAMP(timezone=True), nullable=nullable, server_default=None if nullable else _NOW)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


models = sa.Table(
    "models",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("dimension", sa.Integer),
    sa.Column("blocks", sa.Integer, nullable=False),
    sa.Column("normalisation", sa.Text, nullable=False),
    sa.Column("details", pg.JSONB, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    _time("created_at"),
)

model_chunks = sa.Table(
    "model_chunks",
    metadata,
    sa.Column("digest", sa.ForeignKey(models.c.digest, ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

galleries = sa.Table(
    "galleries",
    metadata,
    sa.Column("gallery_id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    _time("created_at"),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("version_id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("gallery_id", sa.ForeignKey(galleries.c.gallery_id), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("extractor", sa.Text, nullable=False),
    sa.Column("dimension", sa.Integer, nullable=False),
    sa.Column("normalisation", sa.Text, nullable=False),
    sa.Column("model_digest", sa.ForeignKey(models.c.digest), nullable=False),
    sa.Column("strategy", sa.Text, nullable=False),
    sa.Column("blocks", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    _time("created_at"),
    _time("promoted_at", nullable=True),
    sa.Column("compact", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("gallery_id", "number"),
    sa.CheckConstraint("state IN ('building', 'active', 'retired')", name="state"),
    sa.CheckConstraint("strategy IN ('media', 'set')", name="strategy"),
    sa.Index("versions_one_active", "gallery_id", unique=True, postgresql_where=sa.text("state = 'active'")),
)

templates = sa.Table(
    "templates",
    metadata,
    # No foreign key to versions: dropping a version drops its partition, and a row can only be written
    # where a partition, hence a version, exists.
    sa.Column("version_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("subject_id", sa.Text(collation="C"), primary_key=True),
    sa.Column("template", HALFVEC(), nullable=False),
    sa.Column("features", sa.Integer, nullable=False),
    sa.Column("media", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("run_id", sa.BigInteger, nullable=False),
    sa.Column("fused_at", pg.TIMESTAMP(timezone=True), nullable=False),
    # Where a template has several blocks: see pfstore.gallery.coarse.
    sa.Column("coarse", HALFVEC()),
    sa.Column("residual", sa.REAL),
    postgresql_partition_by="LIST (version_id)",
)

# What the source said of a subject's rows when its template was made, or when all its rows were rejected.
marks = sa.Table(
    "marks",
    metadata,
    sa.Column("version_id", sa.ForeignKey(versions.c.version_id, ondelete="CASCADE"), primary_key=True),
    sa.Column("subject_id", sa.Text(collation="C"), primary_key=True),
    sa.Column("mark", sa.LargeBinary, nullable=False),
    sa.Column("rejected", sa.Boolean, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("version_id", sa.ForeignKey(versions.c.version_id, ondelete="CASCADE"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("pfstore", sa.Text, nullable=False),
    _time("started_at"),
    _time("finished_at", nullable=True),
    _count("vanished"),
    # Whether it is over the whole source, so that what it does not meet is gone.
    sa.Column("whole", sa.Boolean, nullable=False),
    # The subjects that it did not read, as their mark told that they are as they were, by whether they have a template.
    _count("unchanged"),
    _count("rejected"),
    # The share of so many templates that it may remove; of a backfill nobody asks.
    sa.Column("removals", sa.Double),
    sa.Column("templates", sa.BigInteger),
    sa.CheckConstraint("kind IN ('backfill', 'try', 'refresh')", name="kind"),
    sa.CheckConstraint("state IN ('running', 'done', 'abandoned')", name="state"),
    sa.Index("runs_version_id_idx", "version_id"),
)

shards = sa.Table(
    "shards",
    metadata,
    sa.Column("run_id", sa.ForeignKey(runs.c.run_id, ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("range", pg.JSONB, nullable=False),
    sa.Column("planned_features", sa.BigInteger, nullable=False),
    sa.Column("planned_subjects", sa.BigInteger, nullable=False),
    _time("done_at", nullable=True),
    _count("read"),
    _count("fused"),
    _count("rejected"),
    _count("seen"),
    _count("written"),
    _count("unchanged"),
    _count("removed"),
    _count("subjects_rejected"),
    # The subjects left as they were, until the run is over.
    sa.Column("kept", pg.ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'::text[]")),
    # Rows that the mapping leaves out, by cause.
    sa.Column("excluded", pg.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    # How often a worker failed at it, and why the last time.
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error", sa.Text),
    sa.CheckConstraint("read = fused + rejected", name="features"),
    sa.CheckConstraint("seen = written + unchanged + subjects_rejected", name="subjects"),
)

rejects = sa.Table(
    "rejects",
    metadata,
    sa.Column("run_id", sa.ForeignKey(runs.c.run_id, ondelete="CASCADE"), primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("subject_id", sa.Text),
    sa.Column("medium", sa.Text, nullable=False),
    sa.Column("row", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)

thresholds = sa.Table(
    "thresholds",
    metadata,
    sa.Column("version_id", sa.ForeignKey(versions.c.version_id, ondelete="CASCADE"), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("target", sa.Double, primary_key=True),
    sa.Column("threshold", sa.Double, nullable=False),
    # Of an FMR: comparisons. Of an FPIR: searches.
    sa.Column("comparisons", sa.BigInteger, nullable=False),
    sa.Column("low", sa.Double),
    sa.Column("high", sa.Double),
    sa.Column("templates", sa.BigInteger),
    sa.Column("basis", sa.Text, nullable=False),
    sa.Column("automatic", sa.Boolean, nullable=False),
    _time("created_at"),
    sa.CheckConstraint("kind IN ('fmr', 'fpir')", name="kind"),
)

tunings = sa.Table(
    "tunings",
    metadata,
    sa.Column("version_id", sa.ForeignKey(versions.c.version_id, ondelete="CASCADE"), primary_key=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("target", sa.Double, nullable=False),
    sa.Column("recall", sa.Double, nullable=False),
    sa.Column("low", sa.Double, nullable=False),
    sa.Column("high", sa.Double, nullable=False),
    sa.Column("mated_recall", sa.Double),
    sa.Column("probes", sa.BigInteger, nullable=False),
    sa.Column("basis", sa.Text, nullable=False),
    sa.Column("ef_search", sa.Integer, nullable=False),
    sa.Column("candidates", sa.Integer, nullable=False),
    # The score of a first candidate at which the index is believed; below it the search goes on exhaustively.
    sa.Column("sure", sa.Double),
    sa.Column("answered", sa.Double, nullable=False),
    sa.Column("index_seconds", sa.Double, nullable=False),
    sa.Column("exhaustive_seconds", sa.Double, nullable=False),
    sa.Column("templates", sa.BigInteger, nullable=False),
    _time("created_at"),
    sa.CheckConstraint("path IN ('index', 'exhaustive')", name="path"),
)

dedupes = sa.Table(
    "dedupes",
    metadata,
    sa.Column("dedupe_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("version_id", sa.ForeignKey(versions.c.version_id, ondelete="CASCADE"), nullable=False),
    sa.Column("threshold", sa.Double, nullable=False),
    sa.Column("templates", sa.BigInteger, nullable=False),
    # A digest of whose templates there were and when each was fused.
    sa.Column("contents", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("pfstore", sa.Text, nullable=False),
    _time("started_at"),
    _time("finished_at", nullable=True),
    sa.CheckConstraint("state IN ('running', 'done', 'abandoned')", name="state"),
    sa.Index("dedupes_version_id_idx", "version_id"),
)

dedupe_blocks = sa.Table(
    "dedupe_blocks",
    metadata,
    sa.Column("dedupe_id", sa.ForeignKey(dedupes.c.dedupe_id, ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("first_subject", sa.Text(collation="C"), nullable=False),
    sa.Column("last_subject", sa.Text(collation="C"), nullable=False),
    _time("done_at", nullable=True),
)

dedupe_pairs = sa.Table(
    "dedupe_pairs",
    metadata,
    sa.Column("dedupe_id", sa.ForeignKey(dedupes.c.dedupe_id, ondelete="CASCADE"), primary_key=True),
    sa.Column("subject_a", sa.Text(collation="C"), primary_key=True),
    sa.Column("subject_b", sa.Text(collation="C"), primary_key=True),
    sa.Column("score", sa.Double, nullable=False),
    sa.CheckConstraint("subject_a < subject_b", name="order"),
)

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("gallery", sa.Text, nullable=False),
    sa.Column("cron", sa.Text, nullable=False),
    _time("known_since"),
    # The last time that it was due and was queued for, or left out as it was queued already.
    _time("due_at", nullable=True),
    _time("started_at", nullable=True),
    _time("finished_at", nullable=True),
    sa.Column("result", sa.Text),
    sa.Column("failed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("run_id", sa.ForeignKey(runs.c.run_id, ondelete="SET NULL")),
)

# What the queue does not keep of its workers.
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("worker_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("pfstore", sa.Text, nullable=False),
    _time("started_at"),
)
