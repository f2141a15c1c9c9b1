"""The vectors that a reading made of a column, and the figures by which they are judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.features import Floats

_MOST_ROWS, _FEWEST_ROWS, _MOST_NUMBERS = 200, 24, 1 << 16  # more make no figure any surer
_LEADING, _TRAILING = 16, 8  # positions that could be a header, or a trailer
_ENOUGH = 20  # rows from which a coin does not fall on one side every time


@dataclass(frozen=True)
class Vectors:
    """What a reading made of the values that are no placeholders.

    rows: [n, D] float64, the finite ones of the most common dimension. dimensions: the rows of each length, the
    most common first, finite or not. unfinite: how many of them are not. undecodable: how many values gave no row.
    """

    rows: NDArray[np.float64]
    dimensions: Mapping[int, int]
    unfinite: int
    undecodable: int

    @classmethod
    def of(cls, decoded: Sequence[Floats], undecodable: int) -> Vectors:
        """Sort what was decoded, [D] each; a row of one number throughout is a placeholder."""
        telling = [vector for vector in decoded if not (vector == vector[0]).all()]
        dimensions = dict(Counter(map(len, telling)).most_common())
        finite = [vector for vector in telling if np.isfinite(vector).all()]
        common = [vector for vector in finite if len(vector) == next(iter(dimensions))]
        # Cast after the NaNs are gone: some of them warn.
        rows = np.array(common, dtype=np.float32) if common else np.empty((0, 0))
        return cls(rows.astype(np.float64), dimensions, len(telling) - len(finite), undecodable)

    @property
    def count(self) -> int:
        """How many values there were that are no placeholders."""
        return sum(self.dimensions.values()) + self.undecodable

    @cached_property
    def norms(self) -> tuple[float, float, float]:
        """The 5th, 50th and 95th percentile of the rows' norms; NaN where there are no rows."""
        if not len(self.rows):
            return (np.nan, np.nan, np.nan)
        low, median, high = np.percentile(np.linalg.norm(self.rows, axis=1), (5, 50, 95)).tolist()
        return low, median, high

    @cached_property
    def judged(self) -> NDArray[np.float64]:
        """[m, D]: some of the rows, evenly spread; the figures below are of these."""
        wanted = _MOST_NUMBERS // max(1, self.rows.shape[1])
        return self.rows[:: -(-len(self.rows) // min(max(wanted, _FEWEST_ROWS), _MOST_ROWS)) or 1]

    @cached_property
    def octaves(self) -> NDArray[np.float64]:
        """[m, D]: log2 |x|, NaN for a zero."""
        none = np.full(self.judged.shape, np.nan)
        return np.asarray(np.log2(np.abs(self.judged), out=none, where=self.judged != 0))

    @cached_property
    def scatter(self) -> float:
        """The standard deviation of log2 |x|: about 1.5 for all features, 8 and more for what is read wrongly."""
        return spread(self.octaves)

    @cached_property
    def negative(self) -> float:
        """The share of the numbers other than zero that are negative."""
        return float((self.judged < 0).sum()) / max(1, int((self.judged != 0).sum()))

    @cached_property
    def zeros(self) -> float:
        """The share of zeros."""
        return float(np.mean(self.judged == 0)) if self.judged.size else 0.0

    @cached_property
    def fixed(self) -> NDArray[np.bool_]:
        """[D]: whether a position holds the same number in every row."""
        return np.asarray((self.judged == self.judged[0]).all(axis=0))

    @cached_property
    def one_sided(self) -> NDArray[np.bool_]:
        """[D]: whether a position holds numbers of one sign alone."""
        return np.asarray((self.judged >= 0).all(axis=0) | (self.judged <= 0).all(axis=0))

    @cached_property
    def header(self) -> int:
        """How many leading positions hold something else than the others do."""
        odd = [position for position in range(_LEADING) if self._is_odd(position)]
        return odd[-1] + 1 if odd else 0

    @cached_property
    def trailer(self) -> int:
        """How many positions at the end hold something else than the others do."""
        odd = [position for position in range(-_TRAILING, 0) if self._is_odd(position)]
        return -odd[0] if odd else 0

    def _is_odd(self, position: int) -> bool:
        here, elsewhere = self.octaves[:, position], self.octaves[:, _LEADING:-_TRAILING]
        here = here[~np.isnan(here)]
        if not here.size:
            return float(np.isnan(elsewhere).mean()) < 0.01
        low, median, high = np.percentile(here, (10, 50, 90)).tolist()
        # Of features these three are within 4 octaves, and a few numbers are soon 10 from the mean.
        far = abs(median - mean(elsewhere)) > (6 if len(here) >= 8 else 12)
        fixed = len(self.judged) > 2 and self.fixed[position]
        return bool(fixed or far or high - low > 12 or self._is_lone_side(position))

    def _is_lone_side(self, position: int) -> bool:
        if len(self.judged) < _ENOUGH or not self.one_sided[position]:
            return False
        return float(self.one_sided[_LEADING:-_TRAILING].mean()) < 0.05

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """[D]: the mean of log2 |x| in each position; NaN where all are zero."""
        counts = (self.judged != 0).sum(axis=0)
        none = np.full(len(counts), np.nan)
        return np.asarray(np.divide(np.nansum(self.octaves, axis=0), counts, out=none, where=counts > 0))


def mean(values: NDArray[Any]) -> float:
    """The mean of what is not NaN; 0 where nothing is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else 0.0


def spread(values: NDArray[Any]) -> float:
    """The standard deviation of what is not NaN; 0 where nothing is."""
    there = values[~np.isnan(values)]
    return float(there.std()) if there.size else 0.0
