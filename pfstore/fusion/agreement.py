"""How well the features of one set agree: cosines to the others, which of them lie apart, which are the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pfstore.features import Floats, Offsets
from pfstore.fusion.attention import Numbers, Weights
from pfstore.fusion.ragged import runs

LEAST_FRAMES = 5
"""Of fewer features none is called an outlier: the spread of four tells nothing."""

SPREADS = 3.0
"""An outlier lies more than so many standard deviations, estimated robustly, below the median cosine."""

NORMAL = 1.4826
"""The standard deviation of a normal distribution, in units of its median absolute deviation (Hampel 1974)."""

MEDIA_APART = 3
"""Of so many media or more, a frame is compared with the other media instead of all other frames."""

_NOTHING = 1e-6  # the length of a sum of unit features below which it points nowhere
_CACHED_VALUES = 2**20  # values that are worked on at once, in float64


def cosines_to_others(features: Floats, media_offsets: Offsets) -> Weights:
    """[N] float64, each feature's cosine to the mean of the others; features: [N, D], no row zero.

    Of MEDIA_APART media or more, the others are the other media, each counting once by the mean of its unit features:
    frames of one medium are alike in more than whom they show, and a long video would make outliers of all photos.
    Of fewer media they are all other unit features. NaN where there is no other, or where the others cancel to zero.
    """
    if len(media_offsets) <= MEDIA_APART:
        media_offsets = np.arange(len(features) + 1)
    counts = np.diff(media_offsets)
    total = np.zeros(features.shape[1])
    for rows, units in _units(features, 0, len(features)):
        total += (1 / counts[_owners(media_offsets, rows)]) @ units
    cosines = np.empty(len(features))
    for first, last in runs(media_offsets, _step(features)):
        offsets = media_offsets[first : last + 1]
        others = total - _means(features, offsets)
        lengths = np.linalg.norm(others, axis=1)
        lengths[lengths < _NOTHING] = np.nan
        for rows, units in _units(features, offsets[0], offsets[-1]):
            owners = _owners(offsets, rows)
            cosines[rows] = np.einsum("nd,nd->n", units, others[owners]) / lengths[owners]
    return cosines


def cosines_to(vectors: NDArray[np.floating], features: Floats) -> Weights:
    """[blocks, N] float64, the cosine of each feature ([N, D]) to each vector ([blocks, D]), none of them zero."""
    targets = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosines = np.empty((len(vectors), len(features)))
    for rows, units in _units(features, 0, len(features)):
        cosines[:, rows] = targets @ units.T
    return cosines


def outlier_limit(cosines: Weights) -> float | None:
    """Return the cosine below which a feature is an outlier; None for fewer than LEAST_FRAMES features.

    The rule: median - SPREADS · NORMAL · MAD of the cosines ([N]), MAD being the median absolute deviation.
    """
    known = cosines[~np.isnan(cosines)]
    if len(known) < LEAST_FRAMES:
        return None
    median = np.median(known)
    return float(median - SPREADS * NORMAL * np.median(np.abs(known - median)))


def first_alike(features: Floats) -> Numbers:
    """[N] int64, for each feature the first one with the same values, digit for digit; -1 where that is itself."""
    rows = np.ascontiguousarray(features)
    seen: dict[bytes, int] = {}
    firsts = np.array([seen.setdefault(row.tobytes(), number) for number, row in enumerate(rows)], dtype=np.int64)
    firsts[firsts == np.arange(len(firsts))] = -1
    return firsts


def _means(features: Floats, offsets: Offsets) -> Weights:
    """[M, D], the means of the unit features of media, which are either few enough for one step or but one."""
    sums = np.zeros((len(offsets) - 1, features.shape[1]))
    for _, units in _units(features, offsets[0], offsets[-1]):
        sums += np.add.reduceat(units, offsets[:-1] - offsets[0], axis=0)
    return np.asarray(sums / np.diff(offsets)[:, None])


def _units(features: Floats, first: int, last: int) -> Iterator[tuple[slice, Weights]]:
    """Yield the unit features ([n, D] float64) of the rows from first to last, some after another."""
    step = _step(features)
    for start in range(int(first), int(last), step):
        rows = slice(start, min(start + step, int(last)))
        part = features[rows].astype(np.float64)
        yield rows, part / np.linalg.norm(part, axis=1, keepdims=True)


def _owners(offsets: Offsets, rows: slice) -> Numbers:
    return np.searchsorted(offsets, np.arange(rows.start, rows.stop), side="right") - 1


def _step(features: Floats) -> int:
    return max(1, _CACHED_VALUES // int(features.shape[1]))
