"""What the other columns beside a feature are for: quality, change mark, soft delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.sources.inspection.attributes import Attribute, spearman
from pfstore.sources.inspection.grouping import Cosines, Labels

_QUALITY_WORDS = ("score", "qual", "conf", "sharp", "blur", "det_", "prob")
_CHANGE_WORDS = ("updat", "modif", "chang", "mtime", "edited", "revis")
_DELETE_WORDS = ("delet", "remov", "trash", "hidden", "invalid", "exclud", "disabled", "inactive", "archiv", "banned")
_SHOWN_WORDS = ("visible", "active", "enabled", "valid", "approved")

_RARE = 0.4  # the share of rows above which a value marks nothing
_TIME_WORDS = ("_at", "date", "time", "_on")

_CORRELATED = 0.2  # six times the standard error of a rank correlation of 1,000 rows
_FEWEST_VALUES = 10


@dataclass(frozen=True)
class Quality:
    """A column of numbers that are higher (or lower, if the correlation is negative) for better features."""

    attribute: Attribute
    correlation: float


@dataclass(frozen=True)
class Deletion:
    """A column that marks rows as deleted or hidden. present: it does so where it is not NULL, else by being `value`.

    certain: whether the column's name says so too.
    """

    attribute: Attribute
    present: bool
    value: Any
    certain: bool
    share: float


def find_quality(cosines: Cosines, subject: Labels | None, attributes: Sequence[Attribute]) -> Quality | None:
    """Return the column of numbers that goes best with how alike a feature is to the subject's others.

    Both are taken as they differ from the subject's mean: some people are more alike, and keys rise with people.
    """
    if subject is None:
        return None
    centre = cosines.to_centre(subject)
    found = []
    for one in attributes:
        if one.path or not one.is_number or one.groups < _FEWEST_VALUES or one.missing > 0.5:
            continue
        values = np.array([np.nan if value is None else float(value) for value in one.values])
        known = np.isfinite(centre) & np.isfinite(values)
        likeness, numbers = (_without_mean(one, subject[known]) for one in (centre[known], values[known]))
        correlation = spearman(numbers.tolist(), likeness.tolist())
        if abs(correlation) >= _CORRELATED or (one.named(_QUALITY_WORDS) and abs(correlation) >= _CORRELATED / 2):
            found.append(Quality(one, correlation))
    return max(found, key=lambda one: abs(one.correlation), default=None)


def _without_mean(values: NDArray[Any], labels: Labels) -> NDArray[np.float64]:
    """Return values less the mean of those with the same label; labels are not negative."""
    sums = np.bincount(labels, weights=values)
    counts = np.bincount(labels)
    rest: NDArray[np.float64] = values - (sums / np.maximum(counts, 1))[labels]
    return rest


def find_changes(attributes: Sequence[Attribute]) -> list[Attribute]:
    """Return the columns of times in which a change may show, those that are named so first."""
    times = [one for one in attributes if one.is_time and one.missing == 0 and one.groups > 1]
    return sorted(times, key=lambda one: (not one.named(_CHANGE_WORDS), len(one.path)))


def is_named_change(one: Attribute) -> bool:
    """Tell whether a column's name says that it is of changes."""
    return one.named(_CHANGE_WORDS)


def find_deletions(attributes: Sequence[Attribute]) -> list[Deletion]:
    """Return the columns that look as if they marked rows as deleted or hidden."""
    return [found for one in attributes if (found := _deletion(one))]


def _deletion(one: Attribute) -> Deletion | None:
    present = set(one.present)
    if not present:
        # Nothing is deleted yet, and what a mark of it will be only the name could tell.
        return Deletion(one, True, None, True, 0.0) if one.named(_DELETE_WORDS) and one.named(_TIME_WORDS) else None
    if one.is_time:
        marks = 0.5 < one.missing < 1
        return Deletion(one, True, None, one.named(_DELETE_WORDS), 1 - one.missing) if marks else None
    if len(present) <= 2 and present <= {0, 1} and all(isinstance(value, int) for value in present):
        return _flag(one)
    return None


def _flag(one: Attribute) -> Deletion | None:
    """Tell what a column of 0 and 1, or of truth values, marks; without a name that says so, the rare value may."""
    ones = sum(map(bool, one.present)) / len(one.values)
    named = one.named(_DELETE_WORDS) or one.named(_SHOWN_WORDS)
    marked = one.named(_DELETE_WORDS) or (not named and ones < 0.5)
    share = ones if marked else len(one.present) / len(one.values) - ones
    if not named and not 0 < share <= _RARE:
        return None
    value = marked if isinstance(one.present[0], bool) else int(marked)
    return Deletion(one, False, value, named, share)
