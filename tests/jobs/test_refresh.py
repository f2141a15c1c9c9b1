"""A refresh leaves a gallery as a backfill from scratch would, whatever happened to the source meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from pfstore.config import SourceConfig
from pfstore.fusion import Fuser
from pfstore.gallery import galleries, models
from pfstore.gallery.database import Connection
from pfstore.jobs.backfill import backfill
from pfstore.jobs.fusing import ShardFuser
from pfstore.jobs.refresh import refresh
from pfstore.sources.sql import SqlSource

ROUNDS, PEOPLE, DIMENSION = 200, 24, 8

Stored = dict[str, tuple[Any, ...]]


@dataclass
class Store:
    """A legacy store that changes at random; times of its clock lie in the past and may go backwards."""

    url: str
    bumps: Callable[[np.random.Generator], bool] = field(default=lambda _: True)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        """Make the table and fill it."""
        self.engine = sa.create_engine(self.url)
        self.table = sa.Table(
            "faces",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("person", sa.String(50), index=True),
            sa.Column("image", sa.String(50)),
            sa.Column("vec", sa.LargeBinary),
            sa.Column("deleted", sa.Integer, nullable=False),
            sa.Column("changed", sa.DateTime),
        )
        with self.engine.begin() as self.connection:
            self.table.create(self.connection)
            for number in range(PEOPLE):
                self.insert(f"p{number}")

    def close(self) -> None:
        self.engine.dispose()

    def insert(self, person: str) -> None:
        """Add one to four rows of a person; some cannot be used."""
        rows = [
            {
                "person": person,
                "image": f"m{self.random.integers(3)}",
                "vec": self._vector(),
                "deleted": 0,
                "changed": self._time(),
            }
            for _ in range(self.random.integers(1, 5))
        ]
        self._run(self.table.insert(), rows)

    def mutate(self) -> None:
        """Do one to five of the things that happen to a store, or nothing."""
        kinds: list[Callable[[], None]] = [
            self._new, self._more, self._edit, self._edit, self._remove_row, self._remove_person, self._relabel,
            self._relabel, self._soft_delete, self._merge, self._swap, self._nothing,
        ]  # fmt: skip
        with self.engine.begin() as self.connection:
            people = self.connection.execute(sa.select(sa.func.count(self.table.c.person.distinct()))).scalar_one()
            for _ in range(PEOPLE // 2 - people):
                self._new()
            for _ in range(self.random.integers(1, 6)):
                kinds[self.random.integers(len(kinds))]()

    def _nothing(self) -> None:
        pass

    def _new(self) -> None:
        self.insert(f"p{self.random.integers(PEOPLE, 3 * PEOPLE)}")

    def _more(self) -> None:
        if row := self._row():
            self.insert(row.person)

    def _edit(self) -> None:
        if row := self._row():
            values: dict[str, Any] = {"vec": self._vector()}
            if self.bumps(self.random):
                values["changed"] = self._time(row.changed)
            self._update(row.id, values)

    def _relabel(self) -> None:
        """Move a row to another person, without a trace in its time, as PhotoPrism does."""
        row, other = self._row(), self._row()
        if row and other:
            self._update(row.id, {"person": other.person})

    def _swap(self) -> None:
        row, other = self._row(), self._row()
        if row and other:
            self._update(row.id, {"person": other.person})
            self._update(other.id, {"person": row.person})

    def _soft_delete(self) -> None:
        if row := self._row():
            self._update(row.id, {"deleted": 1 - row.deleted})

    def _merge(self) -> None:
        row, other = self._row(), self._row()
        if row and other:
            self._run(self.table.update().where(self.table.c.person == row.person).values(person=other.person))

    def _remove_row(self) -> None:
        if row := self._row():
            self._run(self.table.delete().where(self.table.c.id == row.id))

    def _remove_person(self) -> None:
        if row := self._row():
            self._run(self.table.delete().where(self.table.c.person == row.person))

    def _row(self) -> Any:
        rows = self.connection.execute(self.table.select().order_by(self.table.c.id)).all()
        return rows[int(self.random.integers(len(rows)))] if rows else None

    def _update(self, number: int, values: dict[str, Any]) -> None:
        self._run(self.table.update().where(self.table.c.id == number).values(**values))

    def _run(self, statement: Any, rows: Any = None) -> None:
        self.connection.execute(statement, rows)

    def _vector(self) -> bytes | None:
        kind = self.random.integers(12)
        if kind == 0:
            return None
        scale = 0.0 if kind == 1 else 1.0
        return (scale * self.random.normal(size=DIMENSION)).astype("<f4").tobytes()

    def _time(self, other_than: datetime | None = None) -> datetime:
        """Return a time of few that there are, so that many rows bear the same one."""
        while True:
            time = datetime(2024, 5, 1) + timedelta(seconds=int(self.random.integers(50)))
            if time != other_than:
                return time


def _config(url: str, **more: Any) -> SourceConfig:
    named = {} if "query" in more else {"table": "faces"}
    return SourceConfig(
        url=url,
        subject="person",
        medium="image",
        feature={"column": "vec", "encoding": "float32-le"},
        where="deleted = 0",
        extractor="test-extractor",
        **named,
        **more,
    )


QUERY = {"query": "SELECT id, person, image, vec, deleted, changed FROM faces", "row": "id"}
SAFE = {"changed": {"column": "changed", "safe": True}}


def _never(_: np.random.Generator) -> bool:
    return False


@pytest.fixture(
    params=[
        ("sqlite", SAFE, "change mark"),
        ("sqlite", {"changed": "changed"}, "content"),
        ("sqlite", {}, "content"),
        ("mariadb", SAFE, "change mark"),
        ("mariadb", {"changed": "changed"}, "content"),
        ("mariadb", {}, "content"),
        ("postgres15", QUERY | SAFE, "change mark"),
        ("postgres15", QUERY | {"changed": "changed"}, "content"),
        ("postgres15", {}, "row versions"),
    ],
    ids=lambda given: f"{given[0]} by {given[2]}{'' if given[1].keys() - QUERY.keys() else ' without a mark'}",
)
def mapped(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A store of each kind, a mapping of it, and by what it tells changes."""
    engine, mapping, basis = request.param
    url = f"sqlite:///{tmp_path / 'legacy.db'}" if engine == "sqlite" else request.getfixturevalue(f"{engine}_url")
    # Where the mark is not said to be safe, it is not: an edit never touches it.
    store = Store(url) if mapping.get("changed") == SAFE["changed"] else Store(url, _never)
    yield store, _config(url, **mapping), basis
    store.close()


def _stored(connection: Connection, gallery: str) -> Stored:
    rows = connection.execute(
        "SELECT subject_id, template::text, t.features, media, fingerprint FROM pfstore.templates t"
        " JOIN pfstore.versions USING (version_id) JOIN pfstore.galleries USING (gallery_id) WHERE name = %s",
        (gallery,),
    ).fetchall()
    return {row[0]: (np.array(row[1].strip("[]").split(","), np.float64), *row[2:]) for row in rows}


def _from_scratch(source: SqlSource, fuser: Fuser) -> Stored:
    """Return what a backfill would write, without writing it."""
    made: Stored = {}
    for shard in source.shards(10_000):
        for batch in source.read(shard.range, dimension=DIMENSION, features=10_000):
            fused = ShardFuser(fuser, "media").fuse(batch, batch.features.fingerprints(), {}).templates
            counts = zip(fused.features.tolist(), fused.media.tolist(), fused.fingerprints, strict=True)
            made |= {
                subject: (template, *count)
                for subject, template, count in zip(fused.subject_ids, fused.templates, counts, strict=True)
            }
    return made


def _assert_same(stored: Stored, expected: Stored) -> None:
    assert {subject: told[1:] for subject, told in stored.items()} == {
        subject: told[1:] for subject, told in expected.items()
    }
    for subject, (template, *_) in expected.items():
        np.testing.assert_allclose(stored[subject][0], template, atol=1e-3)


@pytest.mark.slow
def test_a_store_that_changes_at_random(mapped: Any, connection: Connection) -> None:
    store, config, basis = mapped
    fuser = models.load(connection, models.resolve(connection, "average").digest)
    names = {"source_name": "hr", "mapping": config.identity}
    few_read = 0
    with SqlSource(config, "hr") as source:
        assert source.marks_by == basis
        backfill(connection, source, fuser, gallery="staff", **names)
        version = galleries.version(connection, "staff")
        for _ in range(ROUNDS):
            store.mutate()
            found = refresh(connection, source, fuser, version, removals=1, **names)
            _assert_same(_stored(connection, "staff"), _from_scratch(source, fuser))
            few_read += not found.whole
        assert few_read > ROUNDS / 2
        backfill(connection, source, fuser, gallery="other", **names)
        _assert_same(_stored(connection, "staff"), _stored(connection, "other"))
        again = refresh(connection, source, fuser, version, **names)
        assert (again.counts.read, again.counts.written, again.counts.removed) == (0, 0, 0)
