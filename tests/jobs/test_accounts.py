"""Whatever a legacy store holds: features read = fused + rejected, each reject with its key and reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from pfstore.config import FeatureColumn, SourceConfig
from pfstore.gallery import models, runs
from pfstore.gallery.database import Connection
from pfstore.jobs.backfill import backfill
from pfstore.jobs.summary import Summary
from pfstore.sources import open_source

DIMENSION = 16
GOOD = np.linspace(1, 2, DIMENSION)
HUGE = 100_000

BAD_VALUES = {
    "nan": np.where(np.arange(DIMENSION) == 3, np.nan, GOOD),
    "inf": np.where(np.arange(DIMENSION) == 3, np.inf, GOOD),
    "zero": np.zeros(DIMENSION),
    "short": GOOD[:-1],
}
EXPECTED_OF_VALUES = {"non-finite": 2, "zero norm": 1, "wrong dimension": 1}


def _fill(url: str, column: str, good: Any, bad: list[Any]) -> int:
    """Store ten good subjects with all bad rows among them, one of bad rows only, NULLs; return the rows."""
    rows = [{"person": f"p{i % 10}", "vec": good} for i in range(40)]
    rows += [{"person": f"p{i % 10}", "vec": value} for i, value in enumerate(bad)]
    rows += [{"person": "all-bad", "vec": value} for value in bad]
    rows += [{"person": None, "vec": good}, {"person": "", "vec": good}, {"person": None, "vec": None}]
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE faces (id INTEGER PRIMARY KEY, person VARCHAR(50), vec {column})"))
        numbered = [{"id": i, **row} for i, row in enumerate(rows)]
        connection.execute(sa.text("INSERT INTO faces VALUES (:id, :person, :vec)"), numbered)
    engine.dispose()
    return len(rows)


def _backfill(connection: Connection, url: str, encoding: str) -> Summary:
    config = SourceConfig(
        url=url,
        table="faces",
        subject="person",
        feature=FeatureColumn(column="vec", encoding=encoding),
        extractor="e",
        dimension=DIMENSION,
    )
    average = models.load(connection, models.resolve(connection, "average").digest)
    with open_source(config, "s", Path()) as source:
        return backfill(connection, source, average, gallery="g", source_name="s")


def _check(connection: Connection, summary: Summary, rows: int, of_rows: dict[str, int], subjects: int = 10) -> None:
    counts = summary.counts
    assert counts.read == rows
    assert counts.read == counts.fused + counts.rejected
    # Each bad row is there twice: among good ones and in the subject that has no other.
    expected = {reason: 2 * count for reason, count in of_rows.items()} | {"no subject": 3}
    assert summary.rejects == expected
    assert (counts.seen, counts.written, counts.subjects_rejected) == (subjects + 1, subjects, 1)
    assert summary.run is not None
    kept = runs.rejects(connection, summary.run)
    assert Counter(one["reason"] for one in kept) == expected
    assert len({one["row"] for one in kept}) == len(kept)
    assert {one["subject"] for one in kept} >= {None, "all-bad"}
    stored = connection.execute("SELECT count(*), sum(features) FROM pfstore.templates").fetchone()
    assert stored == (subjects, counts.fused)


def test_blobs_in_sqlite_with_one_huge_subject(connection: Connection, tmp_path: Path) -> None:
    good = GOOD.astype("<f4").tobytes()
    bad = [value.astype("<f4").tobytes() for value in BAD_VALUES.values()]
    url = f"sqlite:///{tmp_path / 'legacy.db'}"
    rows = _fill(url, "BLOB", good, [*bad, good[:-3], b"", None])
    engine = sa.create_engine(url)
    with engine.begin() as legacy:
        many = [{"id": 1000 + i, "person": "huge", "vec": good} for i in range(HUGE)]
        legacy.execute(sa.text("INSERT INTO faces VALUES (:id, :person, :vec)"), many)
    engine.dispose()
    summary = _backfill(connection, url, "float32-le")
    reasons = EXPECTED_OF_VALUES | {"undecodable": 1, "empty": 2}
    _check(connection, summary, rows + HUGE, reasons, subjects=11)
    row = connection.execute("SELECT features FROM pfstore.templates WHERE subject_id = 'huge'").fetchone()
    assert row == (HUGE,)


@pytest.mark.mariadb
def test_json_text_in_mariadb(connection: Connection, mariadb_url: str) -> None:
    finite = [json.dumps(BAD_VALUES[name].tolist()) for name in ("zero", "short")]
    bad = [*finite, "not json", '{"a": 1}', "", "[]", None, json.dumps(BAD_VALUES["nan"].tolist())]
    rows = _fill(mariadb_url, "LONGTEXT", json.dumps(GOOD.tolist()), bad)
    summary = _backfill(connection, mariadb_url, "json")
    undecodable_or_not_finite = sum(summary.rejects.get(reason, 0) for reason in ("undecodable", "non-finite"))
    assert undecodable_or_not_finite == 6
    fixed = {reason: count // 2 for reason, count in summary.rejects.items() if reason != "no subject"}
    assert fixed["zero norm"] == fixed["wrong dimension"] == 1
    assert fixed["empty"] == 3
    _check(connection, summary, rows, fixed)


@pytest.mark.postgres15
def test_arrays_in_postgresql(connection: Connection, postgres15_url: str) -> None:
    bad = [value.tolist() for value in BAD_VALUES.values()]
    rows = _fill(postgres15_url, "float8[]", GOOD.tolist(), [*bad, [], None])
    summary = _backfill(connection, postgres15_url, "array")
    _check(connection, summary, rows, EXPECTED_OF_VALUES | {"empty": 2})


def test_a_key_that_cannot_be_indexed(connection: Connection, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'legacy.db'}"
    rows = _fill(url, "BLOB", GOOD.astype("<f4").tobytes(), [])
    long = "".join(np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), 5000))
    engine = sa.create_engine(url)
    with engine.begin() as legacy:
        one = {"id": 1000, "person": long, "vec": GOOD.astype("<f4").tobytes()}
        legacy.execute(sa.text("INSERT INTO faces VALUES (:id, :person, :vec)"), one)
    engine.dispose()
    summary = _backfill(connection, url, "float32-le")
    assert summary.rejects == {"no subject": 3, "key too long": 1}
    assert summary.counts.read == rows + 1
    assert (summary.counts.written, summary.counts.subjects_rejected) == (10, 1)
