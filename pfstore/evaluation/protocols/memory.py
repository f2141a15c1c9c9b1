"""The features of a part of a source, held in memory with what was left out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pfstore.errors import InputError
from pfstore.evaluation.protocols.survey import BATCH_FEATURES
from pfstore.features import FeatureBatch, Offsets, within
from pfstore.sources.base import FeatureSource, Reject, SourceBatch


@dataclass(frozen=True)
class Held:
    """Subjects with all their features. Memory: 4 bytes a value, and as much again while they are read.

    batch: where the source has no media each feature is a medium of its own. read, rejected: rows of these subjects,
    and of nobody. firsts: the first reject of each reason. excluded: rows that the mapping leaves out, by cause, of
    anybody.
    """

    batch: FeatureBatch
    read: int
    rejected: Counter[str]
    firsts: dict[str, Reject]
    excluded: Counter[str]

    @property
    def subjects(self) -> Sequence[str]:
        """[S] the subjects' keys."""
        return self.batch.subject_ids

    @property
    def media_counts(self) -> Offsets:
        """[S] int64, how many media each subject has."""
        return np.diff(self.batch.subject_offsets)


def hold(source: FeatureSource, wanted: Callable[[str], bool], dimension: int | None = None) -> Held:
    """Read a whole source and keep the subjects that are wanted; dimension: D, else that of most features.

    Raises InputError where no feature can be read.
    """
    dimension = dimension or source.sample().dimension
    if dimension is None:
        raise InputError("no feature of the source can be decoded, so there is nothing to work on")
    kept = _Kept(dimension)
    for shard in source.shards(8 * BATCH_FEATURES):
        for batch in source.read(shard.range, dimension=dimension, features=BATCH_FEATURES):
            kept.add(batch, wanted)
    return kept.held(source.has_media)


@dataclass
class _Kept:
    dimension: int
    batches: list[FeatureBatch] = field(default_factory=list)
    read: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, Reject] = field(default_factory=dict)
    excluded: Counter[str] = field(default_factory=Counter)

    def add(self, batch: SourceBatch, wanted: Callable[[str], bool]) -> None:
        keep = np.fromiter(map(wanted, batch.features.subject_ids), dtype=bool, count=len(batch.features.subject_ids))
        self.batches.append(batch.features.select(keep))
        rejects = [one for one in batch.rejects if one.subject is None or wanted(one.subject)]
        self.read += len(self.batches[-1].features) + len(rejects)
        self.rejected.update(str(one.reason) for one in rejects)
        self.excluded.update(dict(batch.excluded))
        for one in rejects:
            self.firsts.setdefault(str(one.reason), one)

    def held(self, has_media: bool) -> Held:
        batch = FeatureBatch.joined([FeatureBatch.empty(self.dimension), *self.batches])
        if not has_media:
            offsets = batch.set_offsets
            batch = replace(
                batch,
                media_offsets=np.arange(len(batch.features) + 1, dtype=np.int64),
                subject_offsets=offsets,
                media_ids=[str(number) for number in within(np.diff(offsets)).tolist()],
            )
        return Held(batch, self.read, self.rejected, self.firsts, self.excluded)
