"""What is lost, and gained, by keeping one template for a person instead of every feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.search_data import Crowd, units
from pfstore.evaluation.comparing import STEP
from pfstore.evaluation.identification import Searches, identification
from pfstore.evaluation.intervals import Replicates
from pfstore.features import Floats, Offsets

FPIRS = (0.1, 0.01)


@dataclass(frozen=True)
class Accuracy:
    """Shares of the mated searches: found first; missed at the threshold of each of FPIRS, of that FPIR at most."""

    rank_1: float
    fnirs: tuple[float, ...]

    @classmethod
    def of(cls, scores: Floats, mates: Offsets) -> Accuracy:
        """Read the figures from scores of P mated probes and Q non-mated ones with N subjects ([P+Q, N]).

        mates: [P] the subjects of the mated ones.
        """
        enrolled = scores.shape[1]
        keys = np.rint(scores / STEP).astype(np.int32)
        mated, non_mated = keys[: len(mates)], keys[len(mates) :]
        of_mates = mated[np.arange(len(mated)), mates]
        strangers = enrolled + np.arange(len(non_mated))
        searches = Searches(
            gallery="",
            kind="raw",
            enrolled=enrolled,
            mated=mates,
            mates=of_mates,
            ranks=(mated >= of_mates[:, None]).sum(axis=1),
            failed=np.empty(0, dtype=np.int64),
            non_mated=strangers,
            best=non_mated.max(axis=1),
        )
        figures = identification(searches, [1], FPIRS, Replicates.draw(enrolled + len(strangers), 0, 0))
        return cls(figures.ranks[1].value, tuple(one.fnir.value for one in figures.at))


def fused(crowd: Crowd) -> Accuracy:
    """Compare all probes' templates with all of the gallery."""
    probes = np.concatenate([crowd.mated, crowd.non_mated])
    return Accuracy.of(np.concatenate([probes @ part.T for _, part in crowd.chunks()], axis=1), crowd.mates)


def unfused(crowd: Crowd) -> Accuracy:
    """Compare the mean features of all probes with all features; the score of a subject is the best of its own."""
    batches = crowd.population.batches()
    parts = [best_of_each(crowd.averages, batch.features, batch.set_offsets) for batch in batches]
    return Accuracy.of(np.concatenate(parts, axis=1), crowd.mates)


def best_of_each(probes: Floats, features: Floats, offsets: Offsets) -> Floats:
    """Return each probe's best score with a feature of each subject ([P, S]); probes: [P, D] of length 1."""
    best: Floats = np.maximum.reduceat(probes @ units(features).T, offsets[:-1], axis=1)
    return best
