"""Whether vectors look like face features: each check says in a few words what speaks against it.

A reading by the wrong width, byte order or offset scatters the numbers over dozens of powers of two, which no feature
extractor does. Lists of other things are whole or rounded numbers, of one sign, or change gradually along the list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from pfstore.sources.inspection.candidates import LONGEST, SHORTEST
from pfstore.sources.inspection.decoded import Vectors, mean, spread

MOST_REASONS = 3
"""More reasons make a reading no less believable."""

_DAMAGED = 0.3  # the share of values that may be
_MOST_DIMENSIONS = 3  # extractors of different dimensions in one column


def against(vectors: Vectors) -> list[str]:
    """Return what speaks against these being face features, at most MOST_REASONS phrases; empty where nothing does."""
    return list(islice(_reasons(vectors), MOST_REASONS))


def _reasons(vectors: Vectors) -> Iterator[str]:
    of_shape = [phrase for check in _OF_SHAPE if (phrase := check(vectors))]
    yield from of_shape
    if vectors.rows.size and _dimension(vectors) is None:
        yield from (phrase for check in _OF_VALUES if (phrase := check(vectors)))
    elif not of_shape:
        yield "no row is finite"


def _undecodable(vectors: Vectors) -> str | None:
    if vectors.undecodable <= _DAMAGED * vectors.count:
        return None
    return f"{vectors.undecodable} of {vectors.count} values do not decode"


def _dimension(vectors: Vectors) -> str | None:
    if not vectors.dimensions:
        return "every value is one number throughout"
    dimension = next(iter(vectors.dimensions))
    if SHORTEST <= dimension <= LONGEST:
        return None
    return f"{dimension} numbers, where features have {SHORTEST} to {LONGEST}"


def _many_dimensions(vectors: Vectors) -> str | None:
    rows = sum(vectors.dimensions.values())
    common = sum(islice(vectors.dimensions.values(), _MOST_DIMENSIONS))
    return f"{len(vectors.dimensions)} different lengths" if common < (1 - _DAMAGED) * rows else None


def _unfinite(vectors: Vectors) -> str | None:
    rows = sum(vectors.dimensions.values())
    if vectors.unfinite <= _DAMAGED * rows:
        return None
    return f"{vectors.unfinite} of {rows} rows hold numbers that are not finite"


def _scatter(vectors: Vectors) -> str | None:
    if vectors.scatter > 3.5:
        return f"numbers of {2 * vectors.scatter:.0f} powers of two: of another type or byte order, or none"
    return "all numbers are about the same size" if vectors.scatter < 0.9 else None


def _norm(vectors: Vectors) -> str | None:
    low, _, high = vectors.norms
    return None if low >= 0.01 and high <= min(2000, 300 * low) else f"norms from {low:.3g} to {high:.3g}"


def _sign(vectors: Vectors) -> str | None:
    if min(vectors.negative, 1 - vectors.negative) >= 0.02:
        return None
    if vectors.negative:
        return f"{100 * vectors.negative:.3g} % of the numbers are negative"
    # A rectifier makes many values exactly zero.
    return "no number is negative, and few are zero" if vectors.zeros < 0.02 else None


def _zeros(vectors: Vectors) -> str | None:
    return f"{100 * vectors.zeros:.3g} % of the numbers are zero" if vectors.zeros > 0.95 else None


def _rounded(vectors: Vectors) -> str | None:
    there = vectors.judged[vectors.judged != 0]
    if np.mean(there == np.rint(there)) > 0.5:
        return "whole numbers"
    hundredths = 100 * there
    near = np.abs(hundredths - np.rint(hundredths)) <= 1e-6 * np.abs(hundredths)
    return "rounded to hundredths, as amounts and scores are" if near.mean() > 0.7 else None


def _shares(vectors: Vectors) -> str | None:
    if vectors.negative or len(vectors.judged) < 2:
        return None
    sums = vectors.judged.sum(axis=1)
    return "each row adds up to the same, as shares do" if sums.std() < 1e-3 * sums.mean() else None


def _same_rows(vectors: Vectors) -> str | None:
    rows = len(vectors.judged)
    distinct = len({row.tobytes() for row in vectors.judged})
    return f"only {distinct} of {rows} rows differ" if distinct < 0.3 * rows else None


def _fixed(vectors: Vectors) -> str | None:
    if len(vectors.judged) < 3:
        return None
    numbers = vectors.fixed & (vectors.judged[0] != 0)
    # A rectifier may leave some positions zero in every row.
    allowed = 0.1 if vectors.negative else 0.7
    if numbers.mean() <= 0.01 and vectors.fixed.mean() <= allowed:
        return None
    return f"{100 * vectors.fixed.mean():.3g} % of the positions are the same in every row"


def _alike(vectors: Vectors) -> str | None:
    if len(vectors.judged) < 3:
        return None
    # Of dlib's features the mean of all people is four fifths.
    common = np.square(vectors.judged.mean(axis=0)).mean() / np.square(vectors.judged).mean()
    return "the rows hardly differ" if common > 0.99 else None


def _header(vectors: Vectors) -> str | None:
    if not vectors.header:
        return None
    first = "number is" if vectors.header == 1 else f"{vectors.header} numbers are"
    return f"the first {first} of another kind: a header"


def _trailer(vectors: Vectors) -> str | None:
    if not vectors.trailer:
        return None
    last = "number is" if vectors.trailer == 1 else f"{vectors.trailer} numbers are"
    return f"the last {last} of another kind: something comes after the feature"


def _gradual(vectors: Vectors) -> str | None:
    rows = vectors.judged - vectors.judged.mean(axis=1, keepdims=True)
    power = np.square(rows).sum(axis=1)
    # Neighbours in a feature have nothing to do with each other; chance alone gives 1 / sqrt(D).
    limit = 0.4 + 2 / math.sqrt(rows.shape[1])
    together = max(np.mean((rows[:, lag:] * rows[:, :-lag]).sum(axis=1) / power) for lag in (1, 2, 3))
    return "neighbours go together, as in curves, pictures and coordinates" if together > limit else None


def _alternating(vectors: Vectors) -> str | None:
    zeros = (vectors.judged == 0).mean(axis=0)
    chance = 5 * spread(vectors.sizes) / math.sqrt(len(zeros))
    for step, ordinal in ((2, "other"), (3, "third"), (4, "fourth")):
        sizes = [mean(vectors.sizes[start::step]) for start in range(step)]
        empty = [float(zeros[start::step].mean()) for start in range(step)]
        if max(sizes) - min(sizes) > 0.5 + chance * math.sqrt(step) or max(empty) - min(empty) > 0.3:
            return f"every {ordinal} number is of another kind"
    return None


_Check = Callable[[Vectors], str | None]
_OF_SHAPE: tuple[_Check, ...] = (_undecodable, _dimension, _many_dimensions, _unfinite)
_OF_VALUES: tuple[_Check, ...] = (
    _scatter,
    _norm,
    _sign,
    _zeros,
    _rounded,
    _shares,
    _same_rows,
    _fixed,
    _alike,
    _header,
    _trailer,
    _gradual,
    _alternating,
)
