"""How alike two versions score the same pairs of subjects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.comparing import MASKED, Keys, products
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.non_mated import References

SAMPLE, LEAST_SAMPLE, MOST_SAMPLE = 300, 3, 2000
"""Subjects whose templates are compared; the most make 2 million pairs, each of 60 bytes while they are ranked."""

BLOCK = 256
"""Templates on each side of a block of comparisons."""


@dataclass(frozen=True)
class Agreement:
    """How alike two versions score the same pairs of a sample of subjects that are in both.

    pearson, spearman: correlations over the pairs; None where all scores of a version are equal. same_nearest: the
    subjects whose nearest other in the sample is the same.
    """

    subjects: int
    pairs: int
    pearson: float | None
    spearman: float | None
    same_nearest: int

    @property
    def nearest(self) -> float:
        """The share of subjects whose nearest other is the same."""
        return self.same_nearest / self.subjects


_DRAWN = """
    SELECT subject_id FROM (
        SELECT n.subject_id FROM pfstore.templates n JOIN pfstore.templates o USING (subject_id)
        WHERE n.version_id = %(new)s AND o.version_id = %(old)s
        ORDER BY hashtextextended(n.subject_id, %(seed)s), n.subject_id LIMIT %(sample)s) drawn
    ORDER BY subject_id
"""


def agreement(connection: Connection, new: Version, old: Version, sample: int, seed: int) -> Agreement | None:
    """Compare the pairs of so many subjects, drawn by the seed from those in both versions, within each.

    None where fewer than LEAST_SAMPLE are in both.
    """
    drawn = {"new": new.version_id, "old": old.version_id, "sample": sample, "seed": seed % 2**63}
    ids = [one for (one,) in connection.execute(_DRAWN, drawn)]
    if len(ids) < LEAST_SAMPLE:
        return None
    (first, nearest), (second, others) = (_scores(References(connection, one, ids)) for one in (new, old))
    same = int(np.count_nonzero(nearest == others))
    return Agreement(
        len(ids), len(first), _correlation(first, second), _correlation(_ranks(first), _ranks(second)), same
    )


def _scores(references: References) -> tuple[Keys, NDArray[np.intp]]:
    """Compare every pair within a version once: [n(n-1)/2] scores in units of STEP, [n] each one's nearest other."""
    ids = references.ids
    keys = np.full((len(ids), len(ids)), MASKED, dtype=np.int32)
    for start in range(0, len(ids), BLOCK):
        rows = slice(start, start + BLOCK)
        values = references.read(ids[rows])
        for first in range(start, len(ids), BLOCK):
            columns = slice(first, first + BLOCK)
            block = products(values, values if first == start else references.read(ids[columns]))
            keys[rows, columns], keys[columns, rows] = block, block.T
    np.fill_diagonal(keys, MASKED)
    return keys[np.triu_indices(len(ids), 1)], keys.argmax(axis=1)


def _correlation(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Return Pearson's coefficient of two series, None where one of them has one value only."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Keys) -> NDArray[np.float64]:
    """Rank values, equal ones by the mean of their places, so that Pearson's coefficient of ranks is Spearman's."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
