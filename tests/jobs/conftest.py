"""A legacy store, its pfstore.toml, and shards so small that there are many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pfstore import config
from pfstore.config import Config
from pfstore.gallery.database import Database
from pfstore.jobs import working
from tests.cli.conftest import CONFIG, write_legacy
from tests.jobs import workers
from tests.memory import people

SCHEDULE = '\n[schedules.nightly]\ngallery = "staff"\ncron = "0 3 * * *"\n'


@pytest.fixture(scope="session")
def hire() -> Iterator[workers.Hire]:
    """Hires worker processes, which are killed in the end."""
    with workers.hiring() as hire:
        yield hire


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of a few subjects."""
    monkeypatch.setattr(working, "SHARD_FEATURES", workers.SHARD_FEATURES)
    monkeypatch.setattr(working, "BATCH_FEATURES", workers.BATCH_FEATURES)


@pytest.fixture
def store(small_shards: None, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A pfstore.toml with a legacy store of 40 people, a gallery of it, and a schedule; its folder is the cwd."""
    monkeypatch.chdir(tmp_path)
    write_legacy(tmp_path / "legacy.db", people(40))
    (tmp_path / "pfstore.toml").write_text(CONFIG.format(url=database.uri) + SCHEDULE)
    return config.load()
