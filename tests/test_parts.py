"""The split of subjects into train, validation and test."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfstore.errors import InputError
from pfstore.parts import PARTS, Parts, hashed

SUBJECTS = [f"subject {i}" for i in range(20_000)]

PINNED = ["validation", "train", "train", "train", "train"]
PINNED_OF_SEED_1 = ["validation", "train", "train", "test", "train"]


def test_parts_have_about_their_sizes() -> None:
    counts = Counter(Parts(0.7, 0.1, 0.2).of(subject) for subject in SUBJECTS)
    for part, fraction in zip(PARTS, (0.7, 0.1, 0.2), strict=True):
        spread = math.sqrt(fraction * (1 - fraction) * len(SUBJECTS))
        assert abs(counts[part] - fraction * len(SUBJECTS)) < 4 * spread


def test_the_part_of_a_key_is_pinned() -> None:
    # Whoever changes the hash moves test subjects into the training of models that are in use.
    assert [Parts().of(subject) for subject in ("anna", "bert", "G00123", "é", "")] == PINNED
    assert [Parts(seed=1).of(subject) for subject in ("anna", "bert", "G00123", "é", "")] == PINNED_OF_SEED_1


def test_a_part_of_no_size_stays_empty() -> None:
    sizes = [(0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    for fractions in sizes:
        expected = {part for part, fraction in zip(PARTS, fractions, strict=True) if fraction}
        assert {Parts(*fractions).of(subject) for subject in SUBJECTS[:2000]} == expected


@given(st.text(), st.integers(), st.floats(0, 1), st.floats(0, 1))
def test_parts_nest_as_they_grow(subject: str, seed: int, one: float, other: float) -> None:
    small, large = sorted((one, other))
    if Parts(small, 0, 1 - small, seed).of(subject) == "train":
        assert Parts(large, 0, 1 - large, seed).of(subject) == "train"


def test_seeds_and_purposes_are_independent() -> None:
    columns = [(0, "part"), (1, "part"), (0, "other")]
    numbers = np.array([[hashed(subject, seed, purpose) for subject in SUBJECTS] for seed, purpose in columns])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.abs(np.corrcoef(numbers) - np.eye(3)).max() < 4 / math.sqrt(len(SUBJECTS))


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.7, 0.2, 0.2), r"parts: train 0.7, validation 0.2, test 0.2 sum to 1.1 instead of 1"),
        ((-0.1, 0.5, 0.6), r"parts: train is a fraction of the subjects, 0 to 1, not -0.1"),
        ((0.5, float("nan"), 0.5), r"parts: validation is a fraction .* not nan"),
        ((0.5, 0.0, 1.5), r"parts: test is a fraction .* not 1.5"),
    ],
)
def test_fractions_that_are_none_are_refused(fractions: tuple[float, float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Parts(*fractions)


def test_thirds_are_accepted() -> None:
    assert Parts(1 / 3, 1 / 3, 1 / 3).as_dict() == {"train": 1 / 3, "validation": 1 / 3, "test": 1 / 3, "seed": 0}
