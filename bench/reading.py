"""Reading and decoding legacy stores against their bare drivers, which fetch the same rows and decode nothing."""

from __future__ import annotations

import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bench.harness import Result, medians
from bench.server import served
from bench.stores import DIMENSION, fill, in_shards, mapping, url_of
from pfstore.config import SourceConfig
from pfstore.gallery.database import Database
from pfstore.jobs.working import SHARD_FEATURES
from pfstore.sources import open_source
from pfstore.synthetic import Population, write_hdf5, write_sql, write_sqlite
from pfstore.synthetic.damage import Encoding

MARIADB = "mysql+pymysql://root@127.0.0.1:3306"
QUERY = (
    "SELECT person_id, image_id, id, vec FROM face_features WHERE deleted_at IS NULL AND person_id IS NOT NULL"
    " ORDER BY person_id, image_id, id"
)
PAGE = 1000


def run(*, big: bool) -> list[Result]:
    """Read SQLite, PostgreSQL, MariaDB and HDF5 stores of 30 features a subject; of fewer subjects where in text."""
    whole = Population(subjects=20_000 if big else 2000, features_per_subject=30, dimension=DIMENSION)
    fewer = Population(subjects=whole.subjects // 4, features_per_subject=30, dimension=DIMENSION)
    with served() as (folder, database):
        return [
            *_sqlite(folder, whole, "float32-le"),
            *_sqlite(folder, fewer, "json"),
            *_postgresql(database, whole),
            *_mariadb(whole, "float32-le"),
            *_mariadb(fewer, "json"),
            *_hdf5(folder, whole),
        ]


def _sqlite(folder: Path, population: Population, encoding: Encoding) -> Iterator[Result]:
    path = folder / f"{encoding}.db"
    write_sqlite(path, population, encoding=encoding)

    def bare() -> None:
        with closing(sqlite3.connect(path)) as connection:
            _drain(connection.execute(QUERY))

    yield _compare(f"SQLite, {encoding}", population, bare, mapping(f"sqlite:///{path}", encoding))
    path.unlink()


def _postgresql(database: Database, population: Population) -> Iterator[Result]:
    url = url_of(database)
    kinds: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "pgvector": ("vector", lambda feature: feature),
        "array": ("float4[]", lambda feature: feature.tolist()),
        "float32-le": ("bytea", lambda feature: feature.astype("<f4").tobytes()),
    }

    def bare() -> None:
        with (
            database.connect() as connection,
            connection.cursor().copy(f"COPY ({QUERY}) TO STDOUT (FORMAT BINARY)") as copy,
        ):
            for _ in copy:
                pass

    for encoding, (kind, written) in kinds.items():
        with database.connect() as connection:
            fill(connection, population, kind, written)
        yield _compare(f"PostgreSQL, {kind}", population, bare, mapping(url, encoding))


def _mariadb(population: Population, encoding: Encoding) -> Iterator[Result]:
    import pymysql
    from pymysql.cursors import SSCursor

    connect = partial(pymysql.connect, host="127.0.0.1", user="root", connect_timeout=3)
    name = f"pfstore_bench_{uuid.uuid4().hex[:12]}"
    try:
        admin = connect(autocommit=True)
    except pymysql.err.OperationalError as error:
        print(f"reading MariaDB is left out: {error}")
        return

    def bare() -> None:
        with connect(database=name) as connection, connection.cursor(SSCursor) as cursor:
            cursor.execute(QUERY)
            _drain(cursor)

    with ExitStack() as stack:
        cursor = stack.enter_context(stack.enter_context(admin).cursor())
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        stack.callback(cursor.execute, f"DROP DATABASE {name}")
        write_sql(f"{MARIADB}/{name}", population, encoding=encoding)
        yield _compare(f"MariaDB, {encoding}", population, bare, mapping(f"{MARIADB}/{name}", encoding))


def _hdf5(folder: Path, population: Population) -> Iterator[Result]:
    several = write_hdf5(folder / "files", population, probes=0)
    one = folder / "features_all.hdf5"
    with h5py.File(one, "w") as target:
        for path in sorted(several.glob("*.hdf5")):
            with h5py.File(path) as file:
                for subject in file:
                    file.copy(subject, target)
    for title, path in (("one file", one), ("a file for each subject", several)):
        bare = partial(_read_hdf5, [path] if path.is_file() else sorted(path.glob("*.hdf5")))
        yield _compare(f"HDF5, {title}", population, bare, SourceConfig(path=path, extractor="synthetic"))
    shutil.rmtree(folder / "files")


def _read_hdf5(paths: list[Path]) -> None:
    for path in paths:
        with h5py.File(path) as file:
            for subject in file.values():
                for kind in subject["gallery"].values():
                    for dataset in kind.values():
                        np.asarray(dataset[:])


def _compare(title: str, population: Population, bare: Callable[[], None], config: SourceConfig) -> Result:
    planning: list[float] = []
    contestants = {"the bare driver": bare, "pfstore": lambda: _read(config, planning)}
    seconds = medians(contestants)
    columns = {"of them to plan": {"pfstore": sorted(planning)[len(planning) // 2]}}
    return Result(f"reading {title}", "features", int(population.counts.sum()), seconds, "the bare driver", columns)


def _read(config: SourceConfig, planning: list[float]) -> None:
    """Read a store as a backfill does, and note how long it took to cut it into shards."""
    started = time.perf_counter()
    with open_source(config, "legacy", Path()) as source:
        shards = list(source.shards(SHARD_FEATURES))
        planning.append(time.perf_counter() - started)
        for _ in in_shards(source, shards):
            pass


def _drain(cursor: Any) -> None:
    while cursor.fetchmany(PAGE):
        pass
