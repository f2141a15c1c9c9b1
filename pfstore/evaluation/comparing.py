"""Comparison scores of templates as whole numbers, the same whatever the blocks, the order and the machine.

The score is the cosine, kept in steps of 2^-22 (2.4e-7, what float32 sums leave certain). Values of templates are
rounded to multiples of 2^-26 first, so that float64 adds their products without any rounding, in any order. Equal
templates then have equal scores, ties are ties, and one pass over the comparisons is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import InputError
from pfstore.evaluation.templates import Templates
from pfstore.features import Floats, Offsets, expanded

Keys: TypeAlias = NDArray[np.int32]
"""Comparison scores in units of STEP."""

STEP = 2.0**-22
FIXED = 2.0**26
# Products of fixed values are in units of FIXED^-2; this factor on one side makes them units of STEP.
PER_STEP = 1 / (FIXED**2 * STEP)
# A key below FLOOR stands for no comparison; MASKED is far below, so that a shift leaves it there.
FLOOR, MASKED = -(2**29), -(2**30)

# A block of keys has at most so many, and so many probes at most and at least; references go in tiles.
BLOCK, MOST_ROWS, LEAST_ROWS, TILE = 2**24, 2048, 64, 2048
# A pair by itself costs so many times a pair within a product of matrices.
SINGLE_COST = 32
# Terms of a softmax are rounded to such multiples, so that their sum does not depend on their order.
SOFTMAX_UNIT = 2.0**-32
# L2-normalised float32 values are off by less than this.
NORM_TOLERANCE = 1e-3


def check(templates: Templates, role: str) -> None:
    """Raise InputError, naming the sample, where a template is not finite or not L2-normalised."""
    for first in range(0, len(templates.values), TILE):
        rows = templates.values[first : first + TILE].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        wrong = np.flatnonzero(~(abs(norms - 1) < NORM_TOLERANCE))
        if len(wrong):
            raise InputError(
                f"the template of {role} {templates.ids[first + wrong[0]]!r} has the norm {norms[wrong[0]]:g} instead "
                "of 1: a model that makes such templates cannot be evaluated"
            )


def blocks(probes: Floats, references: Floats) -> Iterator[tuple[int, Keys]]:
    """Yield the number of a first probe, and the keys of it and some next ones with all references ([b, G])."""
    if not len(references):
        return
    height = min(MOST_ROWS, max(LEAST_ROWS, BLOCK // len(references)))
    for first in range(0, len(probes), height):
        yield first, products(probes[first : first + height], references)


def products(probes: Floats, references: Floats) -> Keys:
    """[b, G], the keys of each probe with each reference."""
    rows = _fixed(probes) * PER_STEP
    keys = np.empty((len(rows), len(references)), dtype=np.int32)
    for start in range(0, len(references), TILE):
        scores = rows @ _fixed(references[start : start + TILE]).T
        keys[:, start : start + TILE] = np.rint(scores, out=scores)
    return keys


def of_pairs(probes: Floats, references: Floats, first: Offsets, second: Offsets) -> Keys:
    """[C], the keys of the probes `first` with the references `second` ([C] each), a pair at a time."""
    keys = np.empty(len(first), dtype=np.int32)
    for start in range(0, len(first), TILE):
        part = slice(start, start + TILE)
        rows = _fixed(probes[first[part]]) * PER_STEP
        keys[part] = np.rint(np.einsum("ij,ij->i", rows, _fixed(references[second[part]])))
    return keys


def pair_blocks(
    probes: Floats, references: Floats, first: Offsets, second: Offsets
) -> Iterator[tuple[NDArray[np.intp], Keys]]:
    """Yield pairs ([c], their places in `first` and `second`) and their keys ([c]).

    Pairs that share probes and references are taken from one product of matrices.
    """
    order = np.argsort(first, kind="stable")
    limits = np.searchsorted(first[order], np.arange(0, len(probes) + MOST_ROWS, MOST_ROWS))
    for number in range(len(limits) - 1):
        for start in range(limits[number], limits[number + 1], BLOCK):
            places = order[start : min(start + BLOCK, limits[number + 1])]
            yield places, _picked(probes, references, first[places], second[places])


def _picked(probes: Floats, references: Floats, first: Offsets, second: Offsets) -> Keys:
    rows, row = np.unique(first, return_inverse=True)
    columns, column = np.unique(second, return_inverse=True)
    if len(first) * SINGLE_COST < len(rows) * len(columns):
        return of_pairs(probes, references, first, second)
    keys = np.empty(len(first), dtype=np.int32)
    for start in range(0, len(columns), TILE):
        within = np.flatnonzero((column >= start) & (column < start + TILE))
        tile = products(probes[rows], references[columns[start : start + TILE]])
        keys[within] = tile[row[within], column[within] - start]
    return keys


def cohort_shifts(keys: Keys) -> Keys:
    """[b], what turns the keys of probes with a gallery ([b, G]) into logarithms of a softmax, in units of STEP."""
    terms = np.multiply(keys, STEP)
    np.exp(terms, out=terms)
    terms /= SOFTMAX_UNIT
    sums = np.rint(terms, out=terms).sum(axis=1)
    shifts: Keys = np.rint(-np.log(sums * SOFTMAX_UNIT) / STEP).astype(np.int32)
    return shifts


def mates(probes: Offsets, references: Offsets) -> tuple[Offsets, Offsets]:
    """Return the mated comparisons of the probes of some subjects ([P]) with references of some ([G]).

    [m] int64 numbers of probes, rising, and [m] of references.
    """
    order = np.argsort(references, kind="stable")
    starts = np.searchsorted(references[order], probes, side="left")
    counts = np.searchsorted(references[order], probes, side="right") - starts
    return np.repeat(np.arange(len(probes)), counts), order[expanded(starts, counts)]


def same_width(templates: Sequence[Templates]) -> None:
    """Raise InputError where templates have different numbers of values."""
    widths = sorted({one.values.shape[1] for one in templates if len(one.values)})
    if len(widths) > 1:
        raise InputError(
            f"templates of {widths[0]} and of {widths[1]} values cannot be compared: fuse all by one model"
        )


def _fixed(values: Floats) -> NDArray[np.float64]:
    fixed = values.astype(np.float64)
    fixed *= FIXED
    return np.rint(fixed, out=fixed)
