"""What the tests of all formats do with a source: read it whole, and look at what came out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pfstore.features import Floats
from pfstore.sources.base import FeatureSource, Reject, SourceBatch

DATA = Path(__file__).parent / "data"
D = 4


def numbers(count: int, first: int = 1) -> Floats:
    """Return features [count, D] that are all different."""
    return (np.arange(count * D, dtype=np.float32) + first).reshape(count, D)


def read(source: FeatureSource, *, shard: int = 10**6, dimension: int = D) -> list[SourceBatch]:
    """Return all batches of a source that is cut into shards of so many features."""
    ranges = [one.range for one in source.shards(shard)]
    return [one for range_ in ranges for one in source.read(range_, dimension=dimension, features=10**6)]


def by_medium(batches: list[SourceBatch]) -> dict[tuple[str, str], list[list[float]]]:
    """Return the features of each subject and medium."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    for one in (batch.features for batch in batches):
        for s, subject in enumerate(one.subject_ids):
            for m in range(one.subject_offsets[s], one.subject_offsets[s + 1]):
                rows = one.features[one.media_offsets[m] : one.media_offsets[m + 1]]
                assert (subject, one.media_ids[m]) not in found
                found[subject, one.media_ids[m]] = rows.tolist()
    return found


def rejects(batches: list[SourceBatch]) -> list[Reject]:
    """Return what was rejected."""
    return [reject for batch in batches for reject in batch.rejects]


@contextmanager
def at_most(megabytes: float) -> Iterator[None]:
    """Fail where Python takes more memory than that at once."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 2**20, f"{peak / 2**20:.1f} MiB"
