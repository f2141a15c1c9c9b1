"""A legacy store, its pfstore.toml, and shards so small that there are many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pfstore import config
from pfstore.config import Config
from pfstore.fusion import Fuser
from pfstore.gallery import models
from pfstore.gallery.database import Connection, Database
from pfstore.jobs import working
from pfstore.sources.sql import SqlSource
from tests.cli.conftest import CONFIG, write_legacy
from tests.jobs import workers
from tests.jobs.refreshed import SAFE
from tests.memory import people
from tests.sources.stores import blob, faces, insert, make_faces, opened

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


@pytest.fixture
def average(connection: Connection) -> Fuser:
    return models.load(connection, models.resolve(connection, "average").digest)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store of 40 people, two rows each, p00 of none that could be used."""
    url = f"sqlite:///{tmp_path / 'legacy.db'}"
    make_faces(url, extra=", changed TEXT")
    rows = [(f"p{n:02}", f"m{side}", blob(n, side + 1) if n else None) for n in range(40) for side in range(2)]
    insert(url, "faces", faces(*rows, changed="2024-05-01 00:00:00"))
    return url


@pytest.fixture
def source(url: str) -> Iterator[SqlSource]:
    with opened(url, **SAFE) as source:
        yield source
