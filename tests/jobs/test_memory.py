"""A backfill's peak memory does not grow with the number of subjects, and with one subject's features by little more.

Measured over the whole process, in MiB.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.gallery.database import Database
from pfstore.synthetic import TABLE, Population, write_sqlite

CONFIG = """
[database]
url = "{url}"
[sources.s]
url = "sqlite:///{file}"
table = "{table}"
subject = "person_id"
medium = "image_id"
feature = {{ column = "vec", encoding = "float32-le" }}
extractor = "e"
[galleries.g]
source = "s"
model = "average"
"""

PROGRAM = """
import resource, sys
import pfstore.cli
from pfstore.cli.app import App
assert pfstore.cli.run(["backfill", "g", "--quiet"], App()) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in KiB on Linux only"),
]


def test_ten_times_the_subjects(database: Database, tmp_path: Path) -> None:
    # The same longest subject in both: it alone decides how large a batch can be.
    peaks = [_peak(tmp_path / str(subjects), _population(subjects, 128), 0, database) for subjects in (2000, 20_000)]
    assert peaks[1] < 1.15 * peaks[0]


def test_one_subject_of_200_000_features(database: Database, tmp_path: Path) -> None:
    small, large = (
        _peak(tmp_path / str(features), _population(50, 512), features, database) for features in (1, 200_000)
    )
    # Its features are 391 MiB, and are there once as rows or as a batch, never as both and never twice.
    assert large - small < 1.5 * 200_000 * 512 * 4 / 2**20


def _population(subjects: int, dimension: int) -> Population:
    return Population(subjects=subjects, dimension=dimension, features_per_subject=30)


def _peak(folder: Path, population: Population, more: int, database: Database) -> float:
    """Backfill a store of a population and of one more subject of so many features."""
    folder.mkdir()
    write_sqlite(folder / "legacy.db", population)
    with closing(sqlite3.connect(folder / "legacy.db")) as store, store:
        store.executemany(
            f"INSERT INTO {TABLE} (id, person_id, image_id, vec, model, updated_at) VALUES (?, 'more', ?, ?, 'e', '')",
            _rows(more, population.dimension),
        )
    config = CONFIG.format(url=database.uri, file=folder / "legacy.db", table=TABLE)
    (folder / "pfstore.toml").write_text(config)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True, check=True, timeout=240
    )
    return int(done.stderr.split()[-1]) / 1024


def _rows(count: int, dimension: int) -> Iterator[tuple[Any, ...]]:
    random = np.random.default_rng(0)
    for number in range(count):
        yield 1_000_000 + number, f"m{number // 100}", random.random(dimension, dtype=np.float32).tobytes()
