"""Backfill: every subject of a source becomes a template, shard by shard, resumable at any moment."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from pfstore.gallery import galleries, runs
from pfstore.gallery.galleries import Strategy
from pfstore.gallery.locking import locked
from pfstore.gallery.runs import Counts
from pfstore.gallery.writing import staging
from pfstore.jobs import queue_state, working
from pfstore.jobs.contracts import contract_of, form, plan_of
from pfstore.jobs.fusing import ShardFuser
from pfstore.jobs.summary import Observer, Progress, Summary
from pfstore.sources.base import FeatureSource
from pfstore.stages import Profile, measured, stage

if TYPE_CHECKING:
    from pfstore.fusion import Fuser
    from pfstore.gallery.database import Connection


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
            fuser = form(fuser, compact)
            contract = contract_of(source, fuser, strategy)
            version = galleries.ensure(connection, gallery, contract, fuser.blocks)
            plan = plan_of(contract, source_name, mapping, limit)
        with locked(connection, version.version_id, version.said):
            with stage("planning"):
                queue_state.refuse_going(connection, version)
                run_id = None if restart or limit else runs.resumable(connection, version, "backfill", plan)
                resumed = run_id is not None
                if run_id is None:
                    shards = source.shards(working.SHARD_FEATURES)
                    kind: runs.Kind = "try" if limit else "backfill"
                    run_id = runs.start(connection, version, kind=kind, source=source_name, plan=plan, shards=shards)
                before = runs.listed(connection, run_id=run_id)[0].counts
            with staging(connection, version, run_id) as writer:
                counts, watches = working.work(
                    connection,
                    source,
                    ShardFuser(fuser, version.strategy),
                    writer,
                    runs.shards(connection, run_id),
                    before=before,
                    limit=limit,
                    marks=working.tells_cheaply(source),
                    observer=observer,
                )
            with stage("finishing"):
                counts += Counts(removed=runs.finish(connection, run_id))
                promoted = working.complete(connection, version, counts, promote=not limit)
        with stage("finishing"):
            active = galleries.active_number(connection, gallery)
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
            contract = contract_of(source, form(fuser, compact), strategy)
            shards = list(source.shards(working.SHARD_FEATURES))
        planned = sum(shard.features for shard in shards), sum(shard.subjects for shard in shards)
        for shard in shards:
            for batch in working.read(source, shard.range, contract.dimension, limit and limit - counts.seen):
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
