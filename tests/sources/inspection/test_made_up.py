"""Inspection of databases with names that tell nothing: everything is told by content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from pfstore.config import SourceConfig
from pfstore.features import Floats
from pfstore.sources import open_source
from pfstore.sources.inspection import Finding, Inspection, inspect, propose
from pfstore.sources.inspection.attributes import Attribute
from tests.sources.inspection.made_up import SCHEMAS, People, Truth, people, shop
from tests.sources.stores import ENGINES

DIALECTS = {"sqlite_url": "sqlite", "mariadb_url": "mysql", "postgres15_url": "postgresql"}

# Each schema on each engine that has its types.
everywhere = pytest.mark.parametrize(
    ("fixture", "name"),
    [
        pytest.param(engine.values[0], name, marks=engine.marks, id=f"{engine.id}-{name}")
        for engine in ENGINES
        for name, schema in SCHEMAS.items()
        if DIALECTS[str(engine.values[0])] in schema.dialects
    ],
)


def made(url: str, name: str, known: People) -> Truth:
    """Make a schema of these people in an empty database."""
    return SCHEMAS[name].create(sa.create_engine(url, poolclass=sa.NullPool), known)


def place(attribute: Attribute | None, finding: Finding) -> str | None:
    """Return a column as Truth names it."""
    if attribute is None:
        return None
    table = attribute.table.name
    return attribute.column if table == finding.table.name else f"{table}.{attribute.column}"


def subject_of(finding: Finding) -> tuple[str, tuple[str, ...]] | None:
    if finding.subject is None:
        return None
    return finding.subject.columns[0].table.name, tuple(one.column for one in finding.subject.columns)


@everywhere
def test_everything_is_found_in(request: pytest.FixtureRequest, fixture: str, name: str) -> None:
    url = str(request.getfixturevalue(fixture))
    truth = made(url, name, people())
    best = inspect(url).findings[0]
    assert (best.table.name, best.column) == (truth.table, truth.column)
    assert (best.reading.encoding, best.reading.dimension) == (truth.encoding, truth.dimension)
    assert subject_of(best) in (truth.subject, *truth.also)
    assert place(best.medium, best) == truth.medium
    assert place(best.model, best) == truth.model
    assert (best.quality and best.quality.attribute.column) == truth.quality
    if truth.changed:
        assert truth.changed in [one.column for one in best.changes]
    if truth.deleted:
        assert truth.deleted in [place(one.attribute, best) for one in best.deletions]


@everywhere
def test_the_mapping_reads_what_was_put_in(request: pytest.FixtureRequest, fixture: str, name: str) -> None:
    url, known = str(request.getfixturevalue(fixture)), people()
    truth = made(url, name, known)
    found = inspect(url)
    mapping = propose(found.findings[0], found.quote).as_dict()
    config = SourceConfig.model_validate({"url": url, "dimension": truth.dimension, **mapping})
    with open_source(config, "legacy", Path()) as source:
        read = [
            batch.features
            for shard in source.shards(100)
            for batch in source.read(shard.range, dimension=truth.dimension, features=1000)
        ]
    rows = np.concatenate([batch.features for batch in read])
    # Rows without a subject or a feature were planted: a few of them.
    assert 0.8 * len(known) <= len(rows) <= len(known)
    assert len({subject for batch in read for subject in batch.subject_ids}) == len(np.unique(known.subject))
    _assert_among(rows, known.features[:, : truth.dimension])


def _assert_among(rows: Floats, features: Floats) -> None:
    """Check that every row is, within half precision, the direction of one of the features."""
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (rows, features)]
    assert (units[0] @ units[1].T).max(axis=1).min() > 0.9999


def test_a_shop_has_no_features(url: str) -> None:
    shop(sa.create_engine(url, poolclass=sa.NullPool))
    found = inspect(url)
    assert found.findings == []
    assert found.tables == 6
    assert not found.unread
    assert any(column.endswith("stock.c3") for column in found.rejected)


def hits(found: Inspection, truth: Truth) -> bool:
    """Tell whether column, encoding, dimension and subject are right."""
    best = found.findings[0]
    feature = (best.table.name, best.column, best.reading.encoding, best.reading.dimension)
    subject = subject_of(best)
    possible = {(table, frozenset(columns)) for table, columns in (truth.subject, *truth.also)}
    is_right = subject is not None and (subject[0], frozenset(subject[1])) in possible
    return is_right and feature == (truth.table, truth.column, truth.encoding, truth.dimension)


@pytest.mark.parametrize("subjects", [12, 100])
@pytest.mark.parametrize("name", [name for name, schema in SCHEMAS.items() if "sqlite" in schema.dialects])
def test_few_and_many_people_are_found_as_well(sqlite_url: str, name: str, subjects: int) -> None:
    truth = made(sqlite_url, name, people(subjects=subjects, seed=subjects))
    assert hits(inspect(sqlite_url), truth)
