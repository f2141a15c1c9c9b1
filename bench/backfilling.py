"""A backfill against the slowest of its stages alone, and against the script that everybody writes first."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from bench.filling import batch_of, write
from bench.harness import Result, medians
from bench.server import served
from bench.stores import DIMENSION, batches, fill, mapping, url_of
from pfstore.config import SourceConfig
from pfstore.features import FeatureBatch, Floats
from pfstore.fusion import Fuser, load_model, random_model
from pfstore.gallery import galleries, models
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Contract, Version
from pfstore.jobs.backfill import backfill
from pfstore.jobs.working import BATCH_FEATURES, SHARD_FEATURES
from pfstore.sources import open_source
from pfstore.synthetic import Population, write_hdf5, write_sqlite

QUERY = "SELECT vec FROM face_features WHERE person_id = ? AND deleted_at IS NULL"


def run(*, big: bool) -> list[Result]:
    """Fuse SQLite, PostgreSQL and HDF5 stores of 30 features a subject into an embedded PostgreSQL."""
    population = Population(subjects=20_000 if big else 2000, features_per_subject=30, dimension=DIMENSION)
    with served() as (folder, database), database.connect() as connection:
        sources = _stores(folder, database, population)
        return [
            _against_naive(folder, database, connection, sources["SQLite"], population),
            *(
                _against_stages(connection, title, config, fuser, population)
                for fuser in (load_model("average"), random_model(DIMENSION))
                for title, config in sources.items()
            ),
        ]


def _stores(folder: Path, database: Database, population: Population) -> dict[str, SourceConfig]:
    write_sqlite(folder / "legacy.db", population)
    with closing(sqlite3.connect(folder / "legacy.db")) as legacy:
        legacy.execute("CREATE INDEX by_person ON face_features (person_id)")
    with database.connect() as connection:
        fill(connection, population, "vector", lambda feature: feature)
    files = write_hdf5(folder / "files", population, probes=0)
    return {
        "SQLite": mapping(f"sqlite:///{folder / 'legacy.db'}", "float32-le"),
        "PostgreSQL": mapping(url_of(database), "pgvector"),
        "HDF5": SourceConfig(path=files, extractor="synthetic"),
    }


def _against_stages(
    connection: Connection, title: str, config: SourceConfig, fuser: Fuser, population: Population
) -> Result:
    """Every stage by itself, on what the others would have handed it, and the backfill; the slowest is the floor."""
    read = list(batches(config))
    fused = [batch_of(batch.subject_ids, _fused(fuser, batch)) for batch in read]
    version = _written(connection, fuser)
    contestants = {
        "reading alone": lambda: [None for _ in batches(config)],
        "fusing alone": lambda: [_fused(fuser, batch) for batch in read],
        "writing alone": lambda: write(connection, version, fused, SHARD_FEATURES // BATCH_FEATURES),
        "the backfill": lambda: _backfill(connection, config, fuser),
    }
    seconds = medians(contestants, before=lambda: connection.execute("TRUNCATE pfstore.templates"))
    slowest = max(list(contestants)[:-1], key=lambda name: seconds[name])
    name = f"backfill of {title} by {fuser.name}"
    columns = {"times the slowest stage": {"the backfill": seconds["the backfill"] / seconds[slowest]}}
    return Result(name, "subjects", population.subjects, seconds, "the backfill", columns)


def _fused(fuser: Fuser, batch: FeatureBatch) -> Floats:
    return fuser.templates(batch.features, batch.set_offsets, role="gallery")


def _written(connection: Connection, fuser: Fuser) -> Version:
    """The version that templates are written to without a backfill."""
    models.register(connection, fuser, fuser.name)
    contract = Contract("synthetic", DIMENSION, fuser.normalisation, fuser.digest, "set")
    return galleries.ensure(connection, f"written-{fuser.name}", contract, fuser.blocks)


def _backfill(connection: Connection, config: SourceConfig, fuser: Fuser) -> None:
    models.register(connection, fuser, fuser.name)
    with open_source(config, "legacy", Path()) as source:
        backfill(connection, source, fuser, gallery=fuser.name, source_name="legacy", strategy="set", restart=True)


def _against_naive(
    folder: Path, database: Database, connection: Connection, config: SourceConfig, population: Population
) -> Result:
    contestants: dict[str, Callable[[], object]] = {
        "the naive script": partial(_naive, folder, database),
        "pfstore": lambda: _backfill(connection, config, load_model("average")),
    }
    seconds = medians(contestants, before=lambda: connection.execute("TRUNCATE pfstore.templates"))
    return Result("backfill by average", "subjects", population.subjects, seconds, "the naive script")


def _naive(folder: Path, database: Database) -> None:
    with closing(sqlite3.connect(folder / "legacy.db")) as legacy, psycopg.connect(database.uri) as target:
        register_vector(target)
        target.execute("DROP TABLE IF EXISTS naive")
        target.execute("CREATE TABLE naive (subject text PRIMARY KEY, template halfvec)")
        subjects = legacy.execute("SELECT DISTINCT person_id FROM face_features").fetchall()
        for (subject,) in subjects:
            rows = [np.frombuffer(vec, "<f4") for (vec,) in legacy.execute(QUERY, (subject,))]
            mean = np.mean([row / np.linalg.norm(row) for row in rows], axis=0)
            template = HalfVector(mean / np.linalg.norm(mean))
            target.execute("INSERT INTO naive VALUES (%s, %s)", (subject, template))
