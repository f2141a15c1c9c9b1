from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from pfstore import config
from pfstore.cli.init import TEMPLATE
from pfstore.gallery import schema
from tests.cli.conftest import Run, process


def test_it_writes_a_configuration_and_makes_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, embedded_uri: str
) -> None:
    monkeypatch.chdir(tmp_path)
    first = run("--database", embedded_uri, "init", "--json")
    assert first.json["written"] is True
    assert first.json["schema"] == schema.latest()
    written = (tmp_path / "pfstore.toml").read_text()
    again = run("--database", embedded_uri, "init", "--json")
    assert again.json["written"] is False
    assert (tmp_path / "pfstore.toml").read_text() == written
    assert run("--database", embedded_uri, "db", "check").code == 0
    assert run("--database", embedded_uri, "db", "status", "--json").json["current"] is True


def test_a_password_on_the_command_line_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, embedded_uri: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with_password = embedded_uri.replace("postgres:@", "postgres:hunter2@")
    assert "hunter2" in with_password
    result = run("--database", with_password, "init")
    assert result.code == 0
    written = (tmp_path / "pfstore.toml").read_text()
    assert "hunter2" not in written + result.out + result.err
    assert "postgres:${PFSTORE_PASSWORD}@" in written
    # What was written leads to the same database.
    monkeypatch.setenv("PFSTORE_PASSWORD", "hunter2")
    assert run("db", "check").code == 0


def test_a_folder_that_is_not_there(tmp_path: Path, run: Run, embedded_uri: str) -> None:
    result = run("--database", embedded_uri, "--config", tmp_path / "nowhere" / "x.toml", "init")
    assert result.code == 3
    assert "cannot be written" in result.err


def test_its_examples_are_valid(tmp_path: Path) -> None:
    lines = (line.removeprefix("# ") if line.startswith("# ") else line for line in TEMPLATE.splitlines()[3:])
    words = ("A database", "A system", "Files:", "`pfstore worker`")
    text = "\n".join(line for line in lines if not line.startswith(words))
    assert set(tomllib.loads(text)) == {"database", "sources", "galleries", "schedules"}
    (tmp_path / "pfstore.toml").write_text(text)
    loaded = config.load(tmp_path / "pfstore.toml", {"HR_PASSWORD": "x", "IMMICH_PASSWORD": "x"})
    assert loaded.source("photos").preset == "immich"
    assert loaded.gallery("staff").source == "hr"


@pytest.mark.slow
def test_an_embedded_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = process("--database", "embedded:server", "init")
    assert result.code == 0, result.err
    assert 'url = "embedded:server"' in (tmp_path / "pfstore.toml").read_text()
    assert (tmp_path / "server" / "PG_VERSION").exists()
    assert process("status").code == 0
    # The server is gone with the process that started it.
    assert not (tmp_path / "server" / "postmaster.pid").exists()


@pytest.mark.slow
def test_a_killed_process_does_not_keep_the_server_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert process("--database", "embedded:server", "init").code == 0
    program = "from pfstore.gallery import embedded; embedded.start(__import__('pathlib').Path('server')); input()"
    killed = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (tmp_path / "server" / "postmaster.pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    killed.kill()
    killed.communicate()
    assert process("status").code == 0
    assert not (tmp_path / "server" / "postmaster.pid").exists()
