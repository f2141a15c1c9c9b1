"""SQLite's statements end when their time is over or Ctrl-C strikes, which SQLite itself would not see to."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pfstore.errors import SourceError
from pfstore.sources.inspection import inspect, inspecting
from tests.sources.stores import V, execute, faces, insert, make_faces, opened

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS person, x AS vec FROM n"


def test_a_statement_ends_when_its_time_is_over(sqlite_url: str) -> None:
    make_faces(sqlite_url)
    endless = f"{ENDLESS} WHERE x < 0"
    with (
        opened(sqlite_url, table=None, query=endless, medium=(), statement_timeout=0.2) as source,
        pytest.raises(SourceError, match=r"a statement took more than 0\.2 s"),
    ):
        list(source.shards(10))


def test_time_between_statements_does_not_count(sqlite_url: str) -> None:
    make_faces(sqlite_url)
    insert(sqlite_url, "faces", faces(("anna", "1", V)))
    with opened(sqlite_url, statement_timeout=0.2) as source:
        for _ in range(2):
            time.sleep(0.3)
            assert source.sample().read == 1


def test_an_inspection_goes_on_after_an_endless_view(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "TIMEOUT", 0.3)
    execute(sqlite_url, f"CREATE VIEW endless AS {ENDLESS} WHERE x < 0", "CREATE TABLE other (id INTEGER)")
    found = inspect(sqlite_url)
    assert found.tables == 2
    assert "a statement took more than 0.3 s" in found.unread["endless"]


def test_ctrl_c_ends_an_endless_statement(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute(f"CREATE VIEW endless AS {ENDLESS} WHERE x < 0")
    script = Path(sys.executable).with_name("pfstore")
    started = subprocess.Popen(
        [script, "source", "inspect", "x.db"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(3)
    assert started.poll() is None
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert said.strip() == "pfstore: interrupted"
