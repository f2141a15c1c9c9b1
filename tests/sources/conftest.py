from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.sources.lookalikes.base import Lookalike, People
from tests.sources.stores import ENGINES


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    sqlite3.connect(tmp_path / "store.db").close()
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def people() -> People:
    return People.load()


@pytest.fixture
def lookalike(request: pytest.FixtureRequest) -> Lookalike:
    found: Lookalike = request.param
    return found


@pytest.fixture
def empty_url(lookalike: Lookalike, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of the engine that the look-alike is for."""
    if lookalike.engine == "sqlite":
        return f"sqlite:///{tmp_path / 'legacy.db'}"
    if lookalike.engine == "mysql":
        return str(request.getfixturevalue("mariadb_url"))
    # The PostgreSQL 15 that plays a legacy server may lack pgvector.
    return str(request.getfixturevalue("embedded_url" if lookalike.needs_pgvector else "postgres15_url"))


@pytest.fixture
def engine(empty_url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(empty_url, poolclass=sa.NullPool)
    yield made
    made.dispose()


@pytest.fixture
def store_url(lookalike: Lookalike, engine: sa.Engine, people: People) -> str:
    """The URL of the filled store."""
    lookalike.create(engine, people.cut(lookalike.dimension))
    return engine.url.render_as_string(hide_password=False)
