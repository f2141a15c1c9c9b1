"""Workers on the command line: a backfill by several, what failed and again, and the process that is told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

import pfstore.cli
from pfstore import config
from pfstore.cli.app import App
from pfstore.gallery import undone
from pfstore.gallery.database import Connection, Database
from pfstore.jobs import fleet, queue, working
from tests.cli.conftest import Run, process, write_legacy
from tests.jobs import workers
from tests.memory import people

SCRIPT = Path(sys.executable).with_name("pfstore")


@pytest.fixture
def _several_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "SHARD_FEATURES", 60)


def test_a_backfill_by_two(folder: Path, connection: Connection) -> None:
    done = process("backfill", "staff", "--workers", "2", "--json")
    assert done.code == 0, done.err
    document = done.json
    assert document["subjects"] == {"seen": 30, "written": 30, "unchanged": 0, "removed": 0, "rejected": 0}
    assert (document["run"], document["promoted"], document["active"], document["resumed"]) == (1, True, 1, False)
    again = process("backfill", "staff", "--workers", "1")
    assert "30 seen = 0 written + 30 unchanged" in again.out
    assert connection.execute("SELECT count(*) FROM pfstore.workers").fetchone() == (0,)


def test_a_backfill_by_two_on_the_embedded_server(folder: Path) -> None:
    toml = folder / "pfstore.toml"
    _, _, rest = toml.read_text().partition("[sources.hr]")
    toml.write_text('[database]\nurl = "embedded:pg"\n[sources.hr]' + rest)
    assert process("init").code == 0
    done = process("backfill", "staff", "--workers", "2", "--json")
    assert done.code == 0, done.err
    assert done.json["subjects"]["written"] == 30


def test_a_password_is_on_no_command_line(
    folder: Path, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of --database goes to the workers in their environment, and into no log."""
    seen: list[tuple[list[str], dict[str, str]]] = []
    popen = subprocess.Popen

    def spy(command: list[str], *rest: object, **options: object) -> object:
        seen.append((command, dict(options["env"])))  # type: ignore[call-overload]
        return popen(command, *rest, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(fleet.subprocess, "Popen", spy)  # type: ignore[attr-defined]
    url = database.uri + ("&" if "?" in database.uri else "?") + "password=hunter2"
    assert pfstore.cli.run(["backfill", "staff", "--workers", "1", "--database", url, "--quiet"], App()) == 0
    [(command, environment)] = seen
    assert "hunter2" not in " ".join(command)
    assert environment["PFSTORE_DATABASE"] == url


@pytest.mark.usefixtures("_several_shards")
def test_what_fails_is_shown_and_tried_again(folder: Path, run: Run, connection: Connection) -> None:
    planned = workers.plan(connection, config.load())
    undone.note_failure(connection, planned.run_id, 1, "SourceError: source hr: it is away")
    with queue.changing(connection):
        connection.execute("UPDATE procrastinate_jobs SET status = 'failed' WHERE args->>'shard' = '1'")
    document = run("run", "show", planned.run_id, "--json").json
    assert document["failed"][0]["error"] == "SourceError: source hr: it is away"
    assert document["jobs"]["failed"] == 1
    assert "source hr: it is away" in run("run", "show", planned.run_id).out
    assert (document["state"], document["condition"]) == ("running", "waiting")
    assert run("run", "list").out.splitlines()[1].split()[4] == "waiting"
    said = run("run", "retry", planned.run_id, "--shard", "1")
    hint = f"no worker is alive: start one with `pfstore worker --run {planned.run_id}`"
    assert said.out == f"run {planned.run_id}: 1 job queued; {hint}\n"
    assert run("worker", "--once").code == 0
    assert run("run", "show", planned.run_id, "--json").json["state"] == "done"
    assert run("run", "list").out.splitlines()[1].split()[4] == "done"
    assert run("run", "retry", planned.run_id).code == 12
    assert run("run", "cancel", planned.run_id).code == 12
    missing = run("run", "show", 99)
    assert (missing.code, missing.err) == (8, "pfstore: there is no run 99; `pfstore run list` shows those there are\n")


def test_a_run_is_cancelled(folder: Path, run: Run, connection: Connection) -> None:
    planned = workers.plan(connection, config.load())
    assert "left the queue" in run("run", "cancel", planned.run_id).out
    assert run("run", "show", planned.run_id, "--json").json["state"] == "abandoned"


def test_a_shard_that_fails_for_good_ends_the_backfill(folder: Path) -> None:
    """The workers find another mapping than the run was planned with."""
    text = (folder / "pfstore.toml").read_text()
    program = (
        "import sys; from pfstore.jobs import fleet; import pathlib, pfstore.cli\n"
        "plan = fleet.plan\n"
        "def planned(*a, **k):\n"
        "    made = plan(*a, **k); file = pathlib.Path('pfstore.toml')\n"
        "    file.write_text(file.read_text().replace('table =', 'where = \"id > 3\"\\ntable ='))\n"
        "    return made\n"
        "fleet.plan = planned\n"
        "sys.argv[1:] = ['backfill', 'staff', '--workers', '1']\n"
        "pfstore.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 12
    last = done.stderr.splitlines()[-1]
    assert last.startswith("pfstore: ")
    assert "shards of run 1 failed, the first as run 1 was planned with another mapping" in last
    assert "`pfstore run show 1` lists them" in last
    (folder / "pfstore.toml").write_text(text)
    assert process("backfill", "staff", "--workers", "1", "--json").json["resumed"] is True


def test_ctrl_c_stops_the_workers_and_empties_the_queue(folder: Path, database: Database) -> None:
    write_legacy(folder / "large.db", people(20_000))
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text().replace("legacy.db", "large.db"))
    running = subprocess.Popen([SCRIPT, "backfill", "staff", "--workers", "2"], stderr=subprocess.PIPE, text=True)
    with psycopg.connect(database.uri, autocommit=True) as connection:
        _wait_for(connection, "SELECT EXISTS (SELECT FROM pfstore_jobs.procrastinate_jobs WHERE status = 'doing')")
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=100)
        assert running.returncode == 130
        assert "`pfstore backfill staff` goes on from there" in said
        assert said.splitlines()[-1] == "pfstore: interrupted"
        assert "Traceback" not in said
        query = "SELECT count(*) FROM pfstore_jobs.procrastinate_jobs WHERE status IN ('todo', 'doing')"
        assert connection.execute(query).fetchone() == (0,)
    done = process("backfill", "staff", "--json").json
    assert done["resumed"] is True
    assert done["subjects"]["seen"] == 20_000


def _wait_for(connection: Connection, query: str) -> None:
    deadline = time.monotonic() + 60
    while connection.execute(query.encode()).fetchone() != (True,):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_worker_ends_when_told(folder: Path, database: Database) -> None:
    running = subprocess.Popen([SCRIPT, "worker"], stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    first = json.loads(running.stderr.readline())
    assert (first["level"], first["event"], first["pid"]) == ("info", "worker started", running.pid)
    with psycopg.connect(database.uri, autocommit=True) as connection:
        _wait_for(connection, "SELECT EXISTS (SELECT FROM pfstore.workers)")
    os.kill(running.pid, signal.SIGTERM)
    _, rest = running.communicate(timeout=60)
    assert running.returncode == 0
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["stopping", "worker stopped"]


def test_workers_do_not_go_with_everything(folder: Path, run: Run) -> None:
    for more in (["--dry-run"], ["--limit", "3"], ["--profile"]):
        assert run("backfill", "staff", "--workers", "2", *more).code == 2


def test_a_run_that_does_not_exist(folder: Path, run: Run) -> None:
    said = run("worker", "--run", "99")
    assert (said.code, said.err.splitlines()[-1]) == (
        8,
        "pfstore: there is no run 99; `pfstore run list` shows those there are",
    )


def test_a_wrong_device(folder: Path, run: Run) -> None:
    assert run("worker", "--once", "--device", "gpu").code == 3
