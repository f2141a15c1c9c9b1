"""Probes of made-up people, with the truth about who they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pfstore.features import offsets_of
from pfstore.sources.probes import ProbeSets
from pfstore.synthetic.population import Population

_STREAM = 1_000_000  # numbers below are those of the probes in feature files


@dataclass(frozen=True)
class KnownProbes:
    """Probes and who they show. subjects: [S], the mated subject of each probe; "" for a non-mated one."""

    sets: ProbeSets
    subjects: Sequence[str]


def known_probes(population: Population, mated: int = 200, non_mated: int = 100, frames: float = 4.0) -> KnownProbes:
    """Return probes of subjects spread over the gallery, one each, then of strangers; frames is the mean of a probe.

    A mated probe's id is its subject's. Both are of media that the gallery has not. Raises ValueError where more mated
    probes are asked for than there are subjects.
    """
    if mated > population.subjects:
        raise ValueError(f"{mated} mated probes of {population.subjects} subjects")
    chosen = np.arange(mated) * population.subjects // max(1, mated)
    parts = [population.mated(chosen, frames, _STREAM), population.strangers(non_mated, frames)]
    counts = np.concatenate([np.diff(part.medium_offsets) for part in parts if len(part.subjects)])
    names = [population.name(subject) for subject in chosen.tolist()]
    ids = names + [f"stranger-{number:06d}" for number in range(non_mated)]
    features = np.concatenate([part.features for part in parts]).astype(np.float32, copy=False)
    return KnownProbes(ProbeSets(features, offsets_of(counts), ids, population.extractor), names + [""] * non_mated)


def write_probes(path: Path, known: KnownProbes) -> None:
    """Write probes as npz, as `search --probes` reads them; the array `subjects` tells the truth."""
    sets = known.sets
    np.savez(
        path,
        features=sets.features,
        offsets=sets.offsets,
        ids=np.array(sets.ids),
        extractor=np.array(sets.extractor),
        subjects=np.array(known.subjects),
    )
