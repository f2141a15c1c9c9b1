"""A refresh after one subject in a hundred has changed, against a backfill of the whole store."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg

from bench.harness import Result, medians
from bench.server import served
from bench.stores import DIMENSION, fill, mapping, url_of
from pfstore.config import ChangedColumn, SourceConfig
from pfstore.fusion import Fuser, random_model
from pfstore.gallery import galleries, models
from pfstore.gallery.database import Connection, Database
from pfstore.jobs.backfill import backfill
from pfstore.jobs.refresh import RefreshSummary, refresh
from pfstore.sources import open_source
from pfstore.synthetic import Population, write_sqlite

_CHANGE = (
    "UPDATE face_features SET vec = (SELECT n.vec FROM face_features n WHERE n.id = face_features.id + {0}){1}"
    " WHERE id % 1000 = 0"
)
"""One row in a thousand, so one subject in a hundred, gets the feature of a row so many further."""


def run(*, big: bool) -> list[Result]:
    """Refresh a gallery of ProxyFusion's templates of SQLite and PostgreSQL stores, ten features a subject."""
    population = Population(subjects=50_000 if big else 3000, features_per_subject=10, dimension=DIMENSION)
    with served() as (folder, database), database.connect() as connection:
        path = folder / "legacy.db"
        write_sqlite(path, population)
        with closing(sqlite3.connect(path)) as legacy:
            legacy.execute("CREATE INDEX by_person ON face_features (person_id, image_id, updated_at, deleted_at)")
            legacy.commit()
        with psycopg.connect(database.uri) as legacy_server:
            fill(legacy_server, population, "vector", lambda feature: feature)
        sqlite = mapping(f"sqlite:///{path}", "float32-le")
        marked = sqlite.model_copy(update={"changed": ChangedColumn(column="updated_at", safe=True)})
        steps = itertools.cycle(range(1, 9))
        change = partial(_change_sqlite, path, steps)
        return [
            _measured(connection, "SQLite by change mark", marked, change, population),
            _measured(connection, "SQLite by content", sqlite, change, population),
            _measured(
                connection,
                "PostgreSQL by row versions",
                mapping(url_of(database), "pgvector"),
                partial(_change_postgres, database, steps),
                population,
            ),
        ]


def _measured(
    connection: Connection, title: str, config: SourceConfig, change: Callable[[], None], population: Population
) -> Result:
    fuser = random_model(DIMENSION)
    models.register(connection, fuser, fuser.name)
    for gallery in ("kept", "full"):
        if gallery in galleries.names(connection):
            galleries.drop(connection, gallery)
    _backfill(connection, config, fuser, "kept")
    _refresh(connection, config, fuser)

    def prepare() -> None:
        change()
        if "full" in galleries.names(connection):
            galleries.drop(connection, "full")

    contestants: dict[str, Callable[[], object]] = {
        "a backfill": lambda: _backfill(connection, config, fuser, "full"),
        "a refresh": lambda: _refresh(connection, config, fuser),
    }
    rounds = 3 if population.subjects < 10_000 else 1
    seconds = medians(contestants, rounds, before=prepare)
    seconds |= medians({"nothing changed": lambda: _refresh(connection, config, fuser)}, rounds)
    share = {name: taken / seconds["a backfill"] for name, taken in seconds.items()}
    return Result(f"refresh of {title}", "subjects", population.subjects, seconds, "a backfill", {"share": share})


def _backfill(connection: Connection, config: SourceConfig, fuser: Fuser, gallery: str) -> None:
    with open_source(config, "legacy", Path()) as source:
        backfill(
            connection, source, fuser, gallery=gallery, source_name="legacy", mapping=config.identity, restart=True
        )


def _refresh(connection: Connection, config: SourceConfig, fuser: Fuser) -> RefreshSummary:
    version = galleries.version(connection, "kept")
    with open_source(config, "legacy", Path()) as source:
        return refresh(connection, source, fuser, version, source_name="legacy", mapping=config.identity)


def _change_sqlite(path: Path, steps: Iterator[int]) -> None:
    with closing(sqlite3.connect(path)) as legacy:
        legacy.execute(_CHANGE.format(next(steps), ", updated_at = datetime(updated_at, '+1 minute')"))
        legacy.commit()


def _change_postgres(database: Database, steps: Iterator[int]) -> None:
    with psycopg.connect(database.uri) as legacy:
        legacy.execute(_CHANGE.format(next(steps), "").encode())
