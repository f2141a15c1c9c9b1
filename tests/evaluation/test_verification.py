from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import auc, det_curve, roc_auc_score, roc_curve

from pfstore.errors import InputError
from pfstore.evaluation import comparing
from pfstore.evaluation.distributions import Distribution, allowed
from pfstore.evaluation.protocols.experiment import Pairs
from pfstore.evaluation.results import Scored
from pfstore.evaluation.scoring import Targets, scored
from pfstore.evaluation.templates import FusedGallery
from pfstore.evaluation.verification import equal_error
from tests.evaluation.scores import STEP, by_target, counts_at, gallery_of, pooled, random_gallery

Scores = NDArray[np.float64]


def raw(gallery: FusedGallery, *targets: float, **more: Any) -> Scored:
    [one] = scored([gallery], Targets(fmr=targets), kinds=["raw"], bootstrap=more.pop("bootstrap", 0), **more)
    return one


def listed(mated: list[float], non_mated: list[float]) -> FusedGallery:
    """A gallery of one reference, so that each probe is one comparison."""
    return gallery_of([*mated, *non_mated], "a", "a" * len(mated) + "b" * len(non_mated))


# Ten non-mated comparisons; a mated score ties with the non-mated 0.5, and 0.25 is there twice.
TEN = listed([0.75, 0.5, 0.5, 0.375, 0.25], [0.5, 0.375, 0.25, 0.25, 0.125, 0.0, -0.125, -0.25, -0.375, -0.5])


@pytest.mark.parametrize(
    ("target", "threshold", "matches", "rejected", "supported"),
    [
        (0.05, 0.5 + STEP, 0, 4, False),
        (0.1, 0.375 + STEP, 1, 2, True),
        (0.15, 0.375 + STEP, 1, 2, True),
        (0.2, 0.25 + STEP, 2, 1, True),
        (0.3, 0.25 + STEP, 2, 1, True),
        (0.4, 0.125 + STEP, 4, 0, True),
        (0.9, -0.5 + STEP, 9, 0, True),
    ],
)
def test_fnmr_at_fmr(target: float, threshold: float, matches: int, rejected: int, supported: bool) -> None:
    [row] = raw(TEN, target).verification.at
    assert row.threshold == threshold
    assert (row.fmr.errors, row.fmr.trials) == (matches, 10)
    assert (row.fnmr.errors, row.fnmr.trials) == (rejected, 5)
    assert row.supported is supported
    assert row.tar == 1 - rejected / 5


@pytest.mark.parametrize(
    ("target", "total", "expected"), [(1e-3, 1000, 1), (0.29, 100, 29), (0.07, 100, 7), (0.1, 9, 0)]
)
def test_a_target_is_taken_as_it_is_written(target: float, total: int, expected: int) -> None:
    assert allowed(target, total) == expected


def test_a_mated_score_at_the_threshold_matches() -> None:
    [row] = raw(listed([0.25 + STEP, 0.25], [0.25]), 0.5).verification.at
    assert row.threshold == 0.25 + STEP
    assert (row.fnmr.errors, row.fnmr.trials) == (1, 2)


def test_the_eer_where_the_rates_are_equal_at_a_score() -> None:
    # At 0.5: FMR 1/4 (0.5 itself), FNMR 1/4 (0.25).
    verification = raw(listed([0.25, 0.5, 0.625, 0.75], [0.5, 0.25, 0.125, 0.0])).verification
    assert (verification.eer, verification.eer_threshold) == (0.25, 0.5)


def test_the_eer_between_two_scores_is_the_mean_at_the_better_one() -> None:
    # At 0.25: FMR 2/3, FNMR 0; at 0.375: FMR 1/3, FNMR 1/2; the sum is less at the first.
    verification = raw(listed([0.25, 0.5], [0.4375, 0.25, 0.125])).verification
    assert (verification.eer, verification.eer_threshold) == pytest.approx((1 / 3, 0.25))


def test_scores_apart_have_no_eer_and_together_half() -> None:
    assert raw(listed([0.5, 0.75], [0.25, 0.0])).verification.eer == 0
    assert raw(listed([0.5, 0.5], [0.5, 0.5])).verification.eer == 0.5
    assert raw(listed([0.0, 0.25], [0.5, 0.75])).verification.eer == 1


LEVELS = st.lists(st.integers(-8, 8), min_size=1, max_size=30)


@settings(max_examples=300, deadline=None)
@given(LEVELS, LEVELS)
def test_the_eer_is_pyeers(mated: list[int], non_mated: list[int]) -> None:
    from pyeer.eer_stats import calculate_roc, get_eer_values

    thresholds, fmr, fnmr = calculate_roc(np.array(mated, float), np.array(non_mated, float))
    eer, threshold = equal_error(*(Distribution.of(np.array(one, np.int32)) for one in (non_mated, mated)))
    if fmr[-1] > fnmr[-1]:
        # pyeer looks no higher than the highest score and finds no crossing.
        assert threshold in {thresholds[-1], thresholds[-1] + 1}
        return
    place, _, _, expected = get_eer_values(fmr, fnmr)
    assert threshold == thresholds[place]
    assert eer == pytest.approx(expected)


def random_case(seed: int = 0) -> tuple[FusedGallery, Scores, Scores]:
    gallery = random_gallery(60, 300, noise=2.5, seed=seed)
    return gallery, *pooled([gallery])


def test_scikit_learn_agrees() -> None:
    gallery, mated, non_mated = random_case()
    labels = np.repeat([1, 0], [len(mated), len(non_mated)])
    values = np.concatenate([mated, non_mated])
    fpr, tpr, _ = roc_curve(labels, values, drop_intermediate=False)
    rows = raw(gallery, 0.1, 0.01, 0.001).verification.at
    for row in rows:
        place = np.flatnonzero(fpr <= row.target)[-1]
        assert row.fmr.value == fpr[place]
        assert row.tar == pytest.approx(tpr[place])
    fpr, fnr, thresholds = det_curve(labels, values)
    for row in rows:
        place = np.flatnonzero(thresholds >= row.threshold)[0]
        assert (row.fmr.value, row.fnmr.value) == pytest.approx((fpr[place], fnr[place]))


def test_the_curve_of_few_scores_has_them_all() -> None:
    gallery = random_gallery(30, 60, noise=2.5)
    mated, non_mated = pooled([gallery])
    curve = raw(gallery).verification.curve
    labels = np.repeat([1, 0], [len(mated), len(non_mated)])
    assert len(curve.x) <= 2000
    assert auc(curve.x, 1 - curve.y) == pytest.approx(roc_auc_score(labels, np.concatenate([mated, non_mated])))
    assert (curve.x[-1], curve.y[-1]) == (0, 1)
    assert (curve.x[0], curve.y[0]) == (1, 0)


def test_the_curve_of_many_scores_is_exact_where_it_has_points() -> None:
    gallery, mated, non_mated = random_case()
    curve = raw(gallery).verification.curve
    assert 500 < len(curve.x) <= 2000
    assert (np.diff(curve.thresholds) > 0).all()
    assert np.array_equal(curve.x, [np.mean(non_mated >= t) for t in curve.thresholds])
    assert curve.y == pytest.approx(np.array([np.mean(mated < t) for t in curve.thresholds]), abs=1e-12)
    assert curve.x[curve.x > 0].min() == 1 / len(non_mated)
    assert set(np.sort(non_mated)[::-1][[0, 1, 2, 10, 100]]) <= set(curve.thresholds - STEP) | set(curve.thresholds)
    assert auc(curve.x, 1 - curve.y) == pytest.approx(
        roc_auc_score(np.repeat([1, 0], [len(mated), len(non_mated)]), np.concatenate([mated, non_mated])), abs=1e-3
    )


@pytest.mark.parametrize("kind", ["raw", "cohort"])
def test_the_histogram_counts_every_score_once(kind: str) -> None:
    gallery = random_case()[0]
    mated, non_mated = pooled([gallery], kind)
    [one] = scored([gallery], kinds=[kind], bootstrap=0)
    bars = one.verification.histogram
    assert len(bars.edges) == 201
    assert (bars.edges[0], bars.edges[-1]) == (
        (-1, 1) if kind == "raw" else (0, pytest.approx(max(mated.max(), non_mated.max())))
    )
    assert np.array_equal(bars.mated, np.histogram(mated, bars.edges)[0])
    assert np.array_equal(bars.non_mated, np.histogram(non_mated, bars.edges)[0])


def test_failures_count_in_frr_and_far_only() -> None:
    gallery = gallery_of(
        [[0.5, 0.25], [0.0, 0.5], [0.375, 0.125]],
        "ab",
        "abc",
        failed_references="c",
        failed_probes=["a", "a", "d"],
    )
    [row] = raw(gallery, 0.25).verification.at
    # Made: aa, bb mated; ab, ba, ca, cb non-mated. Attempted: 3 references × 6 probes, of which mated aa ×3, bb, cc.
    assert row.threshold == 0.25 + STEP
    assert (row.fmr.errors, row.fmr.trials) == (1, 4)
    assert (row.fnmr.errors, row.fnmr.trials) == (0, 2)
    assert (row.frr.errors, row.frr.trials) == (3, 5)
    assert (row.far.errors, row.far.trials) == (1, 13)


def test_fnmr_by_the_probes_features() -> None:
    sizes = [1, 2, 3, 4, 64, 1000, 7]
    gallery = gallery_of([0.5, 0.25, 0.5, 0.125, 0.5, 0.25, 0.375], "a", "aaaaaab", features=sizes)
    rows = raw(gallery, 0.1, 0.5).verification.by_size
    assert [(row.first, row.last) for row in rows] == [(1, 1), (2, 3), (4, 7), (64, None)]
    assert [[(one.errors, one.trials) for one in row.fnmr] for row in rows] == [
        [(0, 1), (0, 1)],
        [(1, 2), (1, 2)],
        [(1, 1), (1, 1)],
        [(1, 2), (1, 2)],
    ]


def test_without_mated_comparisons_fnmr_has_no_trials() -> None:
    verification = raw(gallery_of([[0.5, 0.25]], "ab", "c"), 0.5, bootstrap=20).verification
    [row] = verification.at
    assert (verification.mated, verification.non_mated) == (0, 2)
    assert (row.fmr.errors, row.fmr.trials, row.threshold) == (1, 2, 0.25 + STEP)
    assert row.fnmr.trials == 0
    assert np.isnan([row.fnmr.value, row.fnmr.low, row.fnmr.high, verification.eer, verification.eer_low]).all()
    assert len(verification.curve.x) == 0
    assert list(verification.by_size) == []


def test_without_non_mated_comparisons_there_is_no_threshold() -> None:
    verification = raw(gallery_of([0.5, 0.25], "a", "aa"), 0.5, bootstrap=20).verification
    [row] = verification.at
    assert (verification.mated, verification.non_mated) == (2, 0)
    assert np.isnan([row.threshold, row.fmr.value, row.fnmr.value, verification.eer, verification.eer_threshold]).all()
    assert not row.supported
    assert verification.histogram.mated.sum() == 2


def test_without_templates_nothing_fails() -> None:
    for gallery in (gallery_of([], "a", ""), gallery_of([], "", "a"), gallery_of([], "", "")):
        [one, _] = scored([gallery], bootstrap=5)
        assert (one.verification.mated, one.verification.non_mated) == (0, 0)
        assert np.isnan(one.identifications[0].ranks[1].value)


def pairs_of(gallery: FusedGallery, chosen: Any) -> Pairs:
    ids = [[*side.ids, *(one.sample for one in side.failures)] for side in (gallery.references, gallery.probes)]
    rows, columns = np.asarray(chosen, dtype=np.int64).T
    return Pairs(ids[0], ids[1], columns, rows)


def test_listed_comparisons_are_the_only_ones() -> None:
    gallery = gallery_of([[0.5, 0.25], [0.0, 0.5], [0.375, 0.125]], "ab", "abc", failed_probes="ad")
    pairs = pairs_of(gallery, [(0, 0), (1, 1), (0, 1), (2, 0), (3, 0), (4, 1), (4, 0)])
    [one] = scored([gallery], Targets(fmr=[0.5]), pairs=pairs, bootstrap=10)
    [row] = one.verification.at
    assert (one.scores, one.identifications) == ("raw", [])
    assert (row.threshold, row.fmr.errors, row.fmr.trials) == (0.25 + STEP, 1, 2)
    assert (row.fnmr.errors, row.fnmr.trials) == (0, 2)
    assert (row.frr.errors, row.frr.trials) == (1, 3)
    assert (row.far.errors, row.far.trials) == (1, 4)


def test_a_list_of_all_comparisons_gives_what_the_gallery_gives() -> None:
    scores = np.random.default_rng(0).integers(-20, 20, (9, 7)) / 64
    gallery = gallery_of(scores, "abcdefg", "abcdefgaa", failed_probes="ad", failed_references="h")
    [whole] = scored([gallery], kinds=["raw"], identification=False, bootstrap=50)
    [one] = scored([gallery], pairs=pairs_of(gallery, np.argwhere(np.ones((11, 8)))), bootstrap=50)
    for row, other in zip(one.verification.at, whole.verification.at, strict=True):
        assert (row.fnmr, row.frr, row.fmr) == (other.fnmr, other.frr, other.fmr)
        assert (row.far.errors, row.far.trials) == (other.far.errors, other.far.trials)
        # How many comparisons failed is told by the number, not by the subjects, where they are listed.
        share = row.fmr.trials / row.far.trials
        assert row.far.low == pytest.approx(row.fmr.low * share)
        assert row.far.high == pytest.approx(row.fmr.high * share) or row.far.errors == 0
    assert one.verification.eer_low == whole.verification.eer_low
    assert one.verification.eer_high == whole.verification.eer_high


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_listed_comparisons_many_and_few(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense lists are read from products of matrices, thin ones pair by pair."""
    for name, value in {"TILE": 29, "MOST_ROWS": 29, "BLOCK": 500}.items():
        monkeypatch.setattr(comparing, name, value)
    gallery = random_gallery(60, 150, noise=2)
    chosen = np.argwhere(np.random.default_rng(1).random((150, 60)) < share)
    [one] = scored([gallery], pairs=pairs_of(gallery, chosen), bootstrap=10)
    whole = scored([gallery], kinds=["raw"], bootstrap=0)[0]
    names = [np.asarray(side.subjects) for side in (gallery.probes, gallery.references)]
    own = names[0][chosen[:, 0]] == names[1][chosen[:, 1]]
    assert (one.verification.mated, one.verification.non_mated) == (own.sum(), (~own).sum())
    assert one.verification.non_mated < whole.verification.non_mated
    scores = np.rint(
        np.einsum("ij,ij->i", *(np.rint(side.values[rows] * 2.0**26) for side, rows in sides(gallery, chosen))) / 2**30
    )
    for target, row in by_target(one).items():
        most = int(Fraction(repr(target)) * int((~own).sum()))
        assert (row.fmr.errors, row.fnmr.errors) == counts_at(scores[own], scores[~own], most)


def sides(gallery: FusedGallery, chosen: Any) -> list[Any]:
    return [(gallery.probes, chosen[:, 0]), (gallery.references, chosen[:, 1])]


def test_a_listed_sample_that_is_nowhere_is_named() -> None:
    gallery = gallery_of([[0.5, 0.25]], "ab", "a")
    pairs = Pairs(["r0", "r1", "r9"], ["p0"], np.array([0]), np.array([0]))
    with pytest.raises(InputError, match="reference 'r9'"):
        scored([gallery], pairs=pairs)
