"""`pfstore search` in pipes, and that no search outlives it: interrupts, deadlines, kills, stopped servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pytest

from pfstore.gallery.database import Connection, Database
from tests.cli.conftest import Run
from tests.memory import people

SCRIPT = Path(sys.executable).with_name("pfstore")
SETS = {name: np.concatenate(list(media.values())) for name, media in people(30).items()}


def _line(subject: str) -> str:
    return json.dumps({"id": subject, "features": SETS[subject].tolist()}) + "\n"


@contextmanager
def _searching(*options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a search of probes on standard input, and kill what is left of it."""
    command = [str(SCRIPT), "search", "staff", "--probes", "-", "--jsonl", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1) as started:
        try:
            yield started
        finally:
            started.kill()


def _ask(started: subprocess.Popen[str], subject: str) -> str:
    """Send one probe and wait for its answer: the best candidate."""
    assert started.stdin
    assert started.stdout
    started.stdin.write(_line(subject))
    started.stdin.flush()
    answer = json.loads(started.stdout.readline())
    assert answer["id"] == subject
    return str(answer["candidates"][0]["subject"])


def _backend(observer: Connection) -> int:
    """Return the server's process of the one search there is."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    [(backend,)] = observer.execute(query).fetchall()
    return int(backend)


def _wait(observer: Connection, backend: int, *, active: bool, within: float = 10) -> None:
    """Wait until a backend runs a statement, or until it runs none."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
    until = time.monotonic() + within
    while time.monotonic() < until:
        observer.execute("SELECT pg_stat_clear_snapshot()")
        if observer.execute(query, (backend,)).fetchone() == (int(active),):
            return
        time.sleep(0.05)
    pytest.fail(f"backend {backend} {'is not' if active else 'is still'} at work after {within} s")


@pytest.fixture
def filled(folder: Path, run: Run) -> Path:
    run("backfill", "staff")
    return folder


@contextmanager
def _locked(database: Database) -> Iterator[Connection]:
    with psycopg.connect(database.uri) as other:
        yield other
        other.rollback()


def test_each_probe_is_answered_as_it_comes(filled: Path) -> None:
    with _searching("--top", "1") as started:
        for subject in ("s0003", "s0011", "s0020"):
            assert _ask(started, subject) == subject
        out, err = started.communicate()
        assert (started.returncode, out, err) == (0, "", "")


def test_a_consumer_that_leaves(filled: Path) -> None:
    producer = f"{sys.executable} -c 'import sys; sys.stdout.write(open(\"many.jsonl\").read())'"
    (filled / "many.jsonl").write_text(_line("s0003") * 3000)
    command = f"set -o pipefail; {producer} 2>producer.txt | {SCRIPT} search staff --probes - --jsonl | head -1"
    for one in (command, f"{SCRIPT} search staff --source hr --jsonl | (read -r line; echo $line)"):
        done = subprocess.run(["bash", "-c", one], capture_output=True, text=True, check=False)
        assert json.loads(done.stdout)["id"] in SETS
        assert done.stderr == ""


def test_a_stopped_server(filled: Path, database: Database) -> None:
    with _searching("--deadline", "0.5") as started, psycopg.connect(database.uri, autocommit=True) as observer:
        assert _ask(started, "s0003") == "s0003"
        backend = _backend(observer)
        os.kill(backend, signal.SIGSTOP)
        try:
            before = time.monotonic()
            out, err = started.communicate(_line("s0004"), timeout=20)
            assert time.monotonic() - before < 4
        finally:
            os.kill(backend, signal.SIGCONT)
        assert (started.returncode, out) == (13, "")
        assert err == "pfstore: probe 's0004': the gallery database gave no answer within 0.5 s\n"
        _wait(observer, backend, active=False)


@pytest.mark.parametrize(
    ("how", "options", "code"),
    [
        (signal.SIGINT, [], 130),
        (signal.SIGINT, ["--deadline", "60"], 130),
        (signal.SIGTERM, [], 143),
        (signal.SIGKILL, [], -9),
    ],
    ids=["interrupt", "interrupt within a deadline", "terminate", "kill"],
)
def test_no_search_outlives_its_client(
    filled: Path, database: Database, how: signal.Signals, options: list[str], code: int
) -> None:
    with _searching(*options) as started, _locked(database) as other:
        assert _ask(started, "s0003") == "s0003"
        backend = _backend(other)
        other.execute("LOCK TABLE pfstore.templates_v1 IN ACCESS EXCLUSIVE MODE")
        assert started.stdin
        started.stdin.write(_line("s0004") * 5)
        started.stdin.flush()
        _wait(other, backend, active=True)
        started.send_signal(how)
        _, err = started.communicate(timeout=10)
        _wait(other, backend, active=False, within=4)
    assert started.returncode == code
    assert err.strip() == ("pfstore: interrupted" if how == signal.SIGINT else "")
