"""How an index is searched so that it keeps what is promised: the recall contract, measured on the gallery itself.

The promise: what the exhaustive search of whole templates finds first comes first. It is measured by pfstore.search,
the very function that users call, which takes its settings from the table pfstore.tunings. Settings under test stand
there in transactions that are rolled back, so nobody else's search ever sees them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from pfstore.errors import ConfigError, ConflictError, ContractError, NotFoundError
from pfstore.features import Floats
from pfstore.gallery import indexing, searching, thresholds
from pfstore.gallery.calibration import Probes, ids_of, snapshot
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.non_mated import Observer, References
from pfstore.gallery.pairings import ProbesAgainstGallery
from pfstore.gallery.recall import TOLERANCE, Recall, Wanted, wanted, worn
from pfstore.gallery.tunings import Setting, Tuning, stored, trying, write

__all__ = ["SAMPLE", "TARGET", "Setting", "Tuning", "stored", "tune"]

TARGET = 0.999
SAMPLE = 2000

LEAST_WORN = 0.35
"""The score of the most worn probe with its own subject, where the version has no threshold at DEFAULT_FMR."""

BREADTHS = (20, 40, 80, 160, 320, 640, 1000)

TIMED, TIMED_SECONDS = 30, 10.0
"""Searches that are timed, at most, and how long; after WARMING others."""

WARMING = 5

SETTINGS = tuple(Setting(breadth, max(20, min(breadth, 100))) for breadth in BREADTHS)
"""From the fastest on; each finds more than those before."""


def tune(
    connection: Connection,
    version: Version,
    *,
    target: float = TARGET,
    probes: Probes | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    observer: Observer = lambda _: None,
) -> Tuning:
    """Find the fastest setting of a version's index that keeps to a recall, and store it for all searches to come.

    Probes are held-out ones, whose ids tell their subjects as in `calibrate`; without any, `sample` of the gallery's
    own templates are worn (see `recall.worn`). The gallery is read in one snapshot and compared in full with them, then
    the index is searched for them with one breadth after the other. What it misses decides which of its answers stand:
    those whose best score is above all that were wrong, but for as many as the target allows; the other searches go
    on exhaustively. The breadth that takes the least time so is the best one. Where an exhaustive search takes no
    longer, all searches are exhaustive from then on.

    The connection must not be in a transaction; what is found is stored in one at the end. Raises ConfigError for a
    target that is no share, ContractError where there is no probe, ConflictError where there is no index, or another
    one in the end, NotFoundError where the version was dropped meanwhile.
    """
    if not 0 < target <= 1:
        raise ConfigError(f"the target {target:g} is not a share of the searches: give one like {TARGET}")
    index, now = indexing.oid_of(connection, version), datetime.now(UTC)
    if index is None:
        raise ConflictError(
            f"{version.said} has no index: its searches are exhaustive and exact; `pfstore gallery index "
            f"{version.gallery}` builds one"
        )
    with snapshot(connection):
        references = References(connection, version, ids_of(connection, version))
        if not len(references):
            raise NotFoundError(f"{version.said} holds no template any more")
        made = _probes(connection, references, probes, sample, seed)
        known = wanted(made, lambda part: observer(0.3 * part))
    with _there(version):
        # What a connection needs for searching is set up outside of what is rolled back.
        list(searching.search(connection, version, known.templates[:1]))
        exhaustive = _seconds(connection, version, known.templates, SETTINGS[0], exact=True)
        best = _best(connection, version, known, target, exhaustive, lambda part: observer(0.3 + 0.7 * part))
        basis = _basis(made, known, None if probes else seed)
        found = _tuning(best, target, exhaustive, basis, len(references), now)
        _keep(connection, version, index, found)
    observer(1.0)
    return found


def _tuning(best: _Trial, target: float, exhaustive: float, basis: str, templates: int, created_at: datetime) -> Tuning:
    low, high = best.recall.interval
    return Tuning(
        path="index" if best.seconds < exhaustive else "exhaustive",
        target=target,
        recall=best.recall.all,
        low=low,
        high=high,
        mated_recall=best.recall.mated,
        probes=len(best.recall.hits),
        basis=basis,
        **asdict(best.setting),
        answered=best.answered,
        index_seconds=best.seconds,
        exhaustive_seconds=exhaustive,
        templates=templates,
        created_at=created_at,
    )


def _keep(connection: Connection, version: Version, index: int, found: Tuning) -> None:
    """Store a tuning of the index that it was measured with. Raises ConflictError where that is another one now."""
    with connection.transaction():
        # Whoever puts another index in the place of this one waits for the lock.
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(version.partition))
        if indexing.oid_of(connection, version) != index:
            raise ConflictError(f"the index of {version.said} was built anew or dropped meanwhile: tune again")
        write(connection, version, found)


def _probes(
    connection: Connection, references: References, probes: Probes | None, sample: int, seed: int
) -> ProbesAgainstGallery:
    if probes is not None:
        if not len(probes.ids):
            raise ContractError("there is no probe to tune with")
        return ProbesAgainstGallery.matched(references, probes.ids, probes.templates)
    known = thresholds.stored(connection, references.version)
    usual = [one.threshold for one in known if one.kind == "fmr" and one.target == thresholds.DEFAULT_FMR]
    return worn(references, sample, seed, usual[0] if usual else LEAST_WORN)


def _basis(made: ProbesAgainstGallery, known: Wanted, seed: int | None) -> str:
    count, first = len(known.best), int(known.mated.sum())
    if seed is not None:
        what = f"{count:,} worn templates, seed {seed}"
    elif made.mated:
        what = f"{made.mated:,} mated probes" + ("" if made.mated == count else f" and {count - made.mated:,} others")
    else:
        what = f"{count:,} probes, none of them of a subject of it"
    return what if first in (0, made.mated) else f"{what}; {first:,} of them have their own subject as the best"


@dataclass(frozen=True)
class _Trial:
    """A setting, what is found with it, the share of searches that end with the index, and the mean seconds of one."""

    setting: Setting
    recall: Recall
    answered: float
    seconds: float


def _best(
    connection: Connection, version: Version, known: Wanted, target: float, exhaustive: float, observer: Observer
) -> _Trial:
    """Try one breadth after the other, as long as a wider one can be faster on the whole."""
    trials: list[_Trial] = []
    for number, setting in enumerate(SETTINGS):
        scores = _scores(connection, version, known, setting)
        seconds = _seconds(connection, version, known.templates, setting, exact=False)
        trials.append(_trial(setting, known, scores, target, seconds, exhaustive))
        observer((number + 1) / len(SETTINGS))
        if seconds >= min(one.seconds for one in trials):
            break
    return min(trials, key=lambda one: one.seconds)


def _trial(
    setting: Setting, known: Wanted, scores: NDArray[np.float64], target: float, seconds: float, exhaustive: float
) -> _Trial:
    """Find the score from which on the index can be believed. scores: [P], the best that it gave for each probe."""
    wrong, judged = scores < known.best - TOLERANCE, known.judged
    errors, spare = np.sort(scores[wrong])[::-1], int((1 - target) * np.count_nonzero(judged) + 1e-9)
    sure = float(np.nextafter(errors[spare], np.inf)) if len(errors) > spare else None
    stands = scores >= sure if sure is not None else np.ones_like(wrong)
    answered = float(stands[judged].mean())
    mean = seconds + (1 - answered) * exhaustive
    return _Trial(replace(setting, sure=sure), Recall(known, ~wrong | ~stands), answered, mean)


def _scores(connection: Connection, version: Version, known: Wanted, setting: Setting) -> NDArray[np.float64]:
    scores = np.full(len(known.best), -np.inf)
    # A transaction for each pipeline of searches, so that whoever wants to drop the version need not wait.
    for start in range(0, len(scores), searching.PIPELINED):
        part = slice(start, start + searching.PIPELINED)
        with trying(connection, version, setting):
            found = list(searching.search(connection, version, known.templates[part], top=1))
        scores[part] = [one[0].score if one else -np.inf for one in found]
    return scores


def _seconds(connection: Connection, version: Version, templates: Floats, setting: Setting, *, exact: bool) -> float:
    """Return the median of one search."""
    times: list[float] = []
    begun = time.monotonic()
    for number in range(-WARMING, min(TIMED, len(templates))):
        row = number % len(templates)
        with trying(connection, version, setting):
            started = time.perf_counter()
            list(searching.search(connection, version, templates[row : row + 1], exact=exact))
            taken = time.perf_counter() - started
        if number >= 0:
            times.append(taken)
        if times and time.monotonic() - begun > TIMED_SECONDS:
            break
    return statistics.median(times)


@contextmanager
def _there(version: Version) -> Iterator[None]:
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.ForeignKeyViolation, NotFoundError):
        raise NotFoundError(f"{version.said} was dropped meanwhile, so its tuning is not stored") from None
