"""What is lost, and gained, by keeping one template for a person instead of every feature."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.search_data import BLOCKS, Crowd, people
from pfstore.evaluation.comparing import STEP
from pfstore.evaluation.identification import Searches, identification
from pfstore.evaluation.intervals import Replicates
from pfstore.features import FeatureBatch, Floats
from pfstore.fusion import Fuser
from pfstore.parts import Parts
from pfstore.training.data import TrainingData
from pfstore.training.options import Options
from pfstore.training.training import train

FPIR = 0.01
_TRAINED_ON = 1000


@dataclass(frozen=True)
class Accuracy:
    """Shares of the mated searches: found first; missed at the threshold that gives an FPIR of at most FPIR."""

    rank_1: float
    fnir: float


def fused(crowd: Crowd) -> Accuracy:
    """Compare all probes' templates with all of the gallery."""
    probes = np.concatenate([crowd.mated, crowd.non_mated])
    return _accuracy(crowd, np.concatenate([probes @ part.T for _, part in crowd.chunks()], axis=1))


def trained(folder: Path) -> Fuser:
    """Train a network of BLOCKS blocks for a minute, on other people of the same kind."""
    batch = FeatureBatch.joined(list(people("real-like", _TRAINED_ON, seed=1).batches()))
    options = Options(
        experts=BLOCKS, subjects_per_batch=100, strangers=0, epochs=15, most_features=32, parts=Parts(0.9, 0.1, 0.0)
    )
    return train(TrainingData(batch), options, folder / "trained.safetensors", extractor="", label="bench").model


def unfused(crowd: Crowd) -> Accuracy:
    """Compare the mean features of all probes with all features; the score of a subject is the best of its own."""
    parts = []
    for batch in crowd.population.batches():
        units = batch.features / np.linalg.norm(batch.features, axis=1, keepdims=True)
        parts.append(np.maximum.reduceat(crowd.averages @ units.T, batch.set_offsets[:-1], axis=1))
    return _accuracy(crowd, np.concatenate(parts, axis=1))


def _accuracy(crowd: Crowd, scores: Floats) -> Accuracy:
    """Read the figures from [P+Q, N] scores."""
    keys = np.rint(scores / STEP).astype(np.int32)
    mated, non_mated = keys[: len(crowd.mates)], keys[len(crowd.mates) :]
    mates = mated[np.arange(len(mated)), crowd.mates]
    strangers = len(crowd) + np.arange(len(non_mated))
    searches = Searches(
        gallery=crowd.name,
        kind="raw",
        enrolled=len(crowd),
        mated=crowd.mates,
        mates=mates,
        ranks=(mated >= mates[:, None]).sum(axis=1),
        failed=np.empty(0, dtype=np.int64),
        non_mated=strangers,
        best=non_mated.max(axis=1),
    )
    replicates = Replicates.draw(len(crowd) + len(strangers), 0, 0)
    figures = identification(searches, [1], [FPIR], replicates)
    return Accuracy(figures.ranks[1].value, figures.at[0].fnir.value)
