"""Writing templates as a backfill does against a bare binary COPY of the same rows into the same table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql

from bench.filling import batch_of, write
from bench.harness import Result, medians
from bench.server import served
from pfstore.features import TemplateBatch
from pfstore.gallery import copying, galleries, models
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Contract, Version

DIMENSION = 512
BATCH, COMMITTED = 512, 2048
"""Templates added at once, and in one transaction."""


def run(*, big: bool) -> list[Result]:
    """Write templates of one block and of four, whose inline vectors are made on the way."""
    subjects = 20_000 if big else 4096
    with served() as (_, database), database.connect() as connection:
        register_vector(connection)
        return [_blocks(connection, blocks, subjects) for blocks in (1, 4)]


def _blocks(connection: Connection, blocks: int, subjects: int) -> Result:
    model = models.resolve(connection, "average")
    contract = Contract("made up", DIMENSION, model.normalisation, model.digest, "set")
    version = galleries.ensure(connection, f"blocks{blocks}", contract, blocks)
    batches = list(_batches(subjects, blocks))
    encoded = [_encoded(version, batch) for batch in batches]
    contestants = {
        "a bare binary COPY": lambda: _bare(connection, version, encoded),
        "pfstore": lambda: write(connection, version, batches, COMMITTED // BATCH),
        "INSERT by row": lambda: _naive(connection, version, batches),
    }
    # Off the clock: it takes up to a sixth of the bare COPY's time, and would bring all ratios nearer to 1.
    truncate = sql.SQL("TRUNCATE {}").format(version.partition)
    seconds = medians(contestants, rounds=5, before=lambda: connection.execute(truncate))
    return Result(f"writing {blocks} × {DIMENSION}", "templates", subjects, seconds, "a bare binary COPY")


def _batches(subjects: int, blocks: int) -> Iterator[TemplateBatch]:
    random = np.random.default_rng(0)
    for first in range(0, subjects, BATCH):
        count = min(BATCH, subjects - first)
        templates = random.standard_normal((count, blocks * DIMENSION), dtype=np.float32)
        templates /= np.linalg.norm(templates, axis=1, keepdims=True)
        ids = [f"person-{number:07}" for number in range(first, first + count)]
        yield batch_of(ids, templates)


def _encoded(version: Version, batch: TemplateBatch) -> bytes:
    return b"".join(copying.rows(batch, version, run=1, fused_at=datetime.now(UTC), encoding="utf-8"))


def _bare(connection: Connection, version: Version, encoded: list[bytes]) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, copying.COLUMNS))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(version.partition, columns)
    with connection.cursor().copy(statement) as copy:
        copy.write(copying.HEADER)
        for rows in encoded:
            copy.write(rows)
        copy.write(copying.TRAILER)


def _naive(connection: Connection, version: Version, batches: list[TemplateBatch]) -> None:
    statement = (
        "INSERT INTO pfstore.templates"
        " (version_id, subject_id, template, features, media, fingerprint, run_id, fused_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, 1, now())"
    )
    with connection.transaction(), connection.cursor() as cursor:
        for batch in batches:
            counts = zip(batch.features.tolist(), batch.media.tolist(), batch.fingerprints, strict=True)
            named = zip(batch.subject_ids, map(HalfVector, batch.templates), counts, strict=True)
            cursor.executemany(statement, [(version.version_id, key, half, *rest) for key, half, rest in named])
