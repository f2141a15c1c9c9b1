import numpy as np
import pytest

from pfstore.errors import ContractError, NotFoundError
from pfstore.features import Floats, offsets_of
from pfstore.fusion import load_model, random_model
from pfstore.gallery import galleries, indexing, models, searching
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.jobs.backfill import backfill
from tests.memory import MemorySource, batch_of, people

PEOPLE = people(60)


@pytest.fixture
def version(connection: Connection) -> Version:
    model = models.resolve(connection, "average")
    fuser = models.load(connection, model.digest)
    backfill(connection, MemorySource(PEOPLE), fuser, gallery="staff", source_name="memory")
    return galleries.version(connection, "staff")


def _expected() -> Floats:
    batch = batch_of(PEOPLE)
    fuser = load_model("average")
    templates: Floats = fuser.templates_media(batch.features, batch.media_offsets, batch.subject_offsets)
    return templates


def _probes(count: int, seed: int = 5) -> Floats:
    probes: Floats = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    return probes


def test_search_is_numpys_exhaustive_search(connection: Connection, version: Version) -> None:
    probes = _probes(70)
    scores = probes @ _expected().T
    found = list(searching.search(connection, version, probes, top=5))
    for row, candidates in zip(scores, found, strict=True):
        best = np.argsort(-row)[:5]
        assert [one.subject for one in candidates] == [list(PEOPLE)[i] for i in best]
        np.testing.assert_allclose([one.score for one in candidates], row[best], atol=1e-3)
        assert [one.rank for one in candidates] == [1, 2, 3, 4, 5]


def test_a_threshold_cuts_the_list(connection: Connection, version: Version) -> None:
    [candidates] = searching.search(connection, version, _probes(1), top=60, threshold=0.3)
    assert 0 < len(candidates) < 60
    assert all(one.score >= 0.3 for one in candidates)
    [everyone] = searching.search(connection, version, _probes(1), top=100)
    assert len(everyone) == 60


def test_an_index_serves_and_exact_goes_round_it(connection: Connection, version: Version) -> None:
    probes = _probes(20)
    exact = list(searching.search(connection, version, probes, top=3))
    indexing.build(connection, version)
    version = galleries.version(connection, "staff")
    assert list(searching.search(connection, version, probes, top=3, exact=True)) == exact
    indexed = list(searching.search(connection, version, probes, top=3))
    assert [[one.subject for one in line] for line in indexed] == [[one.subject for one in line] for line in exact]


def test_equal_scores_come_in_the_same_order(connection: Connection) -> None:
    same = np.ones((1, 8), np.float32)
    model = models.resolve(connection, "average")
    source = MemorySource({name: {"m": same} for name in ("b", "c", "a", "B")})
    backfill(connection, source, models.load(connection, model.digest), gallery="twins", source_name="memory")
    [found] = searching.search(connection, galleries.version(connection, "twins"), same / np.sqrt(8), top=4)
    assert [one.subject for one in found] == ["B", "a", "b", "c"]


def test_verify_is_the_cosine(connection: Connection, version: Version) -> None:
    probe = _probes(1)[0]
    score = searching.verify(connection, version, "s0007", probe)
    assert score == pytest.approx(float(probe @ _expected()[7]), abs=1e-3)


def test_an_unknown_subject(connection: Connection, version: Version) -> None:
    with pytest.raises(NotFoundError, match="'staff' has no template of subject 'nobody'"):
        searching.verify(connection, version, "nobody", _probes(1)[0])


def test_a_probe_of_another_contract(version: Version) -> None:
    average = load_model("average")
    offsets = offsets_of([1])
    with pytest.raises(ContractError, match="the probe's features have 9 values, those of gallery 'staff' 8"):
        searching.probe_templates(average, version, np.ones((1, 9), np.float32), offsets)
    with pytest.raises(ContractError, match="come from 'other', gallery 'staff' holds 'test-extractor'"):
        searching.probe_templates(average, version, np.ones((1, 8), np.float32), offsets, "other")
    other = random_model(8, experts=2, selected=1, seed=0)
    with pytest.raises(ContractError, match="the probe is fused by model"):
        searching.probe_templates(other, version, np.ones((1, 8), np.float32), offsets)
