from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pfstore.evaluation.wording import wilson
from pfstore.gallery.intervals import of_comparisons, of_searches


def _pairs(wrong: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the errors and comparisons of each person, of a symmetric matrix of errors."""
    return wrong.sum(axis=1), np.full(len(wrong), len(wrong) - 1)


def _symmetric(chances: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.bool_]:
    drawn = np.triu(random.random(chances.shape) < chances, k=1)
    return drawn | drawn.T


def test_no_error_is_the_rule_of_three() -> None:
    assert of_comparisons(*_pairs(np.zeros((5, 5), bool))) == (0, 3 / 10)
    assert of_comparisons(*_pairs(np.zeros((2, 2), bool))) == (0, 1)
    assert of_searches(np.zeros(100, bool), np.arange(100)) == (0, 3 / 100)
    assert of_searches(np.zeros(100, bool), np.arange(100), shared=2) == (0, 6 / 100)


def test_nothing_but_errors() -> None:
    assert of_comparisons(*_pairs(~np.eye(5, dtype=bool))) == (1 - 3 / 10, 1)
    assert of_searches(np.ones(30, bool), np.arange(30)) == (1 - 3 / 30, 1)


def test_searches_of_different_persons_are_wilsons() -> None:
    wrong = np.arange(500) < 35
    expected = wilson(35, 500)
    assert of_searches(wrong, np.arange(500)) == pytest.approx((expected.low, expected.high))


def test_searches_of_the_same_persons_count_once() -> None:
    # Each of 100 persons is searched five times, always with the same outcome.
    wrong, persons = np.repeat(np.arange(100) < 7, 5), np.repeat(np.arange(100), 5)
    expected = wilson(7, 100)
    assert of_searches(wrong, persons) == pytest.approx((expected.low, expected.high))


def test_independent_comparisons_are_nearly_wilsons() -> None:
    random = np.random.default_rng(0)
    wrong = _symmetric(np.full((400, 400), 0.02), random)
    low, high = of_comparisons(*_pairs(wrong))
    expected = wilson(int(wrong.sum()) // 2, 400 * 399 // 2)
    assert high - low == pytest.approx(expected.high - expected.low, rel=0.15)


def test_persons_who_are_like_many_widen_it_as_a_bootstrap_over_subjects_does() -> None:
    random = np.random.default_rng(1)
    likeness = random.exponential(size=300)
    wrong = _symmetric(np.minimum(0.01 * np.outer(likeness, likeness), 1), random)
    low, high = of_comparisons(*_pairs(wrong))
    replicates = []
    for _ in range(400):
        weights = np.bincount(random.integers(0, 300, 300), minlength=300)
        products = np.outer(weights, weights) * ~np.eye(300, dtype=bool)
        replicates.append((products * wrong).sum() / products.sum())
    lowest, highest = np.quantile(replicates, [0.025, 0.975])
    assert high - low == pytest.approx(highest - lowest, rel=0.2)
    naive = wilson(int(wrong.sum()) // 2, 300 * 299 // 2)
    assert high - low > 2 * (naive.high - naive.low)
