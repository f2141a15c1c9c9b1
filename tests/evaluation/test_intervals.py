from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pfstore.evaluation import ladders, tails
from pfstore.evaluation.intervals import Replicates, bounds, last_within, ranks, rate
from pfstore.evaluation.protocols.experiment import Failure
from pfstore.evaluation.results import Rate
from pfstore.evaluation.scoring import Targets, scored
from pfstore.evaluation.templates import FusedGallery
from tests.evaluation.scores import Matrix, by_target, gallery_of, random_gallery


def weights_of(replicates: Replicates) -> NDArray[np.float64]:
    return replicates.weights.astype(np.float64)


def test_a_draw_is_of_as_many_subjects_with_replacement() -> None:
    weights = weights_of(Replicates.draw(50, 2000, seed=3))
    assert weights.shape == (50, 2000)
    assert (weights.sum(axis=0) == 50).all()
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.02)
    assert np.array_equal(weights, weights_of(Replicates.draw(50, 2000, seed=3)))
    assert not np.array_equal(weights, weights_of(Replicates.draw(50, 2000, seed=4)))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3000), st.integers(1, 30), st.integers(0, 2**32))
def test_sums_under_weights(items: int, subjects: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    replicates = Replicates.draw(subjects, 3, seed)
    weights = weights_of(replicates)
    keys = random.integers(-9, 9, items).astype(np.int32)
    first, second = random.integers(0, subjects, (2, items))
    thresholds = np.arange(10, -11, -1)
    found = replicates.above(keys, first, thresholds)
    assert np.array_equal(found, [weights[first[keys >= one]].sum(axis=0) for one in thresholds])
    stops = np.unique(random.integers(0, items + 1, 7))
    pairs = weights[first] * weights[second]
    assert np.array_equal(replicates.pairs_above(first, second, stops), [pairs[:stop].sum(axis=0) for stop in stops])
    counts = np.bincount(first, minlength=subjects)
    assert np.array_equal(replicates.totals(counts), weights[first].sum(axis=0))
    assert np.array_equal(replicates.squares(counts), (weights[first] ** 2).sum(axis=0))


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 5000, 100_000])
def test_ranks_are_dense_at_the_top_and_about_a_hundredth_apart_below(count: int) -> None:
    found = ranks(count)
    assert np.array_equal(found[: min(count, 128)], np.arange(min(count, 128)))
    assert (np.diff(found) > 0).all()
    assert len(found) < 1100
    if count > 128:
        assert count * 0.97 < found[-1] < count
        assert (np.diff(found) <= np.maximum(1, found[1:] * 0.016)).all()


def test_the_last_within_a_target_is_that_before_the_first_that_exceeds_it() -> None:
    rates = np.array([[0, 0, 0], [0.1, 0.2, 0.1], [0.3, 0.1, 0.1]])
    assert last_within(rates, 0.1).tolist() == [1, 0, 2]


def test_no_errors_and_nothing_but_errors_obey_the_rule_of_three() -> None:
    none = np.zeros(100)
    assert rate(0, 1000, none, 300) == Rate(0, 1000, 0, 0.01)
    assert rate(1000, 1000, none + 1, 300) == Rate(1000, 1000, 0.99, 1)
    assert rate(0, 10, none, 2) == Rate(0, 10, 0, 1)
    assert rate(0, 1000, none + 0.5, 300) == Rate(0, 1000, 0, 0.5)


def test_bounds_hold_the_value_and_need_replicates() -> None:
    replicated = np.linspace(0, 1, 1001)
    assert bounds(0.5, replicated) == pytest.approx((0.025, 0.975))
    assert bounds(0.01, replicated) == pytest.approx((0.01, 0.975))
    assert bounds(0.5, np.append(replicated, np.nan)) == pytest.approx((0.025, 0.975))
    assert np.isnan(bounds(0.5, np.empty(0))).all()
    assert np.isnan(bounds(float("nan"), replicated)).all()
    assert np.isnan([rate(0, 9, np.empty(0), 3).high, rate(9, 9, np.empty(0), 3).low]).all()


def slow_bounds(gallery: FusedGallery, target: float, replicates: int, seed: int) -> dict[str, tuple[float, float]]:
    """Intervals of FNMR and FRR at FMR, of FMR and FAR at the threshold; a replicate weights all comparisons anew."""
    matrix = Matrix.of(gallery)
    names = sorted({*gallery.probes.subjects, *gallery.references.subjects})
    failed = [names.index(one.subject) for one in gallery.probes.failures]
    enrolled = [names.index(one) for one in gallery.references.subjects]
    places = [np.array([names.index(one) for one in side.subjects]) for side in (gallery.probes, gallery.references)]
    rows, columns = np.meshgrid(*places, indexing="ij")
    mated, non_mated = matrix.scores[matrix.mated], matrix.scores[~matrix.mated]
    levels = np.array([*np.unique(matrix.scores), np.inf])[:, None]
    fixed = next(level for level in levels[:, 0] if (non_mated >= level).sum() <= target * len(non_mated))
    found: dict[str, list[float]] = {name: [] for name in ("fnmr", "frr", "fmr", "far", "eer")}
    for weight in weights_of(Replicates.draw(len(names), replicates, seed)).T:
        cross, own = (weight[rows] * weight[columns])[~matrix.mated], weight[rows][matrix.mated]
        fmr = ((non_mated >= levels) * cross).sum(axis=1) / cross.sum()
        threshold = levels[fmr <= target + 1e-12][0, 0]
        fnmr = (own * (mated < levels)).sum(axis=1) / own.sum()
        after = np.flatnonzero(fmr - fnmr <= 1e-12)[0]
        before = after - (abs(fmr[after] - fnmr[after]) > 1e-12)
        found["eer"].append(min(fmr[before] + fnmr[before], fmr[after] + fnmr[after]) / 2)
        missed = sum(weight[one] for one in failed if one in enrolled)
        prevented = sum(weight[one] * weight[other] for one in failed for other in enrolled if one != other)
        found["fnmr"].append((own * (mated < threshold)).sum() / own.sum())
        found["frr"].append(((own * (mated < threshold)).sum() + missed) / (own.sum() + missed))
        found["fmr"].append((cross * (non_mated >= fixed)).sum() / cross.sum())
        found["far"].append((cross * (non_mated >= fixed)).sum() / (cross.sum() + prevented))
    return {name: tuple(np.quantile(values, [0.025, 0.975])) for name, values in found.items()}


@pytest.mark.parametrize("target", [0.05, 0.2])
def test_intervals_are_those_of_a_plain_bootstrap(target: float) -> None:
    """So few comparisons that each score is a step of the ladder."""
    gallery = random_gallery(9, 14, noise=2.5, others=1)
    failures = [Failure("f1", "s00002", "no face"), Failure("f2", "s00002", "no face"), Failure("f3", "s00009", "dark")]
    gallery = replace(gallery, probes=replace(gallery.probes, failures=failures))
    expected = slow_bounds(gallery, target, 200, seed=5)
    [one] = scored([gallery], Targets(fmr=[target]), kinds=["raw"], bootstrap=200, seed=5)
    [row] = one.verification.at
    eer = one.verification.eer_low, one.verification.eer_high
    assert eer == pytest.approx(expected.pop("eer"))
    for name, found in expected.items():
        told = getattr(row, name)
        assert (told.low, told.high) == pytest.approx(found), name


def test_thinned_tails_give_nearly_the_same_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = random_gallery(150, 600, noise=2.5)
    targets = Targets(fmr=[0.2, 0.05, 0.01, 1e-3])
    [whole] = scored([gallery], targets, kinds=["raw"], bootstrap=500)
    monkeypatch.setattr(tails, "CAPACITY", 4096)
    monkeypatch.setattr(ladders, "CAPACITY", 4096)
    [thinned] = scored([gallery], targets, kinds=["raw"], bootstrap=500)
    assert thinned.verification.eer == whole.verification.eer
    for target, row in by_target(whole).items():
        other = by_target(thinned)[target]
        assert (other.threshold, other.fnmr.errors) == (row.threshold, row.fnmr.errors)
        width = row.fnmr.high - row.fnmr.low
        assert (other.fnmr.low, other.fnmr.high) == pytest.approx((row.fnmr.low, row.fnmr.high), abs=0.1 * width)
        widths = [one.fmr.high - one.fmr.low for one in (row, other)]
        thinning = 2 * 1.96 * row.fmr.value * (3 / (4096 / 8)) ** 0.5
        assert 0.85 * widths[0] < widths[1] < 1.1 * np.hypot(widths[0], thinning)


def numbering(start: int) -> tails.Locate:
    """The place of a comparison stands for its reference, the opposite for its probe."""

    def locate(places: NDArray[np.intp]) -> tuple[tails.Codes, tails.Codes]:
        numbers = (places + start).astype(np.int32)
        return numbers, -numbers

    return locate


@pytest.mark.parametrize("block", [50, 1000])
def test_tails_hold_the_highest_and_tear_no_ties(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "CAPACITY", 100)
    random = np.random.default_rng(0)
    keys = np.repeat(np.arange(500, dtype=np.int32), 8)
    random.shuffle(keys)
    hashes = random.integers(0, 2**32, 4000, dtype=np.uint32)
    collected = tails.Tails(4000)
    for start in range(0, 4000, block):
        part = slice(start, start + block)
        collected.offer(keys[part], hashes[part], numbering(start))
    first, *others = collected.result()
    assert first.least == 500 - 12
    assert first.keys.tolist() == np.repeat(np.arange(499, 487, -1), 8).tolist()
    assert np.array_equal(keys[first.references], first.keys)
    assert np.array_equal(-first.probes, first.references)
    for number, one in enumerate(others, 1):
        chosen = hashes < 2 ** (32 - 2 * number)
        assert one.keys.tolist() == sorted(keys[chosen & (keys >= one.least)].tolist(), reverse=True)
        assert len(one.keys) > 50 or one is others[-1]
    assert others[-1].least < 0


def test_comparisons_that_are_all_equal_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "CAPACITY", 100)
    collected = tails.Tails(4000)
    zeros = np.zeros(4000, dtype=np.int32)
    hashes = np.arange(4000, dtype=np.uint32) * np.uint32(2**32 // 4000)
    collected.offer(zeros, hashes, lambda places: (zeros[places], zeros[places]))
    sizes = [len(one.keys) for one in collected.result()]
    assert sizes[0] == 0
    assert max(sizes) <= 100
    assert sizes[-1] > 0


def test_figures_without_a_bootstrap_have_no_bounds() -> None:
    gallery = random_gallery(20, 60, others=5, noise=2)
    [with_, without] = [scored([gallery], kinds=["raw"], bootstrap=count)[0] for count in (100, 0)]
    for one, other in zip(with_.verification.at, without.verification.at, strict=True):
        assert one.fnmr.low <= one.fnmr.value <= one.fnmr.high
        assert one.fnmr.value == other.fnmr.value
        assert np.isnan([other.fnmr.low, other.fnmr.high, other.fmr.low, other.far.high]).all()
    assert with_.verification.eer_low < with_.verification.eer < with_.verification.eer_high


def test_a_perfect_score_is_not_told_as_certain() -> None:
    scores = np.eye(10) * 0.5
    names = "abcdefghij"
    [one] = scored([gallery_of(np.vstack([scores, scores]), names, names * 2)], Targets(fmr=[0.1]), kinds=["raw"])
    [row] = one.verification.at
    assert (row.fnmr.errors, row.fnmr.trials) == (0, 20)
    # 10 subjects, whatever their comparisons; 45 pairs of them.
    assert (row.fnmr.low, row.fnmr.high) == (0, 0.3)
    assert (row.fmr.errors, row.fmr.low, row.fmr.high) == (0, 0, 3 / 45)
    hit = one.identifications[0].ranks[1]
    assert (hit.errors, hit.low, hit.high) == (20, 0.7, 1)


def test_more_comparisons_of_the_same_subjects_tell_little_more() -> None:
    """A bootstrap over comparisons would halve the width."""
    widths = []
    for probes in (200, 800):
        [one] = scored([random_gallery(40, probes, noise=2.5)], Targets(fmr=[0.01]), kinds=["raw"])
        widths.append(one.verification.at[0].fnmr.high - one.verification.at[0].fnmr.low)
    assert widths[1] > 0.65 * widths[0]


def population(subjects: int, seed: int, **more: Any) -> FusedGallery:
    return random_gallery(subjects, 4 * subjects, noise=2, seed=seed, **more)


def test_intervals_cover_the_truth() -> None:
    targets = Targets(fmr=[0.01], fpir=[0.1], ranks=[1])
    [truth] = scored([population(4000, seed=10**6)], targets, kinds=["raw"], bootstrap=0, identification=False)
    expected = truth.verification.at[0].fnmr.value, truth.verification.eer
    covered = np.zeros(2)
    for seed in range(60):
        [one] = scored([population(60, seed)], targets, kinds=["raw"], bootstrap=300, identification=False)
        fnmr, verification = one.verification.at[0].fnmr, one.verification
        covered += [
            fnmr.low <= expected[0] <= fnmr.high,
            verification.eer_low <= expected[1] <= verification.eer_high,
        ]
    assert (covered >= 0.88 * 60).all()
    assert (covered < 60).any()
