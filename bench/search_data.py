"""Galleries and probes to search: made-up people that differ as real ones do, or evenly in every dimension."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from pfstore.features import FeatureBatch, Floats, Offsets
from pfstore.fusion import Fuser, random_model
from pfstore.parts import Parts
from pfstore.synthetic import Population, known_probes
from pfstore.training.data import TrainingData
from pfstore.training.options import Options
from pfstore.training.training import train

DIMENSION, BLOCKS = 512, 4

REAL_LIKE = 75.0
"""The effective dimension of a public extractor's class means."""

_CHUNK = 4096
_TRAINED_ON = 1000


def people(name: str, subjects: int, seed: int = 0) -> Population:
    """Make people up; name: "real-like" or "random".

    With the noise chosen here mated probes of "real-like" score as good photos of real people do: 0.33, 0.44, 0.60 and
    0.69 are their 1st, 5th, 25th and 50th percentiles.
    """
    return Population(
        subjects=subjects,
        dimension=DIMENSION,
        seed=seed,
        features_per_subject=20,
        wrong_person_share=0.005,
        noise=0.2,
        medium_noise=0.65,
        drift=0.4,
        effective_dimension=REAL_LIKE if name == "real-like" else None,
    )


def trained(folder: Path) -> Fuser:
    """Train a network of BLOCKS blocks for a minute, on other people of the same kind."""
    batch = FeatureBatch.joined(list(people("real-like", _TRAINED_ON, seed=1).batches()))
    options = Options(
        experts=BLOCKS, subjects_per_batch=100, strangers=0, epochs=15, most_features=32, parts=Parts(0.9, 0.1, 0.0)
    )
    return train(TrainingData(batch), options, folder / "trained.safetensors", extractor="", label="bench").model


@dataclass(frozen=True)
class Crowd:
    """A gallery with mated and non-mated probes.

    templates: [N, blocks*D] float16 on disk, of the subjects 0 … N-1. mated: [P, blocks*D] float32, one probe of each
    of `mates` ([P] int64) in a random order. non_mated: [Q, blocks*D] float32. averages: [P+Q, D] float32, the mean
    features of all these probes, mated ones first.
    """

    name: str
    population: Population
    fuser: Fuser
    templates: NDArray[np.float16]
    mates: Offsets
    mated: Floats
    non_mated: Floats
    averages: Floats

    @classmethod
    def make(
        cls, name: str, subjects: int, folder: Path, *, mated: int, non_mated: int, fuser: Fuser | None = None
    ) -> Crowd:
        """Fuse a gallery, in a file of the folder, and its probes.

        fuser: else a random model, whose blocks are nearly parallel as a trained one's are.
        """
        population = people(name, subjects)
        fuser = fuser or random_model(DIMENSION, experts=BLOCKS, selected=BLOCKS, seed=0)
        templates = open_memmap(
            folder / f"{fuser.digest}.npy", mode="w+", dtype=np.float16, shape=(subjects, fuser.blocks * DIMENSION)
        )
        first = 0
        for batch in population.batches():
            made = fuser.templates(batch.features, batch.set_offsets, role="gallery")
            templates[first : first + len(made)] = made
            first += len(made)
        mated = min(mated, subjects)
        sets = known_probes(population, mated, non_mated, frames=5.0).sets
        probes = fuser.templates(sets.features, sets.offsets, role="probe")
        order = np.random.default_rng(0).permutation(mated)
        whole = np.concatenate([order, np.arange(mated, mated + non_mated)])
        averages = units(np.add.reduceat(units(sets.features), sets.offsets[:-1]))[whole]
        mates = np.arange(mated)[order] * subjects // mated
        return cls(name, population, fuser, templates, mates, probes[order], probes[mated:], averages)

    def __len__(self) -> int:
        return len(self.templates)

    def chunks(self) -> Iterator[tuple[int, Floats]]:
        """Yield the number of a first subject, and the templates of it and some next ones as float32."""
        for first in range(0, len(self), _CHUNK):
            yield first, self.templates[first : first + _CHUNK].astype(np.float32)

    @cached_property
    def findable(self) -> NDArray[np.bool_]:
        """[P] which mated probes have their mate first in an exhaustive search."""
        best, who = np.full(len(self.mated), -2, dtype=np.float32), np.full(len(self.mated), -1)
        for first, part in self.chunks():
            scores = self.mated @ part.T
            place = scores.argmax(axis=1)
            score = scores[np.arange(len(scores)), place]
            better = score > best
            best[better], who[better] = score[better], first + place[better]
        found: NDArray[np.bool_] = who == self.mates
        return found


def units(rows: Floats) -> Floats:
    """Bring rows to length 1."""
    made: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made
