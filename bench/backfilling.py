"""A backfill against the script that everybody writes first: a SELECT, a loop and an INSERT for each subject."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from bench.harness import Result, medians
from pfstore.config import FeatureColumn, SourceConfig
from pfstore.fusion import load_model
from pfstore.gallery import models, schema
from pfstore.gallery.database import Database
from pfstore.jobs.backfill import backfill
from pfstore.sources import open_source
from pfstore.synthetic import Population, write_sqlite

QUERY = "SELECT vec FROM face_features WHERE person_id = ? AND deleted_at IS NULL"


def run(*, big: bool) -> list[Result]:
    """Average the features of a SQLite store into an embedded PostgreSQL."""
    population = Population(subjects=20_000 if big else 2000, features_per_subject=30)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_sqlite(folder / "legacy.db", population)
        with closing(sqlite3.connect(folder / "legacy.db")) as legacy:
            legacy.execute("CREATE INDEX by_person ON face_features (person_id)")
        database = Database.open("embedded:server", folder)
        schema.upgrade(database)
        contestants = {
            "the naive script": lambda: _naive(folder, database),
            "pfstore": lambda: _pfstore(folder, database),
        }
        seconds = medians(contestants)
    return [Result("backfill by average", "subjects", population.subjects, seconds, "the naive script")]


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


def _pfstore(folder: Path, database: Database) -> None:
    config = SourceConfig(
        url="sqlite:///legacy.db",
        table="face_features",
        subject="person_id",
        medium="image_id",
        feature=FeatureColumn(column="vec", encoding="float32-le"),
        where="deleted_at IS NULL",
        extractor="synthetic",
    )
    with open_source(config, "legacy", folder) as source, database.connect() as connection:
        connection.execute("TRUNCATE pfstore.templates")
        models.resolve(connection, "average")
        backfill(connection, source, load_model("average"), gallery="g", source_name="legacy", restart=True)
