"""Two versions of a gallery side by side: whom they hold, how they score, how accurate they are known to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from pfstore.errors import ConfigError, ConflictError, NotFoundError
from pfstore.gallery import galleries, thresholds
from pfstore.gallery.agreement import LEAST_SAMPLE, MOST_SAMPLE, SAMPLE, Agreement, agreement
from pfstore.gallery.calibration import snapshot
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.held_out import HeldOut, held_out
from pfstore.gallery.thresholds import Kind, needed

NAMED = 5
"""Keys of lacking subjects that are told."""

MOST_LACKING = 0.01
"""The share of the active version's subjects that a version may lack and be promoted without force."""

LOW_AGREEMENT = {True: 0.5, False: 0.1}
"""The share of subjects with the same nearest other below which to warn, by whether the extractor is the same.

Measured on 300 people of LFW: 0.93 between poolings of the same features, 0.35 between disjoint photos of the same
people, 0.28 with an untrained network, 0.19 between features that share no value; 0.23 where half of the people were
mixed up, 0.00 where all were.
"""

TOLD_FROM = 30
"""Subjects in a sample; in a smaller one chance and a few people make the agreement."""

Made: TypeAlias = Literal["none", "automatic", "calibrated"]


@dataclass(frozen=True)
class Coverage:
    """Numbers of subjects. lacking: the first keys of those that only the old version has.

    features_new, features_old: that were fused. newest_new, newest_old: the times of the last templates. What is of an
    old version is 0 or None where there is none.
    """

    both: int
    only_new: int
    only_old: int
    lacking: Sequence[str]
    features_new: int
    features_old: int | None
    newest_new: datetime | None
    newest_old: datetime | None

    @property
    def new(self) -> int:
        """Subjects of the new version."""
        return self.both + self.only_new

    @property
    def old(self) -> int:
        """Subjects of the old version."""
        return self.both + self.only_old

    @property
    def lacks(self) -> float:
        """The share of the old version's subjects that the new one lacks."""
        return self.only_old / self.old if self.old else 0.0


@dataclass(frozen=True)
class Limits:
    """What thresholds there are. lacking: the targets of the old version that the new one keeps to by none."""

    new: Made
    old: Made | None
    lacking: Sequence[tuple[Kind, float]]


@dataclass(frozen=True)
class Comparison:
    """A new version beside the old one, None where there is none. warnings: what is amiss, a sentence each.

    agreement: None where fewer than LEAST_SAMPLE subjects are in both. held_out: None where a card does not tell.
    """

    gallery: str
    version: int
    against: int | None
    coverage: Coverage
    agreement: Agreement | None
    held_out: HeldOut | None
    thresholds: Limits
    warnings: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        told, coverage = asdict(self), self.coverage
        for name in ("newest_new", "newest_old"):
            told["coverage"][name] = (when := getattr(coverage, name)) and when.isoformat()
        told["coverage"] |= {"new": coverage.new, "old": coverage.old, "lacks": coverage.lacks}
        if self.agreement:
            told["agreement"]["nearest"] = self.agreement.nearest
        return told


def pair(connection: Connection, name: str, number: int | None = None) -> tuple[Version, Version | None]:
    """Return a version, where none is named the newest that is not active, and the active one to compare it with.

    The latter is None where there is none, or it is the same. Raises NotFoundError where there is no such version or no
    template in it.
    """
    there = galleries.versions(connection, name)
    if number is None:
        others = [one.number for one in there if one.state != "active"]
        if not others:
            raise NotFoundError(
                f"gallery {name!r} has no version beside the active one: a backfill with another model or strategy "
                "makes one to compare"
            )
        number = others[-1]
    active = next((one for one in there if one.state == "active" and one.number != number), None)
    return galleries.version(connection, name, number), active


def compare(
    connection: Connection, new: Version, old: Version | None, *, sample: int = SAMPLE, seed: int = 0
) -> Comparison:
    """Compare a version with the one whose place it is to take, in one snapshot of both.

    Templates of different contracts are never compared with each other: `sample` subjects, drawn by the seed from those
    in both, are compared within each version. The connection must not be in a transaction. Raises ConfigError for
    a sample of less than LEAST_SAMPLE or more than MOST_SAMPLE.
    """
    if not LEAST_SAMPLE <= sample <= MOST_SAMPLE:
        raise ConfigError(f"a sample of {sample} subjects cannot be compared: take {LEAST_SAMPLE} to {MOST_SAMPLE:,}")
    with snapshot(connection):
        coverage = _coverage(connection, new, old)
        agreed = agreement(connection, new, old, sample, seed) if old else None
        known = held_out(connection, new, old) if old else None
        limits = _limits(connection, new, old)
        read = _read_until(connection, new, coverage)
    warnings = (
        *_of_coverage(new, old, coverage, read),
        *_of_scores(new, old, agreed, known),
        *_of_thresholds(new, old, limits),
    )
    return Comparison(new.gallery, new.number, old.number if old else None, coverage, agreed, known, limits, warnings)


def promote(
    connection: Connection, name: str, number: int, *, force: bool = False, sample: int = SAMPLE, seed: int = 0
) -> tuple[Version, Comparison]:
    """Compare a version with the active one, and promote it.

    Raises what galleries.promote raises, and ConflictError where it lacks more than MOST_LACKING of the active
    one's subjects; force promotes it all the same.
    """
    new, old = pair(connection, name, number)
    if not force:
        galleries.check_complete(connection, new)
    found = compare(connection, new, old, sample=sample, seed=seed)
    if found.coverage.lacks > MOST_LACKING and not force:
        raise ConflictError(
            f"{new.said} is not promoted: it lacks {_lacking(found.coverage, old)}, whom searches would miss; run "
            f"{new.backfill}, or promote with --force"
        )
    return galleries.promote(connection, name, number, force=force), found


def of_thresholds(connection: Connection, new: Version) -> list[str]:
    """Say so where a version has no thresholds, of which searches and verification would miss the active one's."""
    return list(_of_thresholds(new, None, _limits(connection, new, None)))


_COVERAGE = """
    SELECT count(*) FILTER (WHERE n.subject_id = o.subject_id), count(*) FILTER (WHERE o.subject_id IS NULL),
           count(*) FILTER (WHERE n.subject_id IS NULL), coalesce(sum(n.features), 0), sum(o.features),
           max(n.fused_at), max(o.fused_at)
    FROM (SELECT subject_id, features, fused_at FROM pfstore.templates WHERE version_id = %(new)s) n
    FULL JOIN (SELECT subject_id, features, fused_at FROM pfstore.templates WHERE version_id = %(old)s) o
        ON o.subject_id = n.subject_id
"""

_LACKING = """
    SELECT subject_id FROM pfstore.templates o WHERE version_id = %(old)s AND NOT EXISTS (
        SELECT FROM pfstore.templates n WHERE n.version_id = %(new)s AND n.subject_id = o.subject_id)
    ORDER BY subject_id LIMIT %(most)s
"""


def _coverage(connection: Connection, new: Version, old: Version | None) -> Coverage:
    versions = {"new": new.version_id, "old": old and old.version_id, "most": NAMED}
    row = connection.execute(_COVERAGE, versions).fetchone()
    assert row is not None
    both, only_new, only_old, features_new, features_old, newest_new, newest_old = row
    lacking = [one for (one,) in connection.execute(_LACKING, versions)] if only_old else []
    return Coverage(both, only_new, only_old, lacking, features_new, features_old, newest_new, newest_old)


def _read_until(connection: Connection, new: Version, coverage: Coverage) -> datetime | None:
    """Return from when on changes of the source are not in a version: its last run, or where it wrote later, that."""
    query = "SELECT max(started_at) FROM pfstore.runs WHERE version_id = %s AND state = 'done' AND kind <> 'try'"
    row = connection.execute(query, (new.version_id,)).fetchone()
    assert row is not None
    return max((when for when in (row[0], coverage.newest_new) if when), default=None)


def _limits(connection: Connection, new: Version, old: Version | None) -> Limits:
    there = thresholds.stored(connection, new)
    before = thresholds.stored(connection, old) if old else []
    lacking = [
        (one.kind, one.target)
        for one in before
        # A backfill also stores the rate that so few comparisons cannot tell apart from none.
        if one.comparisons >= needed(one.target)
        and not any(own.kind == one.kind and own.target <= one.target for own in there)
    ]
    return Limits(_made(there), _made(before) if old else None, lacking)


def _made(there: Sequence[thresholds.Threshold]) -> Made:
    if not there:
        return "none"
    return "automatic" if all(one.automatic for one in there) else "calibrated"


def _of_coverage(new: Version, old: Version | None, coverage: Coverage, read: datetime | None) -> Iterator[str]:
    if coverage.only_old:
        yield f"version {new.number} lacks {_lacking(coverage, old)}"
    if old and coverage.newest_old and (read is None or read < coverage.newest_old):
        yield (
            f"version {new.number} was not refreshed since version {old.number} got its newest templates "
            f"({coverage.newest_old:%Y-%m-%d %H:%M:%S} UTC): run `pfstore refresh {new.gallery} --version {new.number}`"
        )


def _lacking(coverage: Coverage, old: Version | None) -> str:
    assert old is not None
    more = ", …" if coverage.only_old > len(coverage.lacking) else ""
    return (
        f"{coverage.only_old:,} of the {coverage.old:,} subjects of version {old.number} "
        f"({coverage.lacks:.2%}: {', '.join(map(repr, coverage.lacking))}{more})"
    )


def _of_scores(new: Version, old: Version | None, agreed: Agreement | None, known: HeldOut | None) -> Iterator[str]:
    if old and agreed and agreed.subjects >= TOLD_FROM:
        low = LOW_AGREEMENT[new.extractor == old.extractor]
        if agreed.nearest < low:
            yield (
                f"only {agreed.same_nearest:,} of {agreed.subjects:,} subjects have the same nearest other in "
                f"versions {new.number} and {old.number} (below {low:.0%}): unless the model is a very different one, "
                "subjects may be mixed up; search for people whose keys are known"
            )
    if old and known and known.is_worse:
        people = "" if known.same_people else ", perhaps of other people"
        yield (
            f"on held-out people version {new.number} makes more errors than version {old.number}: FNMR "
            f"{known.new.fnmr:.4f} against {known.old.fnmr:.4f} at FMR {known.new.fmr:g}{people}"
        )


def _of_thresholds(new: Version, old: Version | None, limits: Limits) -> Iterator[str]:
    remedy = f"run `pfstore calibrate {new.gallery} --version {new.number}`"
    if limits.new == "none":
        yield f"version {new.number} has no thresholds: {remedy}"
    elif limits.new == "automatic" and limits.old == "calibrated":
        assert old is not None
        yield (
            f"the thresholds of version {new.number} were made by a backfill, those of version {old.number} by "
            f"calibration: {remedy}"
        )
    if old and limits.lacking and limits.new != "none":
        targets = ", ".join(f"{kind.upper()} {target:.2g}" for kind, target in limits.lacking)
        yield f"version {new.number} has no threshold at {targets}, as version {old.number} has: {remedy}"
