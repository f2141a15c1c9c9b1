"""Legacy stores to measure with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from pgvector.psycopg import register_vector

from pfstore.config import FeatureColumn, SourceConfig
from pfstore.features import FeatureBatch
from pfstore.gallery.database import Database
from pfstore.jobs.working import BATCH_FEATURES, SHARD_FEATURES
from pfstore.sources import open_source
from pfstore.sources.base import FeatureSource, Shard
from pfstore.synthetic import Population

DIMENSION = 512


def fill(connection: psycopg.Connection[Any], population: Population, kind: str, written: Callable[[Any], Any]) -> None:
    """Write the table of synthetic stores with features of another type."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(connection)
    connection.execute("DROP TABLE IF EXISTS face_features")
    connection.execute(
        "CREATE TABLE face_features (id bigint PRIMARY KEY, person_id text, image_id text,"
        f" vec {kind}, deleted_at timestamp)".encode()
    )
    number = 0
    with connection.cursor().copy("COPY face_features FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int8", "text", "text", kind, "timestamp"])
        for faces in population.faces():
            rows = zip(faces.subjects.tolist(), faces.media.tolist(), faces.features, strict=True)
            for subject, medium, feature in rows:
                number += 1
                copy.write_row((number, population.name(subject), f"img-{medium:04d}", written(feature), None))
    connection.execute("CREATE INDEX ON face_features (person_id)")
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE face_features")


def mapping(url: str, encoding: str) -> SourceConfig:
    """Return the mapping of the table of a synthetic store."""
    return SourceConfig(
        url=url,
        table="face_features",
        subject="person_id",
        medium="image_id",
        feature=FeatureColumn(column="vec", encoding=encoding),
        where="deleted_at IS NULL",
        extractor="synthetic",
    )


def url_of(database: Database) -> str:
    """Return the URL of a server that holds a legacy store."""
    return sa.make_url(database.uri).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def batches(config: SourceConfig) -> Iterator[FeatureBatch]:
    """Read a store as a backfill does: cut into shards, and these in batches."""
    with open_source(config, "legacy", Path()) as source:
        yield from in_shards(source, source.shards(SHARD_FEATURES))


def in_shards(source: FeatureSource, shards: Iterable[Shard]) -> Iterator[FeatureBatch]:
    """Read some shards of a source in the batches of a backfill."""
    for shard in shards:
        for batch in source.read(shard.range, dimension=DIMENSION, features=BATCH_FEATURES):
            yield batch.features
