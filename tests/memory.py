"""A source whose features stand in memory, for tests of what comes after reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pfstore.features import FeatureBatch, Floats, offsets_of
from pfstore.sources.base import Reject, Sample, Shard, SourceBatch

Subjects = Mapping[str, Mapping[str, Floats]]
"""Features by subject and medium, each [n, D] float32."""


def batch_of(subjects: Subjects) -> FeatureBatch:
    """Return these subjects as one batch."""
    media = [features for media in subjects.values() for features in media.values()]
    return FeatureBatch(
        np.concatenate(media) if media else np.empty((0, 4), np.float32),
        offsets_of([len(features) for features in media]),
        offsets_of([len(media) for media in subjects.values()]),
        list(subjects),
        [medium for media in subjects.values() for medium in media],
    )


def people(count: int, dimension: int = 8, seed: int = 0, prefix: str = "s") -> dict[str, dict[str, Floats]]:
    """Return made-up subjects: one to three media of one to four features near a direction of their own."""
    random = np.random.default_rng(seed)
    made = {}
    for number in range(count):
        centre = random.normal(size=dimension)
        made[f"{prefix}{number:04}"] = {
            f"m{medium}": (centre + 0.2 * random.normal(size=(random.integers(1, 5), dimension))).astype(np.float32)
            for medium in range(random.integers(1, 4))
        }
    return made


@dataclass
class MemorySource:
    """A FeatureSource of two subjects a batch, `per_shard` a shard; calls `reading` before each batch."""

    subjects: Subjects
    rejects: Sequence[Reject] = ()
    rejected_subjects: Sequence[str] = ()
    extractor: str = "test-extractor"
    has_media: bool = True
    per_shard: int = 10
    reading: Callable[[], None] = field(default=lambda: None)

    def sample(self, rows: int = 1000) -> Sample:
        """Describe everything, whatever the number of rows."""
        batch = batch_of(self.subjects)
        norms = np.linalg.norm(batch.features, axis=1).tolist()
        dimension = batch.dimension if self.subjects else None
        return Sample(dimension, len(norms), len(self.subjects), len(batch.media_ids), norms, self.rejects)

    def shards(self, features: int) -> Iterator[Shard]:
        """Cut by number of subjects; the rejects are in the first shard."""
        names = list(self.subjects)
        for start in range(0, len(names), self.per_shard):
            part = names[start : start + self.per_shard]
            rows = sum(len(f) for name in part for f in self.subjects[name].values())
            yield Shard({"from": start, "to": start + len(part)}, rows, len(part))

    def read(self, range_: Mapping[str, Any], *, dimension: int, features: int) -> Iterator[SourceBatch]:
        """Yield two subjects at a time."""
        names = list(self.subjects)[range_["from"] : range_["to"]]
        for start in range(0, len(names), 2):
            self.reading()
            first = range_["from"] == 0 and start == 0
            yield SourceBatch(
                batch_of({name: self.subjects[name] for name in names[start : start + 2]}),
                self.rejects if first else (),
                self.rejected_subjects if first else (),
            )

    def __enter__(self) -> MemorySource:
        return self

    def __exit__(self, *exc: object) -> None:
        pass
