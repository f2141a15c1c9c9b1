"""The installed script as a process of its own: environment, pipes, signals, start-up time, what it imports."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest

from pfstore.gallery.database import Database
from tests.cli.conftest import process, write_legacy, write_probe
from tests.memory import people

SCRIPT = Path(sys.executable).with_name("pfstore")


def test_help_is_quick() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(5):
        assert process("--help").code == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 5
    # A bound of 0.4 s is promised; the test is of what is imported, so it allows for a slow machine.
    assert cpu < 1.2


@pytest.mark.parametrize("heavy", ["torch", "numpy", "sqlalchemy", "h5py", "pydantic", "alembic", "psycopg", "rich"])
def test_help_imports_nothing_heavy(heavy: str) -> None:
    code = f"import sys, pfstore.cli; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", [[str(SCRIPT)], [sys.executable, "-m", "pfstore"], [sys.executable, "cli.py"]])
def test_every_way_to_start_it(command: list[str]) -> None:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, cwd=_checkout())
    assert done.stdout.startswith("pfstore, version ")


def _checkout() -> Path:
    return Path(__file__).parents[2]


def test_the_environment_gives_options(folder: Path) -> None:
    (folder / "pfstore.toml").rename(folder / "elsewhere.toml")
    environment = {"PFSTORE_CONFIG": "elsewhere.toml", "PFSTORE_BACKFILL_LIMIT": "4", "PFSTORE_JSON": "1"}
    assert process("backfill", "staff", **environment).json["subjects"]["seen"] == 4


def test_a_reader_that_stops_early(folder: Path) -> None:
    process("backfill", "staff")
    probes = write_probe(folder / "many.npz", {str(i): np.ones((1, 8), np.float32) for i in range(3000)})
    command = f"set -o pipefail; {SCRIPT} search staff --probes {probes} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("probe")
    assert done.stderr == ""


def test_ctrl_c_keeps_what_is_done(folder: Path, database: Database) -> None:
    write_legacy(folder / "large.db", people(30_000))
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text().replace("legacy.db", "large.db"))
    running = subprocess.Popen([SCRIPT, "backfill", "staff"], stderr=subprocess.PIPE, text=True)
    _wait_for_templates(database.uri)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "`pfstore backfill staff` goes on from there" in said
    assert said.splitlines()[-1] == "pfstore: interrupted"
    assert "Traceback" not in said
    done = process("backfill", "staff", "--json").json
    assert done["resumed"] is True
    assert done["subjects"]["seen"] == 30_000


def _wait_for_templates(uri: str) -> None:
    deadline = time.monotonic() + 60
    with psycopg.connect(uri, autocommit=True) as connection:
        while time.monotonic() < deadline:
            if connection.execute("SELECT EXISTS (SELECT FROM pfstore.templates)").fetchone() == (True,):
                return
            time.sleep(0.01)
    pytest.fail("no template within a minute")
