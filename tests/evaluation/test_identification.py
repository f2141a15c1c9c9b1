from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore.errors import InputError
from pfstore.evaluation.intervals import Replicates
from pfstore.evaluation.protocols.experiment import Failure
from pfstore.evaluation.results import Identification
from pfstore.evaluation.scoring import Targets, scored
from pfstore.evaluation.templates import FusedGallery
from tests.evaluation.scores import STEP, Matrix, gallery_of, random_gallery


def searched(gallery: FusedGallery, *, ranks: Sequence[int] = (1, 2), fpir: Sequence[float] = (0.5,)) -> Identification:
    [one] = scored([gallery], Targets(ranks=ranks, fpir=fpir), kinds=["raw"], bootstrap=0)
    return one.identifications[0]


def hits(found: Identification) -> dict[int, tuple[int, int]]:
    return {rank: (one.errors, one.trials) for rank, one in found.ranks.items()}


def test_ranks_count_ties_against_the_mate() -> None:
    gallery = gallery_of(
        [
            [0.5, 0.25, 0.0],  # a: first
            [0.25, 0.25, 0.0],  # a: ties with b, so second
            [0.25, 0.25, 0.25],  # a: ties with both, so third
            [0.125, 0.0, 0.25],  # a: second
            [0.5, 0.25, 0.375],  # b: third
        ],
        "abc",
        "aaaab",
    )
    found = searched(gallery, ranks=(1, 2, 3, 20))
    assert (found.enrolled, found.mated, found.non_mated, found.failures) == (3, 5, 0, 0)
    assert hits(found) == {1: (1, 5), 2: (3, 5), 3: (5, 5), 20: (5, 5)}
    assert found.cmc.tolist() == [0.2, 0.6, 1.0]


def test_fnir_at_fpir() -> None:
    mated = [[0.5, 0.0], [0.375, 0.625], [0.25, 0.0]]
    non_mated = [[0.5, 0.125], [0.25, 0.375], [0.0, 0.25], [-0.25, -0.5]]
    found = searched(gallery_of([*mated, *non_mated], "ab", "aaawxyz"), fpir=(0.1, 0.25, 0.3, 0.5, 0.75))
    assert (found.mated, found.non_mated) == (3, 4)
    told = [(row.threshold, row.fpir.errors, row.fnir.errors, row.supported) for row in found.at]
    # A mate that is not the first candidate counts if it reaches the threshold: 0.375 behind b's 0.625.
    assert told == [
        (0.5 + STEP, 0, 3, False),
        (0.375 + STEP, 1, 2, True),
        (0.375 + STEP, 1, 2, True),
        (0.25 + STEP, 2, 1, True),
        (-0.25 + STEP, 3, 0, True),
    ]
    assert {(row.fpir.trials, row.fnir.trials, row.rank) for row in found.at} == {(4, 3, None)}


def test_a_mate_that_ties_with_the_threshold_is_found() -> None:
    found = searched(gallery_of([[0.25], [0.25 - STEP], [0.25 - STEP]], "a", "aax"), fpir=(0.5,))
    [row] = found.at
    assert row.threshold == 0.25
    assert (row.fpir.errors, row.fnir.errors) == (0, 1)


def test_failures_are_misses() -> None:
    """One failed probe is of an enrolled subject, one of a subject whose enrolment failed, one of a stranger."""
    gallery = gallery_of(
        [[0.5, 0.0], [0.25, 0.0], [0.0, 0.375]],
        "ab",
        "acx",
        failed_references="c",
        failed_probes=["a", "c", "y"],
    )
    found = searched(gallery, fpir=(0.9,))
    # Mated searches: a, c (whose reference failed), failed a, failed c. Non-mated: x; y returned nothing.
    assert (found.enrolled, found.mated, found.non_mated, found.failures) == (2, 4, 1, 3)
    assert hits(found) == {1: (1, 4), 2: (1, 4)}
    assert found.cmc.tolist() == [0.25, 0.25]
    [row] = found.at
    assert (row.threshold, row.failures) == (0.375 + STEP, 3)
    assert (row.fpir.errors, row.fpir.trials, row.supported) == (0, 1, False)
    assert (row.fnir.errors, row.fnir.trials) == (3, 4)
    assert found.curve is not None
    assert (found.curve.y[0], found.curve.y[-1]) == (0.75, 1)


def test_without_non_mated_searches_there_is_no_fpir() -> None:
    found = searched(gallery_of([[0.5, 0.0]], "ab", "a"))
    assert (list(found.at), found.curve) == ([], None)


def test_without_mated_searches_there_is_fpir_only() -> None:
    found = searched(gallery_of([[0.5, 0.0], [0.25, 0.0]], "ab", "xy"))
    [row] = found.at
    assert (row.threshold, row.fpir.errors, row.fnir.trials) == (0.25 + STEP, 1, 0)
    assert np.isnan([found.ranks[1].value, row.fnir.value, *found.cmc]).all()
    assert found.curve is None


def test_each_gallery_has_its_own_searches() -> None:
    """A subject of one gallery is a stranger to the other."""
    galleries = [gallery_of([[0.5], [0.25]], one, "ab", name=one) for one in "ab"]
    [one] = scored(galleries, kinds=["raw"], bootstrap=0)
    assert [found.gallery for found in one.identifications] == ["a", "b"]
    assert [(found.mated, found.non_mated) for found in one.identifications] == [(1, 1), (1, 1)]
    assert [found.at[-1].threshold for found in one.identifications] == [0.25 + STEP, 0.5 + STEP]


def test_two_references_of_a_subject_are_refused_unless_nothing_is_ranked() -> None:
    gallery = gallery_of([[0.5, 0.25, 0.125]], "aba", "a")
    with pytest.raises(InputError, match="subject 'a' has more than one reference in gallery 'gallery'"):
        scored([gallery])
    [one] = scored([gallery], kinds=["raw"], identification=False, bootstrap=0)
    assert (one.identifications, one.verification.mated, one.verification.non_mated) == ([], 2, 1)


LEVEL = st.sampled_from([-0.25, 0.0, 0.125, 0.25, 0.375])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_against_a_search_at_a_time(data: Any) -> None:
    names = "abcdef"[: data.draw(st.integers(1, 6))]
    probes = data.draw(st.lists(st.sampled_from("abcdwxyz"), min_size=1, max_size=12))
    gallery = gallery_of(
        data.draw(st.lists(LEVEL, min_size=len(names) * len(probes), max_size=len(names) * len(probes))), names, probes
    )
    found = searched(gallery, ranks=(1, 2, 3), fpir=(0.1, 0.5))
    matrix = Matrix.of(gallery)
    mated = matrix.mated.any(axis=1)
    mates = np.where(matrix.mated, matrix.scores, -np.inf).max(axis=1)
    ahead = ((matrix.scores >= mates[:, None]) & ~matrix.mated).sum(axis=1)
    assert hits(found) == {k: (int((ahead[mated] < k).sum()), int(mated.sum())) for k in (1, 2, 3)}
    best = matrix.scores[~mated].max(axis=1)
    for row in found.at:
        levels = np.array([*np.unique(matrix.scores), np.inf])
        threshold = levels[[(best >= level).sum() <= int(row.target * len(best)) for level in levels]][0]
        assert row.fpir.errors == (best >= threshold).sum()
        assert row.fnir.errors == (mates[mated] < threshold).sum()
    if found.curve is not None:
        assert np.array_equal(found.curve.x, [np.mean(best >= t) for t in found.curve.thresholds])
        assert found.curve.y == pytest.approx(np.array([np.mean(mates[mated] < t) for t in found.curve.thresholds]))


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    gallery = random_gallery(9, 40, noise=2, others=6)
    gallery = replace(gallery, probes=replace(gallery.probes, failures=[Failure("f", "s00003", "no face")]))
    [one] = scored([gallery], Targets(ranks=[2], fpir=[0.3]), kinds=["raw"], bootstrap=200, seed=5)
    found = one.identifications[0]
    weights = Replicates.draw(15, 200, seed=5).weights.astype(float)
    matrix = Matrix.of(gallery)
    who = np.array([int(name[1:]) for name in gallery.probes.subjects])
    mated = matrix.mated.any(axis=1)
    mates, best = (matrix.scores * matrix.mated).sum(axis=1)[mated], matrix.scores[~mated].max(axis=1)
    hit = ((matrix.scores[mated] >= mates[:, None]).sum(axis=1)) <= 2
    fixed = found.at[0].threshold
    told: dict[str, list[float]] = {"fpir": [], "fnir": [], "hits": []}
    for weight in weights.T:
        searches, strangers = weight[who[mated]], weight[who[~mated]]
        total = searches.sum() + weight[3]
        levels = [*np.unique(best), np.inf]
        kept = next(level for level in levels if strangers[best >= level].sum() <= 0.3 * strangers.sum() + 1e-9)
        # The threshold is the least: just above the next lower best score.
        below = max(best[best < kept], default=-2)
        told["fnir"].append((searches[mates <= below].sum() + weight[3]) / total)
        told["hits"].append(searches[hit].sum() / total)
        told["fpir"].append(strangers[best >= fixed].sum() / strangers.sum())
    rates = {"fpir": found.at[0].fpir, "fnir": found.at[0].fnir, "hits": found.ranks[2]}
    for name, rate in rates.items():
        assert (rate.low, rate.high) == pytest.approx(tuple(np.quantile(told[name], [0.025, 0.975]))), name
        assert rate.low < rate.high


def test_the_curve_and_the_table_are_one() -> None:
    found = searched(random_gallery(200, 900, others=100, noise=2), ranks=(1, 20), fpir=(0.003, 0.01, 0.1))
    assert found.curve is not None
    assert len(found.cmc) == 50
    assert found.cmc[0] == found.ranks[1].value
    assert found.cmc[19] == found.ranks[20].value
    assert (np.diff(found.cmc) >= 0).all()
    for row in found.at:
        place = np.searchsorted(found.curve.thresholds, row.threshold)
        assert (found.curve.x[place], found.curve.y[place]) == pytest.approx((row.fpir.value, row.fnir.value), abs=0.02)
        assert row.fpir.value <= row.target
