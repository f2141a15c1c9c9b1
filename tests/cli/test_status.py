"""`pfstore status`: what goes on, again and again, and against the source."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from pfstore import config
from pfstore.gallery import undone
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.locking import locked
from pfstore.jobs import overview, queue, working
from pfstore.jobs.fleet import Planned
from tests.cli.conftest import Run
from tests.jobs import workers

SCHEDULE = '\n[schedules.nightly]\ngallery = "staff"\ncron = "0 3 * * *"\n'
SCRIPT = Path(sys.executable).with_name("pfstore")


@pytest.fixture
def planned(folder: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """A backfill of several shards, which wait for a worker."""
    monkeypatch.setattr(working, "SHARD_FEATURES", 25)
    return workers.plan(connection, config.load())


def _alive(connection: Connection) -> int:
    """Register a worker that is alive, and return its number."""
    [(number,)] = connection.execute("INSERT INTO pfstore_jobs.procrastinate_workers DEFAULT VALUES RETURNING id")
    connection.execute(
        "INSERT INTO pfstore.workers (worker_id, host, pid, pfstore) VALUES (%s, 'h', 7, '0')", (number,)
    )
    return int(number)


def _is_done(connection: Connection, run: int, number: int, read: int, ago: float) -> None:
    connection.execute(
        "UPDATE pfstore.shards SET done_at = now() - make_interval(secs => %s), read = %s, fused = %s"
        " WHERE run_id = %s AND number = %s",
        (ago, read, read, run, number),
    )


def _began(connection: Connection, run: int, ago: float) -> None:
    connection.execute(
        "UPDATE pfstore.runs SET started_at = now() - make_interval(secs => %s) WHERE run_id = %s", (ago, run)
    )


def test_an_empty_store(folder: Path, run: Run) -> None:
    said = run("status", "--json")
    assert said.code == 0
    assert set(said.json) == {"at", "galleries", "runs", "workers", "jobs", "schedules", "errors"}
    assert said.json["jobs"]["todo"] == 0
    assert "jobs:" not in run("status").out


def test_runs_that_are_over(folder: Path, run: Run) -> None:
    run("backfill", "staff")
    [one] = run("status", "--json").json["runs"]
    assert (one["state"], one["condition"], one["alive"]) == ("done", "done", False)
    assert (one["features_per_second"], one["seconds_left"]) == (None, None)
    assert run("status", "--json").json["galleries"][0]["templates"] == 30


def test_what_waits_for_a_worker(planned: Planned, run: Run, connection: Connection) -> None:
    told = run("status", "--json").json
    [one] = told["runs"]
    assert (one["state"], one["condition"]) == ("running", "waiting")
    assert one["jobs"] == {"todo": one["shards"], "doing": 0}
    assert told["jobs"]["todo"] == one["shards"] > 3
    assert f"jobs: {one['shards']} todo; no worker is alive" in run("status").out
    number = _alive(connection)
    [worker] = run("status", "--json").json["workers"]
    assert (worker["worker_id"], worker["host"], worker["alive"]) == (number, "h", True)
    assert "no worker is alive" not in run("status").out
    queue.cancel(connection, planned.run_id)
    assert run("status", "--json").json["runs"][0]["condition"] == "interrupted"


def test_the_rate_of_a_run_and_its_time_left(
    planned: Planned, run: Run, connection: Connection, database: Database
) -> None:
    _began(connection, planned.run_id, 100)
    _is_done(connection, planned.run_id, 0, 300, 60)
    _is_done(connection, planned.run_id, 1, 200, 10)
    connection.execute("UPDATE pfstore.shards SET planned_features = 400 WHERE run_id = %s", (planned.run_id,))
    # Nobody works on it.
    assert run("status", "--json").json["runs"][0]["features_per_second"] is None
    with database.connect() as other, locked(other, planned.version.version_id, "it"):
        [one] = run("status", "--json").json["runs"]
        assert one["condition"] == "running"
        assert one["features_per_second"] == pytest.approx(5, rel=0.1)
        assert one["seconds_left"] == pytest.approx((one["planned_features"] - 500) / 5, rel=0.1)
        # Taken up again: what was done a day ago tells nothing, and the first shard since only when it was done.
        _began(connection, planned.run_id, 90_000)
        _is_done(connection, planned.run_id, 0, 300, 86_400)
        assert run("status", "--json").json["runs"][0]["features_per_second"] is None
        _is_done(connection, planned.run_id, 1, 200, 100)
        _is_done(connection, planned.run_id, 2, 400, 10)
        [one] = run("status", "--json").json["runs"]
        assert one["features_per_second"] == pytest.approx(4, rel=0.1)


def test_failed_shards_and_their_errors(planned: Planned, run: Run, connection: Connection) -> None:
    undone.note_failure(connection, planned.run_id, 1, "SourceError: the store is away")
    told = run("status", "--json").json
    assert (told["runs"][0]["condition"], told["runs"][0]["failed_shards"]) == ("waiting", 1)
    [one] = told["errors"]
    assert (one["run"], one["number"], one["failures"]) == (planned.run_id, 1, 1)
    assert one["error"] == "SourceError: the store is away"
    queue.cancel(connection, planned.run_id)
    assert run("status", "--json").json["runs"][0]["condition"] == "failed"
    said = run("status").out
    assert "1 failed" in said
    assert "SourceError: the store is away" in said


def test_schedules(folder: Path, run: Run) -> None:
    with (folder / "pfstore.toml").open("a") as file:
        file.write(SCHEDULE)
    [one] = run("status", "--json").json["schedules"]
    assert (one["name"], one["gallery"], one["result"]) == ("nightly", "staff", None)
    assert datetime.fromisoformat(one["next_run"]) > datetime.now(UTC)
    assert "nightly" in run("status").out


def test_templates_are_not_counted_each_time(folder: Path, run: Run, connection: Connection) -> None:
    run("backfill", "staff")
    first = overview.look(connection, config.load(), datetime.now(UTC))
    connection.execute("DELETE FROM pfstore.templates WHERE subject_id = 's0003'")
    again = overview.look(connection, config.load(), datetime.now(UTC), templates=first.templates)
    assert list(again.templates.values()) == [30]
    # One that is new is counted, and the others with it.
    again = overview.look(connection, config.load(), datetime.now(UTC), templates={})
    assert list(again.templates.values()) == [29]


@contextmanager
def _watching(*options: str, stdout: Any, stderr: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Let a process show the status again and again; it is killed in the end if it goes on."""
    command = [str(SCRIPT), "status", "--watch", "0.2", *options]
    with subprocess.Popen(command, stdout=stdout, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


def _until(holds: Callable[[], bool]) -> None:
    workers.until(holds, "the output", seconds=30)


def test_watching_in_a_pipe_outlives_the_server(folder: Path, database: Database, server_uri: str) -> None:
    out, err = folder / "out", folder / "err"
    with (
        out.open("w") as stdout,
        err.open("w") as stderr,
        _watching("--json", stdout=stdout, stderr=stderr) as process,
    ):
        _until(lambda: out.read_text().count("\n") > 1)
        _allow(server_uri, database, False)
        _until(lambda: "pfstore: " in err.read_text())
        _allow(server_uri, database, True)
        seen = out.read_text().count("\n")
        _until(lambda: out.read_text().count("\n") > seen + 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert all(line.startswith('{"at": ') for line in out.read_text().splitlines())
    assert err.read_text().endswith("pfstore: interrupted\n")
    assert "Traceback" not in err.read_text()


def _allow(server_uri: str, database: Database, allowed: bool) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database.uri)["dbname"]
    with psycopg.connect(server_uri, autocommit=True) as connection:
        statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        connection.execute(statement.format(sql.Identifier(str(name)), sql.Literal(allowed)))


def test_watching_on_a_terminal(folder: Path) -> None:
    here, there = pty.openpty()
    with _watching(stdout=there, stderr=there) as process:
        seen = b""
        until = time.monotonic() + 30
        while seen.count(b"Ctrl-C ends") < 3:
            assert time.monotonic() < until
            seen += os.read(here, 65_536)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    os.set_blocking(here, False)
    seen += os.read(here, 65_536)
    os.close(here)
    os.close(there)
    assert b"Traceback" not in seen
    # The cursor that was hidden is shown again, and each picture goes over the one before.
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"Ctrl-C ends")
    assert b"\x1b[1A" in seen


def test_a_database_that_was_never_there(folder: Path, run: Run) -> None:
    said = run("--database", "postgresql://me@127.0.0.1:1/x", "status", "--watch")
    assert said.code == 4


def _legacy(folder: Path, *statements: str) -> None:
    connection = sqlite3.connect(folder / "legacy.db")
    vector = np.linspace(1, 2, 8, dtype="<f4").tobytes()
    for statement in statements:
        connection.execute(statement, {"vec": vector})
    connection.commit()
    connection.close()


GHOST = "INSERT INTO faces (person, image, vec) VALUES ('ghost', 'x', zeroblob(32))"


def test_coverage(folder: Path, run: Run) -> None:
    _legacy(folder, GHOST)
    said = run("status", "--coverage", "--json")
    assert said.code == 0
    [one] = said.json["coverage"]
    assert (one["version"], one["note"]) == (None, "no version yet: run `pfstore backfill staff`")
    run("backfill", "staff")
    [one] = run("status", "--coverage", "staff", "--json").json["coverage"]
    assert (one["covered"], one["stale"], one["noted"]) == (0, 30, False)
    assert "nobody can tell before the first `pfstore refresh staff`" in run("status", "--coverage").out

    run("refresh", "staff")
    [one] = run("status", "--coverage", "staff", "--json").json["coverage"]
    assert one == {
        "gallery": "staff", "version": 1, "by": "content", "covered": 30, "stale": 0, "missing": 0, "orphaned": 0,
        "rejected": 1, "templates": 30, "noted": True, "error": None, "note": None,
    }  # fmt: skip
    _legacy(
        folder,
        "INSERT INTO faces (person, image, vec) VALUES ('new', 'x', :vec)",
        "UPDATE faces SET vec = :vec WHERE id = (SELECT min(id) FROM faces WHERE person = 's0001')",
        "DELETE FROM faces WHERE person IN ('s0002', 's0003')",
    )
    [one] = run("status", "--coverage", "staff", "--json").json["coverage"]
    found = [one[name] for name in ("covered", "stale", "missing", "orphaned", "rejected", "templates")]
    assert found == [27, 1, 1, 2, 1, 30]
    # Nothing was written, and a refresh does what was told.
    refreshed = run("refresh", "staff", "--json").json["subjects"]
    assert (refreshed["written"], refreshed["removed"], refreshed["unchanged"]) == (2, 2, 27)


def test_a_source_that_is_down_does_not_hide_the_others(folder: Path, run: Run, connection: Connection) -> None:
    text = (folder / "pfstore.toml").read_text()
    lost = text[text.index("[sources.hr]") : text.index("[galleries")].replace("hr]", "lost]")
    lost = lost.replace("legacy.db", "lost.db") + '\n[galleries.lost]\nsource = "lost"\nmodel = "average"\n'
    (folder / "pfstore.toml").write_text(text.replace("[galleries", lost + "\n[galleries"))
    (folder / "lost.db").write_bytes((folder / "legacy.db").read_bytes())
    for name in ("staff", "lost"):
        assert run("refresh", name).code == 0
    (folder / "lost.db").unlink()
    said = run("status", "--coverage", "--json")
    assert said.code == 5
    assert said.err.startswith("pfstore: ")
    first, second = sorted(said.json["coverage"], key=lambda one: one["gallery"])
    assert (first["gallery"], first["covered"]) == ("lost", None)
    assert "lost.db" in first["error"]
    assert (second["covered"], second["error"]) == (30, None)
    assert len(said.json["runs"]) == 2
    told = run("status", "--coverage").out
    assert "lost: " in told
    assert run("status", "--coverage", "staff").code == 0


def test_wrong_use(folder: Path, run: Run) -> None:
    assert run("status", "--watch", "--coverage").code == 2
    assert run("status", "--watch", "0").code == 2
    said = run("status", "--coverage", "stuff")
    assert said.code == 3
    assert "did you mean staff?" in said.err
    assert run("status", "--rejects").code == 8
