"""Tuning: the least effort at which an index finds first what an exhaustive search finds first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pfstore.errors import ConfigError, ConflictError, ContractError, NotFoundError
from pfstore.features import Floats
from pfstore.gallery import galleries, indexing, searching, tuning, tunings
from pfstore.gallery.calibration import Probes, ids_of
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Version
from pfstore.gallery.non_mated import References
from pfstore.gallery.recall import Wanted, worn
from pfstore.gallery.tunings import Setting
from tests.gallery import hand_made

NEAR = 4e-6  # of scores that may be those of one and the same comparison


def _unit(rows: NDArray[np.float64]) -> Floats:
    unit: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _hard(count: int = 3000, dimension: int = 64) -> Floats:
    """[count, dimension] templates that are no likelier near each other than chance will have it."""
    return _unit(np.random.default_rng(0).normal(size=(count, dimension)))


def _easy(count: int = 2000, blocks: int = 4, dimension: int = 16) -> Floats:
    """[count, blocks*dimension] templates whose blocks are nearly the same."""
    random = np.random.default_rng(0)
    common = random.normal(size=(count, 1, dimension))
    made = common + 0.02 * random.normal(size=(count, blocks, dimension))
    return _unit(made.reshape(count, -1))


def _gallery(connection: Connection, templates: Floats, blocks: int = 1, m: int = 16) -> Version:
    version = hand_made.version_of(connection, {f"s{n:05}": row for n, row in enumerate(templates)}, blocks=blocks)
    indexing.build(connection, version, m=m, ef_construction=2 * m)
    return galleries.version(connection, "staff")


def _probes(templates: Floats, count: int, noise: float, strangers: int = 0, seed: int = 1) -> Probes:
    random = np.random.default_rng(seed)
    rows = templates[:count] + noise * random.normal(size=(count, templates.shape[1])) / templates.shape[1] ** 0.5
    others = random.normal(size=(strangers, templates.shape[1]))
    names = [f"s{n:05}/probe_1" for n in range(count)] + [f"stranger {n}" for n in range(strangers)]
    return Probes(names, _unit(np.concatenate([rows, others])))


def _halves(values: Floats) -> NDArray[np.float64]:
    return values.astype(np.float16).astype(np.float64)


def _hits(
    connection: Connection, version: Version, templates: Floats, probes: Floats
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Which probes are given the best of all templates first, and which that is."""
    scores = _halves(probes) @ _halves(templates).T
    found = [one[0].score if one else -2.0 for one in searching.search(connection, version, probes)]
    return np.array(found) >= scores.max(axis=1) - NEAR, scores.argmax(axis=1)


def test_an_easy_gallery_needs_little(connection: Connection) -> None:
    version = _gallery(connection, _easy(), blocks=4)
    parts: list[float] = []
    found = tuning.tune(connection, version, sample=150, observer=parts.append)
    assert found.mated_recall is not None
    assert found.mated_recall >= 0.999
    assert found.ef_search <= 80
    assert found.basis.startswith("150 worn templates, seed 0")
    assert (found.templates, found.probes) == (2000, 150)
    assert found.path == ("index" if found.index_seconds < found.exhaustive_seconds else "exhaustive")
    assert tuning.stored(connection, version) == found
    assert parts == sorted(parts)
    assert parts[-1] == 1.0


def test_what_the_index_misses_is_searched_exhaustively(connection: Connection) -> None:
    templates = _hard()
    version = _gallery(connection, templates, m=4)
    probes = _probes(templates, 150, noise=1.2, strangers=50)
    found = tuning.tune(connection, version, target=0.97, probes=probes)
    assert found.basis.startswith("150 mated probes and 50 others; ")
    assert found.sure is not None
    assert found.mated_recall is not None
    assert 0 < found.answered < 1
    # What is stored is what pfstore.search then gives, whichever way is the faster on this machine.
    tunings.write(connection, version, replace(found, path="index"))
    hits, best = _hits(connection, version, templates, probes.templates)
    own = np.array([*range(150), *[-1] * 50]) == best
    assert 20 < own.sum() < 150
    assert f"{own.sum():,} of them have their own subject as the best" in found.basis
    assert found.recall == pytest.approx(hits.mean())
    assert found.mated_recall == pytest.approx(hits[own].mean())
    assert found.mated_recall >= 0.97
    assert found.low < found.mated_recall <= found.high
    alone = replace(found, path="index", sure=None)
    tunings.write(connection, version, alone)
    assert _hits(connection, version, templates, probes.templates)[0].mean() < hits.mean()


def test_the_sure_score_is_the_least_that_keeps_to_the_target() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    best = np.array([0.9, 0.8, 0.75, 0.6, 0.55, 0.4], dtype=np.float32)
    known = Wanted(_hard(6), best, np.ones(6, dtype=bool), np.arange(6))
    for target, sure, answered, recall in (
        (1.0, 0.7, 2 / 6, 1.0),
        (5 / 6, 0.5, 4 / 6, 5 / 6),
        (4 / 6, None, 1.0, 4 / 6),
    ):
        trial = tuning._trial(tuning.SETTINGS[0], known, scores, target, 1.0, 10.0)
        assert (trial.answered, trial.recall.all) == pytest.approx((answered, recall))
        assert trial.seconds == pytest.approx(1 + (1 - answered) * 10)
        assert (trial.setting.sure is None) == (sure is None)
        assert sure is None or sure < (trial.setting.sure or 0) < sure + 1e-9


def test_what_is_stored_decides_how_a_search_goes(connection: Connection) -> None:
    templates = _hard()
    version = _gallery(connection, templates, m=4)
    probes = _probes(templates, 0, noise=0, strangers=60).templates
    one = replace(tuning.tune(connection, version, target=0.5, sample=50), path="index")
    found = {}
    for effort in (20, 200):
        tunings.write(connection, version, replace(one, ef_search=effort, candidates=20, sure=None))
        found[effort] = _hits(connection, version, templates, probes)[0].mean()
    assert found[20] < found[200] < 1
    for exact in (replace(one, path="exhaustive"), replace(one, ef_search=20, sure=1.1)):
        tunings.write(connection, version, exact)
        assert _hits(connection, version, templates, probes)[0].all()


def test_without_mates_the_target_is_for_all(connection: Connection) -> None:
    templates = _hard(1000, 16)
    version = _gallery(connection, templates)
    found = tuning.tune(connection, version, target=0.9, probes=_probes(templates, 0, noise=0, strangers=60))
    assert found.mated_recall is None
    assert found.reached == found.recall >= 0.9
    assert found.basis == "60 probes, none of them of a subject of it"


def test_where_the_index_finds_next_to_nothing(connection: Connection) -> None:
    # Coarse vectors of blocks that have nothing in common differ in length, so that a graph does not lead to the best.
    templates = _unit(np.random.default_rng(0).normal(size=(1500, 64)))
    version = _gallery(connection, templates, blocks=4, m=2)
    found = tuning.tune(connection, version, target=1.0, sample=60)
    assert found.recall == 1.0
    assert found.path == ("index" if found.index_seconds < found.exhaustive_seconds else "exhaustive")
    # Of other probes nothing is certain: 60 tell a share to within a few hundredths.
    assert _hits(connection, version, templates, _probes(templates, 40, noise=1.0).templates)[0].mean() >= 0.9


def test_worn_templates_are_as_near_as_told_and_near_to_nobody_else(connection: Connection) -> None:
    templates = _hard(500)
    version = _gallery(connection, templates)
    searching.verify(connection, version, "s00000", templates[0])  # registers the types
    references = References(connection, version, ids_of(connection, version))
    made = worn(references, 100, seed=3, least=0.4)
    scores = made.templates @ templates.T
    own = scores[np.arange(100), made.places]
    np.testing.assert_allclose(np.sort(own), np.linspace(0.4, 0.9, 100), atol=2e-3)
    assert len(set(made.places.tolist())) == 100
    scores[np.arange(100), made.places] = 0
    # Each of 32 others has about 1 / √32 of what is not its own, and most stand further off.
    assert scores.max() < 0.65
    again = worn(references, 100, seed=3, least=0.4)
    assert np.array_equal(again.templates, made.templates)
    assert not np.array_equal(worn(references, 100, seed=4, least=0.4).templates, made.templates)


@pytest.mark.parametrize("count", [1, 2])
def test_the_smallest_galleries(connection: Connection, count: int) -> None:
    version = _gallery(connection, _hard(count, 8))
    found = tuning.tune(connection, version)
    assert (found.probes, found.recall, found.sure) == (count, 1.0, None)


def test_a_setting_under_test_is_seen_by_nobody_else(database: Database, connection: Connection) -> None:
    version = _gallery(connection, _hard(50, 8))
    with database.connect() as other:
        with tunings.trying(connection, version, Setting(20, 20)):
            mine = tuning.stored(connection, version)
            assert mine is not None
            assert mine.ef_search == 20
            assert tuning.stored(other, version) is None
        assert tuning.stored(connection, version) is None


def test_an_index_is_needed(connection: Connection) -> None:
    version = hand_made.version_of(connection, hand_made.strangers(40))
    with pytest.raises(ConflictError, match="version 1 of gallery 'staff' has no index.*`pfstore gallery index staff`"):
        tuning.tune(connection, version)


def test_an_index_built_anew_meanwhile(database: Database, connection: Connection) -> None:
    version = _gallery(connection, _hard(100, 8))
    with database.connect() as other:

        def once(part: float) -> None:
            # Not while the snapshot is open, for which building would wait.
            if 0.3 < part < 1:
                indexing.build(other, version)

        with pytest.raises(ConflictError, match="built anew or dropped meanwhile: tune again"):
            tuning.tune(connection, version, observer=once)
    assert tuning.stored(connection, version) is None


def test_a_version_dropped_meanwhile(database: Database, connection: Connection) -> None:
    version = _gallery(connection, _hard(100, 8))
    gone = False
    with database.connect() as other:

        def once(part: float) -> None:
            nonlocal gone
            # Not while the snapshot is open, for which dropping would wait.
            if part > 0.3 and not gone:
                gone = True
                galleries.drop(other, "staff")

        with pytest.raises(NotFoundError, match="version 1 of gallery 'staff' was dropped meanwhile"):
            tuning.tune(connection, version, observer=once)


def test_what_makes_no_sense(connection: Connection) -> None:
    version = _gallery(connection, templates := _hard(50, 8))
    with pytest.raises(ConfigError, match="the target 1.5 is not a share"):
        tuning.tune(connection, version, target=1.5)
    with pytest.raises(ContractError, match="there is no probe"):
        tuning.tune(connection, version, probes=Probes([], templates[:0]))
