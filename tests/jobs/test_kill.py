"""kill -9 at any moment, and the same command again: in the end the table is that of an undisturbed run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from pfstore.gallery.database import Connection, Database
from tests.cli.conftest import CONFIG, write_legacy
from tests.memory import people

KILLS, SUBJECTS = 10, 5000

# As `pfstore backfill`, but committing so often that there is something to interrupt.
PROGRAM = """
import sys
import pfstore.cli
from pfstore.jobs import working
working.SHARD_FEATURES, working.BATCH_FEATURES = 120, 40
sys.argv[1:] = ["backfill", *sys.argv[1:]]
pfstore.cli.main()
"""


def _start(gallery: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, gallery, "--quiet"], stdout=subprocess.DEVNULL)


def _wait_until_at_work(process: subprocess.Popen[bytes], database: Database) -> bool:
    """Wait until the run holds its lock; false where it is over before that is seen."""
    query = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')"
    with psycopg.connect(database.uri, autocommit=True) as connection:
        while process.poll() is None:
            if connection.execute(query).fetchone() == (True,):
                return True
            time.sleep(0.005)
    return False


def _wait_until_something_is_done(process: subprocess.Popen[bytes], connection: Connection) -> None:
    query = "SELECT count(*) FROM pfstore.shards WHERE done_at IS NOT NULL"
    before = connection.execute(query).fetchone()
    while process.poll() is None and connection.execute(query).fetchone() == before:
        time.sleep(0.005)


def _rows(connection: Connection, gallery: str) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT subject_id, template::text, features, media, fingerprint FROM pfstore.templates"
        " JOIN pfstore.versions USING (version_id) JOIN pfstore.galleries USING (gallery_id)"
        " WHERE name = %s ORDER BY subject_id",
        (gallery,),
    ).fetchall()


@pytest.mark.slow
def test_killed_ten_times(
    database: Database, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_legacy(tmp_path / "legacy.db", people(SUBJECTS))
    second = '\n[galleries.undisturbed]\nsource = "hr"\nmodel = "average"\n'
    (tmp_path / "pfstore.toml").write_text(CONFIG.format(url=database.uri) + second)
    assert _start("undisturbed").wait(timeout=120) == 0

    moments, progress = random.Random(5), []
    for kill in range(KILLS):
        process = _start("staff")
        assert _wait_until_at_work(process, database), "the run was over before it was killed often enough"
        if kill % 2:
            _wait_until_something_is_done(process, connection)
        time.sleep(moments.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        progress.append(len(_rows(connection, "staff")))
    assert 0 < progress[-1] < SUBJECTS
    assert len(set(progress)) > 2
    assert _start("staff").wait(timeout=120) == 0
    assert _rows(connection, "staff") == _rows(connection, "undisturbed")
    row = connection.execute(
        "SELECT count(DISTINCT run_id), sum(written) FROM pfstore.runs JOIN pfstore.shards USING (run_id)"
        " JOIN pfstore.versions USING (version_id) JOIN pfstore.galleries USING (gallery_id) WHERE name = 'staff'"
        " AND runs.state = 'done'"
    ).fetchone()
    assert row == (1, SUBJECTS)
