"""How many 1:1 comparisons there were, and how many failures to acquire and to enrol prevented, by subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pfstore.evaluation.intervals import Replicates
from pfstore.evaluation.results import Doubles
from pfstore.evaluation.tails import Tail
from pfstore.features import Offsets


@dataclass(frozen=True)
class Census:
    """References and probes that each subject has in one gallery. [S] int64 each; all_ ones count failures too."""

    references: Offsets
    probes: Offsets
    all_references: Offsets
    all_probes: Offsets


@dataclass(frozen=True)
class Trials:
    """1:1 comparisons by outcome.

    mated_failures: [S] int64, mated ones that were not made. non_mated: made. attempted: non-mated ones, made or not.
    subject_pairs: among how many pairs of subjects non-mated ones were made, at most. censuses: of the galleries, each
    probe of which was compared with each reference; none where comparisons are listed.
    """

    mated_failures: Offsets
    non_mated: int
    attempted: int
    subject_pairs: int
    censuses: Sequence[Census] = ()

    @classmethod
    def of_galleries(cls, censuses: Sequence[Census]) -> Trials:
        """Count the comparisons of all probes with all references, gallery by gallery."""
        made = sum(one.references * one.probes for one in censuses)
        mated = sum(one.all_references * one.all_probes for one in censuses)
        present = sum(one.references + one.probes for one in censuses)
        non_mated = sum(int(one.references.sum() * one.probes.sum()) for one in censuses) - int(np.sum(made))
        attempted = sum(int(one.all_references.sum() * one.all_probes.sum()) for one in censuses) - int(np.sum(mated))
        return cls(
            np.asarray(mated - made), non_mated, attempted, pairs_among(np.asarray(present), non_mated), censuses
        )

    def non_mated_totals(self, replicates: Replicates, tails: Sequence[Tail]) -> tuple[Doubles, Doubles]:
        """[R] the weight of the non-mated comparisons that were made, and of those attempted.

        Exact for galleries; of listed comparisons it is that of a sample of them, the last of the tails.
        """
        if self.censuses:
            made = sum(_between(replicates, one.references, one.probes) for one in self.censuses)
            all_ = sum(_between(replicates, one.all_references, one.all_probes) for one in self.censuses)
            return np.asarray(made), np.asarray(all_)
        sample = tails[-1]
        weight = replicates.pairs_above(sample.references, sample.probes, np.array([len(sample.keys)]))[0]
        share = weight / max(1, len(sample.keys))
        return share * self.non_mated, share * self.attempted


def pairs_among(present: Offsets, comparisons: int) -> int:
    """How many pairs of the subjects that are present ([S] counts) so many comparisons are about, at most."""
    subjects = int(np.count_nonzero(present))
    return min(comparisons, subjects * (subjects - 1) // 2)


def _between(replicates: Replicates, references: Offsets, probes: Offsets) -> Doubles:
    return replicates.totals(references) * replicates.totals(probes) - replicates.squares(references * probes)
