"""Which score means a match: thresholds at given false match rates, from the gallery's own comparisons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg.rows import class_row

from pfstore.errors import ContractError
from pfstore.features import Floats
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version

SAMPLE = 2000
"""Subjects whose templates are compared with each other, two million comparisons at the most."""

TARGETS = (1e-1, 1e-2, 1e-3, 1e-4)
DEFAULT_FMR = 1e-3

LEAST_ERRORS = 30
"""Doddington's rule of 30: so many errors tell a rate to within 30 % with 90 % confidence."""


@dataclass(frozen=True)
class Threshold:
    """A score from which on a comparison is a match, the FMR it keeps to and how many comparisons say so."""

    fmr: float
    threshold: float
    comparisons: int


def estimate(connection: Connection, version: Version) -> list[Threshold]:
    """Take a version's thresholds from its non-mated comparisons, store them and return them.

    The templates of up to SAMPLE subjects, the same ones every time, are compared with each other. These are
    gallery templates on both sides, a stand-in until probes are at hand. A gallery of one subject has none.
    """
    templates = _sampled(connection, version)
    thresholds = from_scores(_non_mated_scores(templates))
    with connection.transaction():
        connection.execute("DELETE FROM pfstore.thresholds WHERE version_id = %s", (version.version_id,))
        for one in thresholds:
            connection.execute(
                "INSERT INTO pfstore.thresholds (version_id, fmr, threshold, comparisons) VALUES (%s, %s, %s, %s)",
                (version.version_id, one.fmr, one.threshold, one.comparisons),
            )
    return thresholds


def from_scores(scores: NDArray[np.floating]) -> list[Threshold]:
    """Return the thresholds that n non-mated scores can support, the loosest first.

    At a target f the threshold lies just above the (floor(f*n)+1)-th highest score, so that at most f*n scores,
    ties included, reach it; targets that expect fewer than LEAST_ERRORS errors are left out. The last one lies
    just above the highest score: no error in n comparisons bounds the FMR by 3/n with 95 % confidence
    (the rule of three, ISO/IEC 19795-1).
    """
    count = len(scores)
    if count == 0:
        return []
    falling = np.sort(scores)[::-1]
    usable = [target for target in TARGETS if target * count >= LEAST_ERRORS]
    found = [Threshold(target, _just_above(falling[int(target * count)]), count) for target in usable]
    return [*found, Threshold(min(1.0, 3 / count), _just_above(falling[0]), count)]


def stored(connection: Connection, version: Version) -> list[Threshold]:
    """Return a version's thresholds, the loosest first."""
    cursor = connection.cursor(row_factory=class_row(Threshold))
    query = "SELECT fmr, threshold, comparisons FROM pfstore.thresholds WHERE version_id = %s ORDER BY fmr DESC"
    return cursor.execute(query, (version.version_id,)).fetchall()


def at(connection: Connection, version: Version, fmr: float | None = None) -> Threshold:
    """Return the threshold that keeps to an FMR; without one DEFAULT_FMR or the nearest that there is.

    Raises ContractError where the version's comparisons cannot support that FMR, or there are none at all.
    """
    known = stored(connection, version)
    if not known:
        raise ContractError(
            f"gallery {version.gallery!r} has too few subjects to tell a threshold: give one with --threshold"
        )
    kept = [one for one in known if one.fmr <= (fmr or DEFAULT_FMR)]
    if not kept and fmr is not None:
        needed = int(np.ceil(3 / fmr))
        raise ContractError(
            f"an FMR of {fmr:g} needs at least {needed} non-mated comparisons, gallery {version.gallery!r} "
            f"gave {known[0].comparisons}: ask for {known[-1].fmr:.2g} or more, or give --threshold"
        )
    return max(kept, key=lambda one: one.fmr) if kept else known[-1]


def fmr_of(connection: Connection, version: Version, threshold: float) -> float | None:
    """Return the least FMR that a threshold is known to keep to, None where none is known."""
    return min((one.fmr for one in stored(connection, version) if one.threshold <= threshold), default=None)


def _sampled(connection: Connection, version: Version) -> Floats:
    register_vector(connection)
    query = "SELECT template FROM pfstore.templates WHERE version_id = %s ORDER BY md5(subject_id), subject_id LIMIT %s"
    rows = connection.cursor(binary=True).execute(query, (version.version_id, SAMPLE)).fetchall()
    return np.array([template.to_numpy() for (template,) in rows], dtype=np.float32)


def _non_mated_scores(templates: Floats) -> Floats:
    if len(templates) < 2:
        return np.empty(0, dtype=np.float32)
    scores: Floats = templates @ templates.T
    return scores[np.triu_indices(len(templates), k=1)]


def _just_above(score: np.floating) -> float:
    return float(np.nextafter(np.float32(score), np.float32(np.inf)))
