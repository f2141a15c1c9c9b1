"""Which columns say whose a feature is: told by how alike the features are that share a value.

Features of one person are more alike than those of two, whatever made them and whatever the columns are called. What
is measured is the probability that a pair of rows with the same value has a higher cosine than a pair with different
ones (the area under the ROC curve): about 1/2 for a column that has nothing to do with persons, near 1 for the subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pfstore.features import Floats

ALIKE = 0.7
"""The area under the curve from which a column is taken to tell persons apart."""

FEWEST_PAIRS = 10
"""Pairs with the same value, below which nothing is said."""

_MOST_PAIRS = 20_000

Labels: TypeAlias = NDArray[np.int64]
"""[n]: which value a row has; -1 where it has none."""


@dataclass(frozen=True)
class Likeness:
    """How alike rows are that share a value. area: under the ROC curve. within, between: the mean cosines."""

    area: float
    within: float
    between: float
    pairs: int


def labels_of(values: Sequence[Any]) -> Labels:
    """Return a number for each value, -1 for NULL and empty text."""
    numbers: dict[Any, int] = {}
    return np.array(
        [-1 if value is None or value in ("", b"") else numbers.setdefault(value, len(numbers)) for value in values],
        dtype=np.int64,
    )


def combined(first: Labels, second: Labels) -> Labels:
    """Return the labels of pairs of values, -1 where one is missing."""
    pairs = np.stack([first, second], axis=1)
    _, numbers = np.unique(pairs, axis=0, return_inverse=True)
    made: Labels = np.where((pairs < 0).any(axis=1), -1, numbers.reshape(-1)).astype(np.int64)
    return made


def groups(labels: Labels) -> int:
    """Return how many values there are."""
    return len(np.unique(labels[labels >= 0]))


class Cosines:
    """The comparisons among sampled rows. features: [n, D], none of them zero."""

    def __init__(self, features: Floats) -> None:
        units = features / np.linalg.norm(features, axis=1, keepdims=True)
        self._scores = units @ units.T
        self._upper = np.triu(np.ones(self._scores.shape, dtype=bool), k=1)

    def among(self, rows: NDArray[np.bool_]) -> Cosines:
        """Return the comparisons among these rows ([n] bool) alone; labels are still of all rows."""
        some = copy(self)
        some._upper = self._upper & rows[:, None] & rows[None, :]
        return some

    def of(self, labels: Labels) -> Likeness | None:
        """Return how alike rows of one value are, None where too few pairs share one or none differs."""
        known = (labels >= 0)[:, None] & (labels >= 0)[None, :] & self._upper
        same = labels[:, None] == labels[None, :]
        return self._likeness(known & same, known & ~same)

    def across(self, coarse: Labels, fine: Labels) -> Likeness | None:
        """Return how alike rows are that share the coarse value and not the fine one, against others."""
        known = ((coarse >= 0) & (fine >= 0))[:, None] & ((coarse >= 0) & (fine >= 0))[None, :] & self._upper
        same = coarse[:, None] == coarse[None, :]
        return self._likeness(known & same & (fine[:, None] != fine[None, :]), known & ~same)

    def to_centre(self, labels: Labels) -> Floats:
        """[n] float32: the mean cosine of each row to the others of its value; NaN where there is none."""
        same = (labels[:, None] == labels[None, :]) & (labels >= 0)[:, None]
        np.fill_diagonal(same, val=False)
        counts = same.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            means: Floats = ((self._scores * same).sum(axis=1) / counts).astype(np.float32)
        return means

    def pairs(self, labels: Labels) -> tuple[Floats, Floats]:
        """Return the cosines of pairs with the same value and of pairs with different ones, for a picture."""
        known = (labels >= 0)[:, None] & (labels >= 0)[None, :] & self._upper
        same = labels[:, None] == labels[None, :]
        return self._some(known & same), self._some(known & ~same)

    def _likeness(self, same: NDArray[np.bool_], other: NDArray[np.bool_]) -> Likeness | None:
        within, between = self._some(same), self._some(other)
        if len(within) < FEWEST_PAIRS or len(between) < FEWEST_PAIRS:
            return None
        area = _area(within, between)
        return Likeness(area, float(within.mean()), float(between.mean()), int(np.count_nonzero(same)))

    def _some(self, chosen: NDArray[np.bool_]) -> Floats:
        scores: Floats = self._scores[chosen]
        step = -(-len(scores) // _MOST_PAIRS) if len(scores) else 1
        return scores[::step]


def _area(within: Floats, between: Floats) -> float:
    """Return the probability that a score of the first is above one of the second, ties counted half."""
    ordered = np.sort(between)
    below = np.searchsorted(ordered, within, side="left") + np.searchsorted(ordered, within, side="right")
    return float(below.mean() / (2 * len(ordered)))
