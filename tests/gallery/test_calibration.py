from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from pfstore.errors import ConfigError, ContractError
from pfstore.features import Floats
from pfstore.gallery import calibration, non_mated, searching, thresholds
from pfstore.gallery.calibration import Probes, calibrate
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Version
from pfstore.gallery.non_mated import References
from pfstore.gallery.pairings import GalleryAgainstGallery
from pfstore.gallery.thresholds import Threshold
from tests.gallery.hand_made import add, one_hot, server_scores, strangers, version_of

# How far below a threshold the least one may lie: the server's allowance and a step.
SLACK = 2.5e-6


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that a gallery of a hundred takes many."""
    monkeypatch.setattr(non_mated, "ROWS", 17)
    monkeypatch.setattr(non_mated, "COLUMNS", 13)


def _check(found: Sequence[Threshold], kind: str, scores: NDArray[np.float64]) -> None:
    """Hold thresholds against all scores that there are."""
    chosen = [one for one in found if one.kind == kind]
    assert chosen
    for one in chosen:
        bound = one.target == min(1.0, 3 / len(scores))
        allowed = 0 if bound else int(Fraction(repr(one.target)) * len(scores))
        assert one.comparisons == len(scores)
        assert np.count_nonzero(scores >= one.threshold) <= allowed
        assert np.count_nonzero(scores >= one.threshold - SLACK) > allowed
        assert one.low is not None
        assert one.high is not None
        assert one.low <= np.count_nonzero(scores >= one.threshold) / len(scores) <= one.high


def _best(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] the best score of each row with another than itself."""
    best: NDArray[np.float64] = np.where(np.eye(len(scores), dtype=bool), -np.inf, scores).max(axis=1)
    return best


def test_all_pairs_are_those_of_the_server(connection: Connection, small_blocks: None) -> None:
    version = version_of(connection, strangers(310))
    done: list[float] = []
    found = calibrate(connection, version, sample=None, observer=done.append)
    assert [(one.kind, one.target) for one in found.thresholds] == [
        *[("fmr", target) for target in (0.1, 0.01, 0.001)],
        ("fpir", 0.1),
    ]
    scores = server_scores(connection, version)
    _check(found.thresholds, "fmr", scores[np.triu_indices(310, k=1)])
    _check(found.thresholds, "fpir", _best(scores))
    assert (found.comparisons, found.searches, found.templates) == (47_895, 310, 310)
    assert {one.basis for one in found.thresholds} == {"gallery against gallery, all 310 subjects"}
    assert thresholds.stored(connection, version) == found.thresholds
    assert done == sorted(done)
    assert done[-1] == 1


def test_a_sample_is_compared_with_all(connection: Connection, small_blocks: None) -> None:
    version = version_of(connection, strangers(120))
    names = sorted(strangers(120))
    searched = GalleryAgainstGallery.draw(References(connection, version, names), 60, seed=3).places
    found = calibrate(connection, version, sample=60, seed=3)
    scores = server_scores(connection, version)
    first, second = np.triu_indices(120, k=1)
    compared = np.isin(first, searched) | np.isin(second, searched)
    _check(found.thresholds, "fmr", scores[first[compared], second[compared]])
    assert found.basis == "gallery against gallery, 60 of 120 subjects against all, seed 3"
    assert (found.comparisons, found.searches) == (60 * 59 // 2 + 60 * 60, 60)


def test_searches_of_a_sample(connection: Connection, small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "LEAST_ERRORS", 3)
    version = version_of(connection, strangers(90))
    searched = GalleryAgainstGallery.draw(References(connection, version, sorted(strangers(90))), 40, seed=0).places
    found = calibrate(connection, version, sample=40, fpir=[0.1, 0.25])
    _check(found.thresholds, "fpir", _best(server_scores(connection, version))[searched])


def test_a_seed_decides_the_sample(connection: Connection) -> None:
    version = version_of(connection, strangers(150))

    def scores(seed: int) -> list[float]:
        return [one.threshold for one in calibrate(connection, version, sample=50, seed=seed).thresholds]

    assert scores(1) == scores(1)
    assert scores(1) != scores(2)


def test_a_sample_keeps_its_subjects_as_the_gallery_grows(connection: Connection) -> None:
    version = version_of(connection, strangers(5))
    few, many = ([f"s{number:04}" for number in range(count)] for count in (200, 220))
    before, after = (
        {
            names[place]
            for place in GalleryAgainstGallery.draw(References(connection, version, names), 50, seed=0).places
        }
        for names in (few, many)
    )
    assert len(before - after) == len(after - before) == len(after & set(many[200:]))


@pytest.mark.parametrize(("twins", "expected"), [(49, 0.0), (50, 1.0)])
def test_ties_count_as_errors(connection: Connection, twins: int, expected: float) -> None:
    # 100 subjects, 4,950 comparisons: at FMR 0.01 may 49 be errors. Twins score 1, all others 0.
    axes = [place // 2 if place < 2 * twins else place for place in range(100)]
    version = version_of(connection, {f"s{n:03}": one_hot(axis, 128) for n, axis in enumerate(axes)})
    [found] = [one for one in calibrate(connection, version, fmr=[0.01]).thresholds if one.kind == "fmr"]
    assert expected < found.threshold < expected + SLACK
    assert found.interval is not None
    if twins == 50:
        assert found.interval == (0, 3 / 4950)
    else:
        assert found.interval[0] < 49 / 4950 < found.interval[1]


def test_all_scores_alike(connection: Connection) -> None:
    version = version_of(connection, {f"s{n}": one_hot(0, 8) for n in range(30)})
    found = calibrate(connection, version).thresholds
    assert [one.kind for one in found] == ["fmr"]
    assert all(1 < one.threshold < 1 + SLACK for one in found)


@pytest.mark.parametrize("dimension", [8, 512, 2048])
def test_the_allowance_covers_the_servers_rounding(connection: Connection, dimension: int) -> None:
    version = version_of(connection, strangers(80, dimension))
    scores = server_scores(connection, version)
    query = "SELECT template FROM pfstore.templates WHERE version_id = %s ORDER BY subject_id"
    halves = np.array([one.to_numpy() for (one,) in connection.execute(query, (version.version_id,))], np.float64)
    assert np.abs(scores - halves @ halves.T).max() < non_mated.ALLOWANCE / 2


def test_probes_are_compared_as_verify_and_search_do(connection: Connection, small_blocks: None) -> None:
    version = version_of(connection, strangers(60))
    probes, ids = _probes(400)
    found = calibrate(connection, version, probes=Probes(ids, probes))
    scores = np.array([_scores(connection, version, probe) for probe in probes])
    mate = {name: place for place, name in enumerate(sorted(strangers(60)))}
    for row, name in enumerate(ids):
        if name.removesuffix("/probe_1") in mate:
            scores[row, mate[name.removesuffix("/probe_1")]] = -np.inf
    _check(found.thresholds, "fmr", scores[np.isfinite(scores)])
    _check(found.thresholds, "fpir", scores.max(axis=1))
    assert found.basis == "400 probes against the gallery's 60 subjects, 40 mated left out"
    assert found.mated == 40
    [limit] = [one for one in found.thresholds if one.kind == "fpir"]
    returned = list(searching.search(connection, version, probes[40:], threshold=limit.threshold))
    assert sum(map(bool, returned)) == np.count_nonzero(scores[40:].max(axis=1) >= limit.threshold)


def _probes(count: int) -> tuple[Floats, list[str]]:
    """Probes of the first 40 subjects, near their templates, half of them named as in HDF5; then of strangers."""
    made = np.array(list(strangers(count, seed=9).values()))
    made[:40] = np.array(list(strangers(60).values()))[:40] + 0.1 * made[:40]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    ids = [f"s{number:04}" + ("/probe_1" if number % 2 else "") for number in range(40)]
    return made, ids + [f"stranger-{number // 2}/probe_{number}" for number in range(count - 40)]


def _scores(connection: Connection, version: Version, probe: Floats) -> list[float]:
    [found] = searching.search(connection, version, probe[None], top=1000)
    return [one.score for one in sorted(found, key=lambda one: one.subject)]


def test_probes_of_nobody_in_the_gallery(connection: Connection) -> None:
    version = version_of(connection, strangers(20))
    probes, ids = _probes(100)
    found = calibrate(connection, version, probes=Probes(ids[40:], probes[40:]))
    assert found.basis == "60 probes against the gallery's 20 subjects, none of them of a subject of it"
    assert found.mated == 0
    assert found.comparisons == 60 * 20


def test_too_small_a_target_is_refused_before_comparing(connection: Connection) -> None:
    version = version_of(connection, strangers(200))
    before = calibrate(connection, version).thresholds

    def said(**asked: object) -> str:
        with pytest.raises(ContractError) as error:
            calibrate(connection, version, observer=lambda _: pytest.fail("it compared"), **asked)  # type: ignore[arg-type]
        assert thresholds.stored(connection, version) == before
        return str(error.value)

    assert said(fmr=[0.1, 1e-3]) == (
        "an FMR of 0.001 needs 30,000 non-mated comparisons, so that 30 errors can be expected; there are 19,900 "
        "(gallery against gallery, all 200 subjects): ask for 0.0016 or more"
    )
    assert said(fmr=[0.002], sample=50) == (
        "an FMR of 0.002 needs 15,000 non-mated comparisons, so that 30 errors can be expected; there are 8,725 "
        "(gallery against gallery, 50 of 200 subjects against all, seed 0): ask for 0.0035 or more, or take --all, "
        "which makes 19,900"
    )
    assert said(fpir=[0.01]) == (
        "an FPIR of 0.01 needs 3,000 non-mated searches, so that 30 errors can be expected; there are 200 "
        "(gallery against gallery, all 200 subjects): ask for 0.15 or more"
    )
    assert "there are 30 (" in said(fpir=[0.2], sample=30)
    assert "that is too few for any FPIR, or take --all, which makes 200" in said(fpir=[0.2], sample=30)


def test_many_comparisons_of_few_persons_tell_nothing(connection: Connection) -> None:
    version = version_of(connection, strangers(200))
    before = thresholds.stored(connection, version)
    # 29 persons, of whom most come more than once.
    probes, _ = _probes(100)
    ids = [f"stranger-{number % 29}/probe_{number}" for number in range(100)]
    with pytest.raises(ContractError, match="^29 persons .100 probes against .* take 30 or more"):
        calibrate(connection, version, probes=Probes(ids, probes))
    with pytest.raises(ContractError, match="^29 persons .*29 of 200 subjects against all"):
        calibrate(connection, version, sample=29)
    assert thresholds.stored(connection, version) == before
    ids[0] = "one-more"
    assert calibrate(connection, version, probes=Probes(ids, probes)).comparisons == 100 * 200


@pytest.mark.parametrize("target", [0.1, 0.01, 0.003, 1e-3, 0.29, 0.07])
def test_what_a_target_needs_is_just_enough(connection: Connection, target: float) -> None:
    needed = thresholds.needed(target)
    assert needed * Fraction(repr(target)) >= 30
    assert (needed - 1) * Fraction(repr(target)) < 30


def test_the_target_that_would_do_does(connection: Connection) -> None:
    version = version_of(connection, strangers(200))
    assert calibrate(connection, version, fmr=[0.0016], fpir=[0.15]).thresholds[0].target == 0.0016


@pytest.mark.parametrize("target", [0.0, 1.0, 2.0, -0.1, math.nan, math.inf])
def test_what_is_no_rate(connection: Connection, target: float) -> None:
    version = version_of(connection, strangers(3))
    with pytest.raises(ConfigError, match=r"the FMR target .* is not between 0 and 1"):
        calibrate(connection, version, fmr=[target])
    with pytest.raises(ConfigError, match=r"the FPIR target .* is not between 0 and 1"):
        calibrate(connection, version, fpir=[target])


def test_one_subject_has_nobody_to_be_compared_with(connection: Connection) -> None:
    version = version_of(connection, strangers(1))
    with pytest.raises(ContractError, match="allows no non-mated comparison .*its one subject.*templates of two"):
        calibrate(connection, version)
    with pytest.raises(ContractError, match="allows no non-mated comparison .*1 probe against"):
        calibrate(connection, version, probes=Probes(["s0000"], np.array([one_hot(0, 16)])))
    others = Probes([f"x{number}" for number in range(30)], np.array([one_hot(0, 16)] * 30))
    assert calibrate(connection, version, probes=others).comparisons == 30


def test_only_what_was_asked_for(connection: Connection) -> None:
    version = version_of(connection, strangers(310))
    found = calibrate(connection, version, fmr=[0.02, 0.05, 0.02], fpir=())
    assert [(one.kind, one.target) for one in found.thresholds] == [("fmr", 0.05), ("fmr", 0.02)]
    found = calibrate(connection, version, fmr=(), fpir=[0.2])
    assert [(one.kind, one.target) for one in found.thresholds] == [("fpir", 0.2)]


def test_an_interrupted_calibration_stores_nothing(connection: Connection) -> None:
    version = version_of(connection, strangers(40))
    before = calibrate(connection, version).thresholds

    def interrupt(part: float) -> None:
        if part == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(connection, version, fmr=[0.2], observer=interrupt)
    assert thresholds.stored(connection, version) == before


def test_a_gallery_is_read_as_it_was_at_first(database: Database, connection: Connection, small_blocks: None) -> None:
    version = version_of(connection, strangers(40))
    before = calibrate(connection, version, sample=None).thresholds

    def change(part: float) -> None:
        with database.connect() as other:
            other.execute("DELETE FROM pfstore.templates WHERE subject_id >= 's0010'")
            add(other, version, {f"t{part}": one_hot(1, 16)})

    after = calibrate(connection, version, sample=None, observer=change).thresholds
    assert [(one.threshold, one.interval) for one in after] == [(one.threshold, one.interval) for one in before]


def test_an_estimate_is_made_anew_only_where_templates_changed(connection: Connection) -> None:
    version = version_of(connection, strangers(40))
    first = calibration.estimate(connection, version)
    assert [one.automatic for one in first] == [True, True]
    assert calibration.estimate(connection, version) == first
    add(connection, version, {"t1": one_hot(3, 16)})
    second = calibration.estimate(connection, version)
    assert [one.comparisons for one in second] == [41 * 40 // 2] * 2
    connection.execute("DELETE FROM pfstore.templates WHERE subject_id = 't1'")
    assert [one.comparisons for one in calibration.estimate(connection, version)] == [40 * 39 // 2] * 2


def test_an_estimate_is_made_anew_where_a_template_is_another(connection: Connection) -> None:
    version = version_of(connection, strangers(40))
    first = calibration.estimate(connection, version)
    connection.execute("DELETE FROM pfstore.templates WHERE subject_id = 's0000'")
    add(connection, version, {"s0000": strangers(40)["s0001"]})
    second = calibration.estimate(connection, version)
    assert second[0].created_at > first[0].created_at
    assert second[1].threshold > 0.9995 > first[1].threshold


def test_an_estimate_leaves_a_calibration_alone(connection: Connection) -> None:
    version = version_of(connection, strangers(40))
    asked = calibrate(connection, version, fmr=[0.2]).thresholds
    add(connection, version, {"t1": one_hot(3, 16), "t2": one_hot(4, 16)})
    assert calibration.estimate(connection, version) == asked
    assert thresholds.written_since(connection, version, asked[0].created_at) == 2


def test_an_estimate_compares_a_sample_with_itself(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SAMPLE", 350)
    version = version_of(connection, strangers(360))
    found = calibration.estimate(connection, version)
    assert {one.basis for one in found} == {"gallery against gallery, 350 of 360 subjects against each other, seed 0"}
    assert {one.kind for one in found} == {"fmr"}
    assert {one.comparisons for one in found} == {350 * 349 // 2}
    assert {one.templates for one in found} == {360}


def test_an_estimate_of_one_subject_is_none(connection: Connection) -> None:
    version = version_of(connection, strangers(1))
    assert calibration.estimate(connection, version) == []
