"""Calibration: thresholds at given FMR and FPIR, from the non-mated comparisons that a gallery allows.

A target is one that LEAST_ERRORS errors are expected of, ties count as errors, and every rate has its count and its
95 % interval, as ISO/IEC 19795-1:2021 asks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from pgvector.psycopg import register_vector

from pfstore.errors import ConfigError, ContractError
from pfstore.evaluation.comparing import FLOOR
from pfstore.evaluation.distributions import Distribution
from pfstore.features import Floats
from pfstore.gallery import galleries, thresholds
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.intervals import Interval, of_comparisons, of_searches
from pfstore.gallery.non_mated import NonMated, Observer, References, score_of
from pfstore.gallery.pairings import GalleryAgainstGallery, ProbesAgainstGallery
from pfstore.gallery.thresholds import COUNTED, LEAST_ERRORS, Kind, Threshold, needed

SAMPLE = 3000
"""Subjects whose templates are compared: as many searches as an FPIR of 0.01 needs."""

DEFAULTS: Mapping[Kind, Sequence[float]] = {"fmr": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6), "fpir": (0.1, 0.01, 0.003)}
"""The targets taken, where none are given, of which LEAST_ERRORS errors can be expected."""

LEAST_PERSONS = 30
"""Fewer clusters leave cluster-robust variances too small (Cameron and Miller, J. Human Resources 50, 2015)."""

Targets: TypeAlias = Mapping[Kind, Sequence[float] | None]


@dataclass(frozen=True)
class Probes:
    """Templates of probes as `searching.probe_templates` fuses them, [P, blocks*D] float32, and their ids ([P])."""

    ids: Sequence[str]
    templates: Floats


@dataclass(frozen=True)
class Calibration:
    """What a calibration found and stored.

    templates: in the gallery. comparisons, searches: non-mated ones. mated: comparisons left out, of probes.
    """

    gallery: str
    version: int
    templates: int
    comparisons: int
    searches: int
    mated: int
    basis: str
    thresholds: Sequence[Threshold]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        listed = [one.as_dict() for one in self.thresholds]
        return vars(self) | {"thresholds": listed, "seconds": round(self.seconds, 3)}


def calibrate(
    connection: Connection,
    version: Version,
    *,
    fmr: Sequence[float] | None = None,
    fpir: Sequence[float] | None = None,
    sample: int | None = SAMPLE,
    probes: Probes | None = None,
    seed: int = 0,
    observer: Observer = lambda _: None,
) -> Calibration:
    """Find a version's thresholds at these FMRs and FPIRs and store them instead of those it has.

    The templates of `sample` subjects, drawn by the seed, or of all (None), are compared with those of all other
    subjects. With probes it is those that are compared with the gallery, all of them: what `verify` and `search` do. A
    probe whose id is a subject's is not compared with that subject. Each searched template is one search, valid for
    the present size of the gallery. Targets are in (0, 1); None takes those of DEFAULTS that the comparisons
    support.

    A threshold is the least score, to 2.2e-6, at which the rate is at most the target by the server's own scores.
    The gallery is read in one snapshot, so the connection must not be in a transaction; what is found is stored in one
    at the end. Raises ConfigError for a target that is no rate, ContractError, before comparing, for one that the
    comparisons do not support, where there are none, or where they are those of fewer than LEAST_PERSONS persons:
    however many comparisons each of them makes, they tell little about others.
    """
    targets: Targets = {"fmr": _targets("fmr", fmr), "fpir": _targets("fpir", fpir)}
    started, now = time.monotonic(), datetime.now(UTC)
    with snapshot(connection):
        references = References(connection, version, ids_of(connection, version))
        if probes is None:
            made: NonMated = GalleryAgainstGallery.draw(references, sample, seed)
        else:
            made = ProbesAgainstGallery.matched(references, probes.ids, probes.templates)
        _check(version, made, targets)
        found = _thresholds(made, targets, observer, automatic=False, now=now)
    standing = thresholds.replace(connection, version, found)
    return Calibration(
        gallery=version.gallery,
        version=version.number,
        templates=len(references),
        comparisons=made.comparisons,
        searches=made.searches,
        mated=made.mated,
        basis=made.basis,
        thresholds=standing,
        seconds=time.monotonic() - started,
    )


def estimate(connection: Connection, version: Version, tolerance: float = 0.0) -> list[Threshold]:
    """Give a version thresholds that cost little, where nobody has calibrated it, and return those that stand.

    The templates of up to SAMPLE subjects are compared with each other, for the default targets; FPIRs take the whole
    gallery, so there are none where it is larger. What is there stays where no more than this share of the templates
    was written or removed since. Beside the targets there is the FMR of 3/n that no error in n comparisons proves
    (the rule of three, ISO/IEC 19795-1:2021), so that a small gallery has a threshold at all. One of one subject has
    none.
    """
    there = thresholds.stored(connection, version)
    if there and not (there[0].automatic and _is_outdated(connection, version, there[0], tolerance)):
        return there
    now = datetime.now(UTC)
    with snapshot(connection):
        references = References(connection, version, ids_of(connection, version))
        made = GalleryAgainstGallery.draw(references, SAMPLE, seed=0, whole=False)
        targets: Targets = {"fmr": None, "fpir": None if made.is_whole else ()}
        found = _thresholds(made, targets, lambda _: None, automatic=True, now=now) if made.comparisons else []
    return thresholds.replace(connection, version, found)


def _is_outdated(connection: Connection, version: Version, one: Threshold, tolerance: float) -> bool:
    size, before = galleries.size(connection, version), one.templates
    if before is None:
        return True
    changed = max(abs(size - before), thresholds.written_since(connection, version, one.created_at))
    return changed > tolerance * before


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """See the gallery as it is now until the end; the connection must not be in a transaction."""
    register_vector(connection)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def ids_of(connection: Connection, version: Version) -> list[str]:
    """Return the subjects of a version, rising by code points."""
    query = "SELECT subject_id FROM pfstore.templates WHERE version_id = %s ORDER BY subject_id"
    return [one for (one,) in connection.execute(query, (version.version_id,))]


def _targets(kind: Kind, given: Sequence[float] | None) -> Sequence[float] | None:
    if given is None:
        return None
    for target in given:
        if not 0 < target < 1:
            raise ConfigError(f"the {kind.upper()} target {target:g} is not between 0 and 1: give one like 0.001")
    return sorted(set(given), reverse=True)


def _counts(made: NonMated) -> dict[Kind, int]:
    return {"fmr": made.comparisons, "fpir": made.searches}


def _check(version: Version, made: NonMated, targets: Targets) -> None:
    """Raise ContractError where there are no comparisons, or too few for a target that was asked for."""
    if not made.comparisons:
        raise ContractError(
            f"{version.said} allows no non-mated comparison ({made.basis}): it takes templates of two subjects, "
            "or probes of others"
        )
    if made.tellers < LEAST_PERSONS:
        raise ContractError(
            f"{made.tellers:,} persons ({made.basis}) are too few to tell an error rate of others by, however often "
            f"they are compared: take {LEAST_PERSONS} or more"
        )
    for kind, count in _counts(made).items():
        wanting = [target for target in targets[kind] or () if count < needed(target)]
        if wanting:
            raise ContractError(_too_few(kind, min(wanting), count, made))


def _too_few(kind: Kind, target: float, count: int, made: NonMated) -> str:
    least = _rounded_up(LEAST_ERRORS / count)
    instead = f"ask for {least:.2g} or more" if least < 1 else f"that is too few for any {kind.upper()}"
    most = made.most[kind]
    remedy = f", or take --all, which makes {most:,}" if most >= needed(target) else ""
    return (
        f"an {kind.upper()} of {target:g} needs {needed(target):,} {COUNTED[kind]}, so that {LEAST_ERRORS} errors can "
        f"be expected; there are {count:,} ({made.basis}): {instead}{remedy}"
    )


def _rounded_up(rate: float) -> float:
    """Round up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return math.ceil(rate / unit - 1e-9) * unit


def _thresholds(
    made: NonMated, targets: Targets, observer: Observer, *, automatic: bool, now: datetime
) -> list[Threshold]:
    """Compare twice: once for the thresholds, once for who takes part in the errors at them."""

    def of(kind: Kind, target: float, key: int, count: int, interval: Interval) -> Threshold:
        return Threshold(kind, target, score_of(key), count, *interval, made.enrolled, made.basis, automatic, now)

    distribution, best = made.tally(lambda part: observer(part / 2))
    keys = _keys(distribution, _supported("fmr", distribution.total, targets), lowest=automatic)
    errors, parts = made.errors(list(keys.values()), lambda part: observer((1 + part) / 2))
    of_fmr = [
        of("fmr", target, key, distribution.total, of_comparisons(wrong, parts))
        for (target, key), wrong in zip(keys.items(), errors, strict=True)
    ]
    searched = best > FLOOR
    searches, persons = best[searched], made.persons[searched]
    of_fpir = [
        of("fpir", target, key, len(searches), of_searches(searches >= key, persons, made.shared))
        for target, key in _keys(Distribution.of(searches), _supported("fpir", len(searches), targets)).items()
    ]
    return [*of_fmr, *of_fpir]


def _supported(kind: Kind, count: int, targets: Targets) -> Sequence[float]:
    given = targets[kind]
    return [one for one in DEFAULTS[kind] if count >= needed(one)] if given is None else given


def _keys(distribution: Distribution, targets: Sequence[float], *, lowest: bool = False) -> dict[float, int]:
    """Return the least key that at most a target's share reaches, by target; lowest: also what nothing reaches."""
    keys = {target: distribution.threshold(target) for target in targets}
    # Targets in use expect more errors than three, so this one is below them all.
    return keys | ({min(1.0, 3 / distribution.total): int(distribution.keys[-1]) + 1} if lowest else {})
