import numpy as np
import pytest

from pfstore.errors import ContractError
from pfstore.gallery import galleries, models, thresholds
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.jobs.backfill import backfill
from tests.memory import MemorySource, people


def _version(connection: Connection, count: int) -> Version:
    model = models.resolve(connection, "average")
    fuser = models.load(connection, model.digest)
    backfill(connection, MemorySource(people(count)), fuser, gallery="staff", source_name="memory")
    return galleries.version(connection, "staff")


@pytest.mark.parametrize("count", [300, 3000, 300_000])
def test_no_more_than_the_target_reaches_the_threshold(count: int) -> None:
    scores = np.random.default_rng(0).normal(scale=0.2, size=count).astype(np.float32)
    found = thresholds.from_scores(scores)
    assert [one.fmr for one in found] == sorted({one.fmr for one in found}, reverse=True)
    for one in found[:-1]:
        errors = int((scores >= np.float32(one.threshold)).sum())
        assert errors == int(one.fmr * count)
        assert errors >= thresholds.LEAST_ERRORS
    assert found[-1].fmr == 3 / count
    assert not (scores >= np.float32(found[-1].threshold)).any()


def test_ties_count_as_errors() -> None:
    scores = np.array([0.5] * 400 + [0.1] * 600, dtype=np.float32)
    loosest = thresholds.from_scores(scores)[0]
    assert loosest.fmr == 0.1
    assert (scores >= loosest.threshold).sum() == 0


def test_a_backfill_leaves_thresholds(connection: Connection) -> None:
    version = _version(connection, 60)
    stored = thresholds.stored(connection, version)
    assert [round(one.fmr, 5) for one in stored] == [0.1, round(3 / 1770, 5)]
    assert stored[0].comparisons == 60 * 59 // 2
    assert thresholds.at(connection, version).fmr == pytest.approx(3 / 1770)
    assert thresholds.at(connection, version, 0.1) == stored[0]
    assert thresholds.at(connection, version, 0.05) == stored[1]
    with pytest.raises(ContractError, match="an FMR of 1e-06 needs at least 3000000 non-mated comparisons"):
        thresholds.at(connection, version, 1e-6)
    assert thresholds.fmr_of(connection, version, stored[0].threshold) == 0.1
    assert thresholds.fmr_of(connection, version, -1) is None


def test_one_subject_tells_no_threshold(connection: Connection) -> None:
    version = _version(connection, 1)
    with pytest.raises(ContractError, match="too few subjects to tell a threshold: give one with --threshold"):
        thresholds.at(connection, version)
