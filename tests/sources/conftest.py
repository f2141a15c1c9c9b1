from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.sources.stores import ENGINES


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    sqlite3.connect(tmp_path / "store.db").close()
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))
