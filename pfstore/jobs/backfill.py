"""Backfill: every subject of a source becomes a template, shard by shard, resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pfstore.errors import ContractError, SourceError
from pfstore.gallery import galleries, indexing, runs
from pfstore.gallery.galleries import Contract, Strategy, Version
from pfstore.gallery.locking import locked
from pfstore.gallery.runs import Counts
from pfstore.gallery.writing import ShardWriter, staging
from pfstore.jobs.fusing import ShardFuser
from pfstore.jobs.pipeline import pipelined
from pfstore.sources.base import FeatureSource, SourceBatch
from pfstore.stages import Profile, Stopwatch, measured, stage

if TYPE_CHECKING:
    from pfstore.fusion import Fuser
    from pfstore.gallery.database import Connection

BATCH_FEATURES = 16_384
"""Features read, fused and staged at once: 32 MB at 512 values."""

INDEXED_FROM = 250_000
"""Templates of a new version from which on an index is built and tuned: to compare all takes a tenth of a second."""

AHEAD_FEATURES = 2 * BATCH_FEATURES
"""Features that may have been read and not yet written; one subject of more is not cut."""

SHARD_FEATURES = 4 * BATCH_FEATURES
"""Features committed at once: what a killed run has to do again at the most."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: what it counted so far against what was planned."""

    counts: Counts
    planned_features: int
    planned_subjects: int


Observer = Callable[[Progress], None]


@dataclass(frozen=True)
class Summary:
    """What a run did. rejects: by reason. excluded: rows that the mapping left out, by cause.

    active: the version that answers searches now, None where none does.
    promoted: whether this run made it so. profile: where the time of this call went; what it read alone.
    """

    run: int | None
    gallery: str
    version: int | None
    resumed: bool
    counts: Counts
    rejects: dict[str, int]
    excluded: dict[str, int]
    promoted: bool
    active: int | None
    profile: Profile

    @property
    def seconds(self) -> float:
        """The wall time of this call."""
        return self.profile.wall

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        counts = self.counts
        return {
            "run": self.run,
            "gallery": self.gallery,
            "version": self.version,
            "resumed": self.resumed,
            "features": {"read": counts.read, "fused": counts.fused, "rejected": counts.rejected},
            "subjects": {
                "seen": counts.seen,
                "written": counts.written,
                "unchanged": counts.unchanged,
                "removed": counts.removed,
                "rejected": counts.subjects_rejected,
            },
            "rejects": self.rejects,
            "excluded": self.excluded,
            "promoted": self.promoted,
            "active": self.active,
            "seconds": round(self.seconds, 3),
        }


def backfill(
    connection: Connection,
    source: FeatureSource,
    fuser: Fuser,
    *,
    gallery: str,
    source_name: str,
    mapping: str = "",
    strategy: Strategy | None = None,
    compact: bool = False,
    limit: int | None = None,
    restart: bool = False,
    observer: Observer = lambda _: None,
) -> Summary:
    """Fuse every subject of a source into a gallery, going on where an interrupted run of the same plan stopped.

    A subject whose features are as they were keeps its template; one that the source no longer has, or whose every
    feature is now rejected, loses it. The first version of a gallery is promoted when the run is through; a later
    one waits for `promote`.
    fuser must be registered (pfstore.gallery.models). mapping: what decides which rows the source gives; a run of
    another mapping is not gone on with. compact: a template is the sum of the model's blocks. limit: only so many
    subjects, for a try, which removes and promotes nothing. restart: begin anew where a run could be resumed.

    Raises BusyError where another process writes the version, ContractError where a model of one block is to be made
    compact, and what source, model and server raise. After an error or a kill, finished shards stay and the next call
    goes on from there.
    """
    started = time.monotonic()
    with measured() as watch:
        with stage("planning"):
            fuser = _form(fuser, compact)
            contract = contract_of(source, fuser, strategy)
            version = galleries.ensure(connection, gallery, contract, fuser.blocks)
            plan = _plan(contract, source_name, mapping, limit)
        with locked(connection, version.version_id, version.said):
            with stage("planning"):
                run_id = None if restart or limit else runs.resumable(connection, version, plan)
                resumed = run_id is not None
                if run_id is None:
                    shards = source.shards(SHARD_FEATURES)
                    kind: runs.Kind = "try" if limit else "backfill"
                    run_id = runs.start(connection, version, kind=kind, source=source_name, plan=plan, shards=shards)
                before = runs.listed(connection, run_id=run_id)[0].counts
            with staging(connection, version, run_id) as writer:
                shard_fuser = ShardFuser(fuser, version.strategy)
                counts, watches = _work(connection, source, shard_fuser, writer, before, limit, observer)
            with stage("finishing"):
                counts += Counts(removed=runs.finish(connection, run_id))
                promoted = _complete(connection, version, promote=not limit)
        with stage("finishing"):
            there = galleries.versions(connection, gallery)
            active = next((one.number for one in there if one.state == "active"), None)
            rejects, excluded = runs.reasons(connection, run_id), runs.listed(connection, run_id=run_id)[0].excluded
    profile = Profile.of([watch, *watches], time.monotonic() - started, counts.read - before.read)
    return Summary(run_id, gallery, version.number, resumed, counts, rejects, excluded, promoted, active, profile)


def dry_run(
    source: FeatureSource,
    fuser: Fuser,
    *,
    gallery: str,
    strategy: Strategy | None = None,
    compact: bool = False,
    limit: int | None = None,
    observer: Observer = lambda _: None,
) -> Summary:
    """Read and check everything that a backfill would, and count it, without fusing or writing.

    Raises what reading raises, and ContractError where a model of one block is to be made compact.
    """
    started = time.monotonic()
    counts, rejects, excluded = Counts(), Counter[str](), Counter[str]()
    with measured() as watch:
        with stage("planning"):
            contract = contract_of(source, _form(fuser, compact), strategy)
            shards = list(source.shards(SHARD_FEATURES))
        planned = sum(shard.features for shard in shards), sum(shard.subjects for shard in shards)
        for shard in shards:
            for batch in _read(source, shard.range, contract.dimension, limit and limit - counts.seen):
                rejects.update(str(one.reason) for one in batch.rejects)
                excluded.update(batch.excluded)
                counts += Counts(
                    read=batch.read,
                    fused=len(batch.features.features),
                    rejected=len(batch.rejects),
                    seen=batch.subjects,
                    written=len(batch.features.subject_ids),
                    subjects_rejected=len(batch.rejected_subjects),
                )
                observer(Progress(counts, *planned))
    causes, left_out = dict(rejects.most_common()), dict(excluded.most_common())
    profile = Profile.of([watch], time.monotonic() - started, counts.read)
    return Summary(None, gallery, None, False, counts, causes, left_out, False, None, profile)


def contract_of(source: FeatureSource, fuser: Fuser, strategy: Strategy | None) -> Contract:
    """Return the contract under which this model, compact or not, fuses this source.

    Raises SourceError where no feature can be decoded, ContractError where the source's features have another
    dimension than the model takes, or there are no media to fuse first.
    """
    from pfstore.fusion import Compact

    if strategy == "media" and not source.has_media:
        raise ContractError('the strategy "media" needs a source with media: map a medium, or choose "set"')
    chosen = strategy or ("media" if source.has_media else "set")
    dimension, compact = _dimension(source, fuser), isinstance(fuser, Compact)
    return Contract(source.extractor, dimension, fuser.normalisation, fuser.digest, chosen, compact)


def _form(fuser: Fuser, compact: bool) -> Fuser:
    """Return the model as it fuses: its compact form where that is wanted."""
    from pfstore.fusion import compacted

    return compacted(fuser) if compact else fuser


def _dimension(source: FeatureSource, fuser: Fuser) -> int:
    sample = source.sample()
    if sample.dimension is None:
        raise SourceError(_undecodable(sample.read, Counter(str(one.reason) for one in sample.rejects)))
    if fuser.dimension not in (None, sample.dimension):
        raise ContractError(
            f"the source's features have {sample.dimension} values, the model {fuser.name!r} takes {fuser.dimension}: "
            "they are of another extractor, or the encoding is not what the mapping says"
        )
    return sample.dimension


def _undecodable(read: int, reasons: Counter[str]) -> str:
    if read == 0:
        return "the source holds no feature: check its table, filter or path"
    found = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"not one of the first {read} rows gives a feature ({found}): check the mapping's column and encoding"


def _plan(contract: Contract, source_name: str, mapping: str, limit: int | None) -> str:
    of_source = {"source": source_name, "mapping": mapping}
    described = asdict(contract) | of_source | {"limit": limit, "shard": SHARD_FEATURES}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _read(source: FeatureSource, range_: Any, dimension: int, limit: int | None) -> Iterator[SourceBatch]:
    """Read a shard, whole or as far as the limit of subjects."""
    left = limit
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


def _work(
    connection: Connection,
    source: FeatureSource,
    fuser: ShardFuser,
    writer: ShardWriter,
    total: Counts,
    limit: int | None,
    observer: Observer,
) -> tuple[Counts, list[Stopwatch]]:
    """Fuse what is left of a run; return what all its parts counted, and what the pipeline's threads measured.

    total: what its earlier parts counted.
    """
    shards = runs.shards(connection, writer.run_id)
    planned = sum(shard.planned_features for shard in shards), sum(shard.planned_subjects for shard in shards)

    def done(counts: Counts) -> None:
        nonlocal total
        total += counts
        observer(Progress(total, *planned))

    seen = total.seen
    with pipelined(connection, fuser, writer, ahead=AHEAD_FEATURES, done=done) as pipeline:
        for shard in (one for one in shards if not one.done):
            pipeline.begin()
            for batch in _read(source, shard.range, writer.version.dimension, limit and limit - seen):
                seen += batch.subjects
                pipeline.put(batch)
            pipeline.commit(shard.number)
    return total, pipeline.watches


def _complete(connection: Connection, version: Version, *, promote: bool) -> bool:
    """Make what searching needs of a finished version; promote it if there is none before, and tell whether so."""
    # What prints progress imports this module, and comparing takes a while to load.
    from pfstore.gallery import calibration, tuning

    there = {one.number: one for one in galleries.versions(connection, version.gallery)}
    if there[version.number].empty:
        return False
    galleries.analyze(connection, version)
    calibration.estimate(connection, version)
    promoted = promote and not any(one.state == "active" for one in there.values())
    if promoted:
        galleries.promote(connection, version.gallery, version.number)
    new = there[version.number]
    is_wanted = promote and new.state == "building" and new.indexable and not new.indexed
    if is_wanted and galleries.size(connection, version) >= INDEXED_FROM:
        indexing.build(connection, version)
        tuning.tune(connection, version)
    return promoted
