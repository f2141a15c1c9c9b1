"""Refresh: the subjects of a source that are new, changed or gone since the gallery was filled, and no others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pfstore.errors import ContractError
from pfstore.gallery import galleries, marks, runs
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Strategy, Version
from pfstore.gallery.locking import locked
from pfstore.gallery.marks import Comparison, Found
from pfstore.gallery.removals import Allowance
from pfstore.gallery.runs import Counts
from pfstore.gallery.writing import staging
from pfstore.jobs import queue_state, working
from pfstore.jobs.contracts import contract_of, form, plan_of
from pfstore.jobs.fusing import ShardFuser
from pfstore.jobs.summary import Observer, Summary
from pfstore.sources.base import FeatureSource, MarkedSource, Shard
from pfstore.stages import Profile, measured, stage

if TYPE_CHECKING:
    from pfstore.fusion import Fuser

WHOLE_FROM = 0.25
"""The share of a source's subjects that have to be read from which on all are: by ranges, each in its own snapshot."""

REMOVALS = 0.5
"""The share of a version's templates that may go at once without anybody being asked."""

HELD_SHARDS = 4
"""So many shards at the most are read in the snapshot that told who has changed."""

LEAST_SHARDS = 8
"""So many shards of keys may be, even where ranges of the whole source would be fewer."""

TOLERANCE = 0.1
"""The share of templates that may be new before thresholds and statistics are made anew."""


@dataclass(frozen=True)
class Planned:
    """A refresh that is to be done: its run, and what was found, None where the whole source has to be looked at.

    by: what tells of changes: "row versions", "change mark", "file", "content", or "fingerprints" where the source
    cannot tell and all is read. rows: that it will read, of one that is not whole.
    """

    run_id: int
    by: str
    found: Found | None
    whole: bool
    rows: int = 0

    @property
    def is_small(self) -> bool:
        """Whether it may be read in the snapshot that it was planned in."""
        return not self.whole and self.rows <= HELD_SHARDS * working.SHARD_FEATURES


@dataclass(frozen=True)
class RefreshSummary(Summary):
    """What a refresh did, and how it knew of whom."""

    by: str = ""
    whole: bool = False
    found: Found | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        found = self.found and asdict(self.found)
        return super().as_dict() | {"by": self.by, "whole": self.whole, "found": found}


@dataclass(frozen=True)
class Preview:
    """What a refresh would do. subjects: the first ones of each kind; none where the source has to be read to tell."""

    gallery: str
    version: int
    by: str
    found: Found | None
    subjects: dict[str, list[str]]

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)


def target(connection: Connection, gallery: str, number: int | None = None) -> Version | None:
    """Return the version that a refresh is for: that of a number, the active one, or the newest; None: there is none.

    Raises NotFoundError for an unknown number.
    """
    if gallery not in galleries.names(connection):
        return None
    if number is not None:
        return galleries.version(connection, gallery, number)
    there = galleries.versions(connection, gallery)
    return max(there, key=lambda one: (one.state == "active", one.number), default=None)


def first(
    connection: Connection,
    source: FeatureSource,
    fuser: Fuser,
    gallery: str,
    *,
    strategy: Strategy | None = None,
    compact: bool = False,
) -> Version:
    """Make the first version of a gallery, of the contract under which this model fuses this source.

    Raises as `contract_of` does.
    """
    fuser = form(fuser, compact)
    return galleries.ensure(connection, gallery, contract_of(source, fuser, strategy), fuser.blocks)


def refresh(
    connection: Connection,
    source: FeatureSource,
    fuser: Fuser,
    version: Version,
    *,
    source_name: str,
    mapping: str = "",
    full: bool = False,
    removals: float = REMOVALS,
    observer: Observer = lambda _: None,
) -> RefreshSummary:
    """Bring a version up to date with its source: fuse who is new or has changed, remove who has vanished.

    Who that is tell the source's marks (pfstore.sources.base.Marked) against those that were kept with the templates. A
    subject whose features turn out to be as they were keeps its template. All is seen in one snapshot where no more
    than HELD_SHARDS shards are to be read: one that is held for long makes who changes the legacy store's tables wait.
    From WHOLE_FROM on, and with full, the whole source is read, whatever its marks say.
    fuser: the version's model, compact or not. removals: the share of the version's templates that may vanish at once.

    Raises BusyError where another process writes the version, ConflictError where more would vanish than may, or have
    no usable row any more, ContractError where source and version do not fit, and what source and server raise. A
    refresh that was interrupted leaves finished shards; the next one finds out what is left.
    """
    started = time.monotonic()
    fuser = form(fuser, version.compact)
    with measured() as watch, locked(connection, version.version_id, version.said):
        with stage("planning"):
            queue_state.refuse_going(connection, version)
            check(source, fuser, version)
        with _held(source, full):
            with stage("planning"):
                planned = plan(
                    connection, source, version, source_name=source_name, mapping=mapping, full=full, removals=removals
                )
            before = runs.listed(connection, run_id=planned.run_id)[0].counts
            if planned.is_small:
                counts, watches = _work(connection, source, fuser, version, planned, before, observer)
        if not planned.is_small:
            counts, watches = _work(connection, source, fuser, version, planned, before, observer)
        with stage("finishing"):
            counts += Counts(removed=runs.finish(connection, planned.run_id))
            promoted = working.complete(
                connection, version, counts, promote=planned.whole, tolerance=0.0 if version.empty else TOLERANCE
            )
            rejects = runs.reasons(connection, planned.run_id)
            excluded = runs.listed(connection, run_id=planned.run_id)[0].excluded
            active = galleries.active_number(connection, version.gallery)
    return RefreshSummary(
        planned.run_id,
        version.gallery,
        version.number,
        False,
        counts,
        rejects,
        excluded,
        promoted,
        active,
        Profile.of([watch, *watches], time.monotonic() - started, counts.read),
        planned.by,
        planned.whole,
        planned.found,
    )


def preview(connection: Connection, source: FeatureSource, version: Version, *, most: int = 1000) -> Preview:
    """Tell whom a refresh would fuse and remove, at most so many of each kind by name; nothing is written."""
    if not isinstance(source, MarkedSource):
        return Preview(version.gallery, version.number, "fingerprints", None, {})
    with source.snapshot(), marks.compared(connection, version, source.marks()) as comparison:
        return Preview(version.gallery, version.number, source.marks_by, comparison.found, comparison.named(most))


def check(source: FeatureSource, fuser: Fuser, version: Version) -> None:
    """Raise ContractError where a source does not give what a version was made of."""
    now = contract_of(source, fuser, version.strategy)
    for what in ("extractor", "dimension", "normalisation", "model_digest"):
        there, given = getattr(version.contract, what), getattr(now, what)
        if there != given:
            raise ContractError(
                f"{version.said} is of {what.replace('_', ' ')} {there!r}, the source and model now give {given!r}: "
                f"run {version.backfill} for a version of its own"
            )


def plan(
    connection: Connection,
    source: FeatureSource,
    version: Version,
    *,
    source_name: str,
    mapping: str = "",
    full: bool = False,
    removals: float = REMOVALS,
) -> Planned:
    """Find out who is to be read, store that as a run with its shards, and remove who has vanished.

    To be called with the right to write the version, and in the source's snapshot. Of a run over the whole source who
    has vanished is removed in its end. Raises ConflictError as `refresh`.
    """
    digest = plan_of(version.contract, source_name, mapping)

    def whole(by: str, found: Found | None, templates: int) -> Planned:
        shards = list(source.shards(working.SHARD_FEATURES))
        run_id = runs.start(
            connection,
            version,
            kind="refresh",
            source=source_name,
            plan=digest,
            shards=shards,
            allowance=Allowance(version.said, removals, templates),
        )
        return Planned(run_id, by, found, whole=True)

    if not isinstance(source, MarkedSource):
        return whole("fingerprints", None, galleries.size(connection, version))
    if version.empty:
        return whole(source.marks_by, None, 0)
    with marks.compared(connection, version, source.marks()) as comparison:
        found = comparison.found
        allowance = Allowance(version.said, removals, found.templates)
        allowance.spend(vanished=found.vanished)
        shards = [] if full else _key_shards(connection, source, version, comparison)
        if shards is not None and not full:
            run_id = runs.start(
                connection,
                version,
                kind="refresh",
                source=source_name,
                plan=digest,
                shards=shards,
                whole=False,
                allowance=allowance,
            )
            runs.settle(
                connection,
                run_id,
                vanished=comparison.remove_vanished(),
                unchanged=found.unchanged,
                rejected=found.rejected,
            )
            return Planned(run_id, source.marks_by, found, whole=False, rows=sum(shard.features for shard in shards))
    return whole("fingerprints" if full else source.marks_by, found, found.templates)


def _held(source: FeatureSource, full: bool) -> AbstractContextManager[None]:
    return source.snapshot() if isinstance(source, MarkedSource) and not full else nullcontext()


def _key_shards(
    connection: Connection, source: MarkedSource, version: Version, comparison: Comparison
) -> list[Shard] | None:
    """Return shards of the keys of who is to be read; None where the whole source is read as well or better."""
    found = comparison.found
    many = found.new + found.changed > WHOLE_FROM * found.seen
    if many or not source.most_keys or not galleries.is_complete(connection, version):
        return None
    shards = list(_shards(source, comparison.to_read()))
    # Each may cost a look at the whole source, where no index leads to its keys.
    ranges = 1 + found.rows // working.SHARD_FEATURES
    return shards if len(shards) <= max(LEAST_SHARDS, 2 * ranges) else None


def _work(
    connection: Connection,
    source: FeatureSource,
    fuser: Fuser,
    version: Version,
    planned: Planned,
    before: Counts,
    observer: Observer,
) -> tuple[Counts, list[Any]]:
    with staging(connection, version, planned.run_id) as writer:
        return working.work(
            connection,
            source,
            ShardFuser(fuser, version.strategy),
            writer,
            runs.shards(connection, planned.run_id),
            before=before,
            marks=True,
            observer=observer,
        )


def _shards(source: MarkedSource, keys: Iterable[tuple[Sequence[Any], int]]) -> Iterator[Shard]:
    """Put keys into shards of about SHARD_FEATURES rows and no more keys than the source takes at once."""
    some: list[Sequence[Any]] = []
    rows = 0
    for key, count in keys:
        some.append(key)
        rows += count
        if rows >= working.SHARD_FEATURES or len(some) >= source.most_keys:
            yield Shard(source.range_of(some), rows, len(some))
            some, rows = [], 0
    if some:
        yield Shard(source.range_of(some), rows, len(some))
