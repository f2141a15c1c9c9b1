"""Experiments in memory: samples that are given as batches and count how often they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pfstore.evaluation.protocols.experiment import Experiment, Failure, Gallery, SampleBatch
from pfstore.features import FeatureBatch, Floats, offsets_of

D = 6

Sample = tuple[str, str, Sequence[Floats]]
"""The id of a sample, its subject and the features of its media, [n, D] each."""


class Counting:
    """Samples that count how often they are read; batches of so many samples."""

    def __init__(self, samples: Sequence[Sample], failures: Sequence[Failure] = (), per_batch: int = 3) -> None:
        self.samples, self.failures, self.per_batch = samples, failures, per_batch
        self.reads = 0

    def read(self, features: int) -> Iterator[SampleBatch]:
        """Yield the batches, the failures with the first."""
        assert features > 0
        self.reads += 1
        for first in range(0, len(self.samples), self.per_batch):
            some = self.samples[first : first + self.per_batch]
            yield SampleBatch(batch_of(some), [one[1] for one in some], () if first else self.failures)


def batch_of(samples: Sequence[Sample]) -> FeatureBatch:
    """Put samples into one batch."""
    media = [medium for _, _, sets in samples for medium in sets]
    return FeatureBatch(
        np.concatenate(media),
        offsets_of([len(medium) for medium in media]),
        offsets_of([len(sets) for _, _, sets in samples]),
        [name for name, _, _ in samples],
        [str(number) for _, _, sets in samples for number in range(len(sets))],
    )


def made_up(subjects: int, prefix: str, seed: int, media: Sequence[int] = (4, 1)) -> list[Sample]:
    """Make a sample of each subject, with media of so many features around a direction of its own."""
    directions = np.random.default_rng(0).normal(size=(subjects, D))
    random = np.random.default_rng(seed)
    return [
        (
            f"{prefix}{number}",
            f"s{number}",
            [(directions[number] + random.normal(size=(size, D))).astype(np.float32) for size in media],
        )
        for number in range(subjects)
    ]


def experiment(*galleries: Gallery, **more: Any) -> Experiment:
    """An experiment of these galleries."""
    given: dict[str, Any] = {"dimension": D, "extractor": "net"} | more
    return Experiment("made up", galleries, **given)
