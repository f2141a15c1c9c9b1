"""A backfill against the slowest of its stages alone, and against the script that everybody writes first."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import psycopg
import sqlalchemy as sa
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql

from bench.harness import Result, medians
from bench.stores import fill, mapping
from pfstore.config import SourceConfig
from pfstore.features import FeatureBatch, Floats, TemplateBatch
from pfstore.fusion import Fuser, load_model, random_model
from pfstore.gallery import galleries, models, schema
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.runs import Counts
from pfstore.gallery.writing import staging
from pfstore.jobs.backfill import BATCH_FEATURES, SHARD_FEATURES, backfill, contract_of
from pfstore.sources import open_source
from pfstore.synthetic import Population, write_hdf5, write_sqlite

DIMENSION = 512
QUERY = "SELECT vec FROM face_features WHERE person_id = ? AND deleted_at IS NULL"


def run(*, big: bool) -> list[Result]:
    """Fuse SQLite, PostgreSQL and HDF5 stores of 30 features a subject into an embedded PostgreSQL."""
    population = Population(subjects=20_000 if big else 2000, features_per_subject=30, dimension=DIMENSION)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        database = Database.open("embedded:server", folder)
        schema.upgrade(database)
        sources = _stores(folder, database, population)
        with database.connect() as connection:
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
    url = sa.make_url(database.uri).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    files = write_hdf5(folder / "files", population, probes=0)
    return {
        "SQLite": mapping(f"sqlite:///{folder / 'legacy.db'}", "float32-le"),
        "PostgreSQL": mapping(url, "pgvector"),
        "HDF5": SourceConfig(path=files, extractor="synthetic"),
    }


def _against_stages(
    connection: Connection, title: str, config: SourceConfig, fuser: Fuser, population: Population
) -> Result:
    """Every stage by itself, on what the others would have handed it, and the backfill; the slowest is the floor."""
    batches = list(_read(config))
    templates = [_fused(fuser, batch) for batch in batches]
    contestants = {
        "reading alone": lambda: [None for _ in _read(config)],
        "fusing alone": lambda: [_fused(fuser, batch) for batch in batches],
        "writing alone": lambda: _written(connection, config, fuser, batches, templates),
        "the backfill": lambda: _backfill(connection, config, fuser),
    }
    seconds = medians(contestants)
    slowest = max(list(contestants)[:-1], key=lambda name: seconds[name])
    name = f"backfill of {title} by {fuser.name}"
    columns = {"times the slowest stage": {"the backfill": seconds["the backfill"] / seconds[slowest]}}
    return Result(name, "subjects", population.subjects, seconds, "the backfill", columns)


def _read(config: SourceConfig) -> Iterator[FeatureBatch]:
    with open_source(config, "legacy", Path()) as source:
        for shard in source.shards(SHARD_FEATURES):
            for batch in source.read(shard.range, dimension=DIMENSION, features=BATCH_FEATURES):
                yield batch.features


def _fused(fuser: Fuser, batch: FeatureBatch) -> Floats:
    return fuser.templates(batch.features, batch.set_offsets, role="gallery")


def _written(
    connection: Connection, config: SourceConfig, fuser: Fuser, batches: list[FeatureBatch], templates: list[Floats]
) -> None:
    models.register(connection, fuser, fuser.name)
    with open_source(config, "legacy", Path()) as source:
        contract = contract_of(source, fuser, "set")
    version = galleries.ensure(connection, f"written-{fuser.name}", contract, fuser.blocks)
    connection.execute(sql.SQL("TRUNCATE {}").format(version.partition))
    per_shard = SHARD_FEATURES // BATCH_FEATURES
    with staging(connection, version, 1) as writer:
        for number, (batch, made) in enumerate(zip(batches, templates, strict=True), 1):
            counts = np.diff(batch.set_offsets)
            writer.known(batch.subject_ids)
            writer.add(TemplateBatch(batch.subject_ids, made, counts, counts, [bytes(16)] * len(counts)))
            if number % per_shard == 0 or number == len(batches):
                writer.commit(0, Counts())


def _backfill(connection: Connection, config: SourceConfig, fuser: Fuser) -> None:
    models.register(connection, fuser, fuser.name)
    connection.execute("TRUNCATE pfstore.templates")
    with open_source(config, "legacy", Path()) as source:
        backfill(connection, source, fuser, gallery=fuser.name, source_name="legacy", strategy="set", restart=True)


def _against_naive(
    folder: Path, database: Database, connection: Connection, config: SourceConfig, population: Population
) -> Result:
    contestants: dict[str, Callable[[], object]] = {
        "the naive script": partial(_naive, folder, database),
        "pfstore": lambda: _backfill(connection, config, load_model("average")),
    }
    return Result("backfill by average", "subjects", population.subjects, medians(contestants), "the naive script")


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
