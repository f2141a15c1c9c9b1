"""The work of a run: its shards are read, fused and written, and what searches need is made of the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pfstore.gallery import galleries, indexing
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.runs import Counts, PlannedShard
from pfstore.gallery.writing import ShardWriter
from pfstore.jobs.fusing import ShardFuser
from pfstore.jobs.pipeline import pipelined
from pfstore.jobs.summary import Observer, Progress
from pfstore.sources.base import FeatureSource, MarkedSource, ShardRange, SourceBatch
from pfstore.stages import Stopwatch, stage

BATCH_FEATURES = 16_384
"""Features read, fused and staged at once: 32 MB at 512 values."""

INDEXED_FROM = 250_000
"""Templates of a new version from which on an index is built and tuned: to compare all takes a tenth of a second."""

AHEAD_FEATURES = 2 * BATCH_FEATURES
"""Features that may have been read and not yet written; one subject of more is not cut."""

SHARD_FEATURES = 4 * BATCH_FEATURES
"""Features committed at once: what a killed run has to do again at the most."""

_NONE = Counts()


def tells_cheaply(source: FeatureSource) -> bool:
    """Tell whether a source knows without reading its features whether a subject has changed."""
    return isinstance(source, MarkedSource) and source.marks_by != "content"


def read(
    source: FeatureSource, range_: ShardRange, dimension: int, limit: int | None = None, *, marks: bool = False
) -> Iterator[SourceBatch]:
    """Read a shard, whole or as far as the limit of subjects; marks: with those of its subjects."""
    left = limit
    if marks and isinstance(source, MarkedSource):
        batches = iter(source.read(range_, dimension=dimension, features=BATCH_FEATURES, marks=True))
    else:
        batches = iter(source.read(range_, dimension=dimension, features=BATCH_FEATURES))
    while left is None or left > 0:
        with stage("waiting"):
            batch = next(batches, None)
        if batch is None:
            return
        if left is not None:
            batch = batch.first(left)
            left -= batch.subjects
        yield batch


def work(
    connection: Connection,
    source: FeatureSource,
    fuser: ShardFuser,
    writer: ShardWriter,
    shards: Sequence[PlannedShard],
    *,
    before: Counts = _NONE,
    limit: int | None = None,
    marks: bool = False,
    observer: Observer = lambda _: None,
) -> tuple[Counts, list[Stopwatch]]:
    """Fuse those shards of a run that are not done; return what was counted, and what the pipeline's threads measured.

    before: what the run counted already, to which the rest is added. limit: so many subjects of the run.
    marks: also write what the source says of its subjects, if it can tell.
    """
    total = before
    planned = sum(shard.planned_features for shard in shards), sum(shard.planned_subjects for shard in shards)

    def done(counts: Counts) -> None:
        nonlocal total
        total += counts
        observer(Progress(total, *planned))

    seen = total.seen
    with pipelined(connection, fuser, writer, ahead=AHEAD_FEATURES, done=done) as pipeline:
        for shard in (one for one in shards if not one.done):
            pipeline.begin()
            left = limit and limit - seen
            for batch in read(source, shard.range, writer.version.dimension, left, marks=marks):
                seen += batch.subjects
                pipeline.put(batch)
            pipeline.commit(shard.number)
    return total, pipeline.watches


def complete(
    connection: Connection, version: Version, counts: Counts, *, promote: bool, tolerance: float = 0.0
) -> bool:
    """Make what searching needs of a version that a run has ended in; promote it if there is none before.

    counts: of the run. tolerance: the share of templates that may have been written or removed before what rests on
    them, thresholds and the planner's statistics, is made anew. Tells whether the version was promoted.
    """
    # What prints progress imports this module, and comparing takes a while to load.
    from pfstore.gallery import calibration, tuning

    there = {one.number: one for one in galleries.versions(connection, version.gallery)}
    if there[version.number].empty:
        return False
    changed = counts.written + counts.removed
    if changed >= tolerance * counts.seen:
        galleries.analyze(connection, version)
    if changed or not tolerance:
        calibration.estimate(connection, version, tolerance)
    promoted = promote and not any(one.state == "active" for one in there.values())
    if promoted:
        galleries.promote(connection, version.gallery, version.number)
    new = there[version.number]
    is_wanted = promote and new.state == "building" and new.indexable and not new.indexed
    if is_wanted and galleries.size(connection, version) >= INDEXED_FROM:
        indexing.build(connection, version)
        tuning.tune(connection, version)
    return promoted
