"""Small stores on every engine, and what is read of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from pfstore.config import SourceConfig
from pfstore.sources.base import FeatureSource, Reject, Shard, SourceBatch
from pfstore.sources.sql import SqlSource

ENGINES = [
    pytest.param("sqlite_url", id="sqlite"),
    pytest.param("mariadb_url", id="mariadb", marks=pytest.mark.mariadb),
    pytest.param("postgres15_url", id="postgres15", marks=pytest.mark.postgres15),
]
BLOBS = {"sqlite": "BLOB", "mysql": "LONGBLOB", "postgresql": "BYTEA"}
MAPPING: dict[str, Any] = {
    "table": "faces",
    "subject": "person",
    "medium": "image",
    "feature": {"column": "vec", "encoding": "float32-le"},
    "extractor": "net",
}


def blob(*values: float) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


def execute(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def insert(url: str, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    target = sa.table(table, *(sa.column(name) for name in rows[0]))
    with engine.begin() as connection:
        connection.execute(target.insert(), rows)


def make_faces(url: str, person: str = "VARCHAR(40)", image: str = "VARCHAR(40)", extra: str = "") -> None:
    kind = BLOBS[sa.make_url(url).get_backend_name()]
    execute(url, f"CREATE TABLE faces (id INTEGER PRIMARY KEY, person {person}, image {image}, vec {kind}{extra})")


def faces(*rows: tuple[Any, Any, Any], **extra: Any) -> list[dict[str, Any]]:
    return [
        {"id": i, "person": person, "image": image, "vec": vec, **extra} for i, (person, image, vec) in enumerate(rows)
    ]


def as_feature_source(source: SqlSource) -> FeatureSource:
    return source


def opened(url: str, **changes: Any) -> SqlSource:
    return SqlSource(SourceConfig(url=url, **(MAPPING | changes)), "hr")


def read_all(source: SqlSource, size: int = 1000, dimension: int = 2) -> list[SourceBatch]:
    return [batch for shard in source.shards(size) for batch in read(source, shard, dimension)]


def read(source: SqlSource, shard: Shard, dimension: int = 2, features: int = 1000) -> list[SourceBatch]:
    return list(source.read(shard.range, dimension=dimension, features=features))


def subjects(batches: Iterable[SourceBatch]) -> list[str]:
    return [subject for batch in batches for subject in batch.features.subject_ids]


def rejects(batches: Iterable[SourceBatch]) -> list[Reject]:
    return [reject for batch in batches for reject in batch.rejects]


V = blob(1, 2)
