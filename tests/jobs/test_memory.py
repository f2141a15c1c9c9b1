"""A backfill's peak memory does not grow with the number of subjects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in KiB on Linux only")
def test_ten_times_the_subjects(database: Database, tmp_path: Path) -> None:
    peaks = [_peak(tmp_path / str(subjects), subjects, database) for subjects in (2000, 20_000)]
    assert peaks[1] < 1.15 * peaks[0]


def _peak(folder: Path, subjects: int, database: Database) -> int:
    folder.mkdir()
    # The same longest subject in both: it alone decides how large a batch can be.
    population = Population(subjects=subjects, dimension=128, features_per_subject=30)
    write_sqlite(folder / "legacy.db", population)
    config = CONFIG.format(url=database.uri, file=folder / "legacy.db", table=TABLE)
    (folder / "pfstore.toml").write_text(config)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True, check=True, timeout=240
    )
    return int(done.stderr.split()[-1])
