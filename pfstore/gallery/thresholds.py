"""Which score means a match: the thresholds that are stored with a version, and what each of them rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from fractions import Fraction
from math import ceil
from typing import Any, Literal, TypeAlias

from psycopg.rows import class_row

from pfstore.errors import ContractError, NotFoundError
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version

Kind: TypeAlias = Literal["fmr", "fpir"]

DEFAULT_FMR = 1e-3

LEAST_ERRORS = 30
"""Doddington's rule of 30: so many errors tell a rate to within 30 % with 90 % confidence."""

OUTGROWN = 1.1
"""An FPIR holds for the size of its gallery; one that is so many times as large needs another threshold."""

COUNTED = {"fmr": "non-mated comparisons", "fpir": "non-mated searches"}


@dataclass(frozen=True)
class Threshold:
    """The least score of a match, or of a candidate, at which an error rate is at most `target`.

    kind: "fmr": of comparisons (1:1); "fpir": of searches of the whole gallery (1:N). comparisons: how many non-mated
    comparisons, or searches, tell so. low, high: the 95 % interval of the rate at this threshold; None for what earlier
    versions of pfstore stored. templates: the size of the gallery then. basis: what was compared.
    automatic: made by a backfill, not asked for. created_at: when the templates were read.
    """

    kind: Kind
    target: float
    threshold: float
    comparisons: int
    low: float | None
    high: float | None
    templates: int | None
    basis: str
    automatic: bool
    created_at: datetime

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the rate, None where it is not known."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def said(self) -> str:
        """What it promises and what that rests on, as messages say it."""
        return f"{self.rate_said}, {self.basis_said}"

    @property
    def rate_said(self) -> str:
        """The rate with its interval: "FMR at most 0.001 [0.000876, 0.00112]"."""
        bounds = "" if self.interval is None else f" [{self.interval[0]:.3g}, {self.interval[1]:.3g}]"
        return f"{self.kind.upper()} at most {self.target:.2g}{bounds}"

    @property
    def basis_said(self) -> str:
        """What it rests on: "1,999,000 non-mated comparisons, gallery against gallery, all 2,000 subjects"."""
        return f"{self.comparisons:,} {COUNTED[self.kind]}, {self.basis}"

    def outgrown(self, templates: int) -> bool:
        """Tell whether a gallery of so many templates is too large for the FPIR to hold."""
        return self.kind == "fpir" and self.templates is not None and templates > OUTGROWN * self.templates

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}


_COLUMNS = ", ".join(field.name for field in fields(Threshold))


def stored(connection: Connection, version: Version) -> list[Threshold]:
    """Return a version's thresholds: first those at FMRs, then those at FPIRs, the loosest first."""
    cursor = connection.cursor(row_factory=class_row(Threshold))
    query = f"SELECT {_COLUMNS} FROM pfstore.thresholds WHERE version_id = %s ORDER BY kind, target DESC"
    return cursor.execute(query.encode(), (version.version_id,)).fetchall()


def replace(connection: Connection, version: Version, found: Sequence[Threshold]) -> list[Threshold]:
    """Store these thresholds instead of the version's present ones and return those that stand now.

    Automatic ones give way to a calibration that somebody asked for. One transaction: of two at once the later one
    stands, whole. Raises NotFoundError where the version was dropped meanwhile.
    """
    automatic = all(one.automatic for one in found)
    with connection.transaction():
        query = "SELECT true FROM pfstore.versions WHERE version_id = %s FOR NO KEY UPDATE"
        if connection.execute(query, (version.version_id,)).fetchone() is None:
            raise NotFoundError(f"{version.said} was dropped meanwhile, so its thresholds are not stored")
        there = stored(connection, version)
        if automatic and not all(one.automatic for one in there):
            return there
        connection.execute("DELETE FROM pfstore.thresholds WHERE version_id = %s", (version.version_id,))
        values = ", ".join(f"%({field.name})s" for field in fields(Threshold))
        statement = f"INSERT INTO pfstore.thresholds (version_id, {_COLUMNS}) VALUES (%(version)s, {values})"
        rows = [{"version": version.version_id} | asdict(one) for one in found]
        connection.cursor().executemany(statement.encode(), rows)
    return list(found)


def at(connection: Connection, version: Version, target: float | None = None, kind: Kind = "fmr") -> Threshold:
    """Return the loosest threshold that keeps to a rate; without one DEFAULT_FMR or the nearest that there is.

    Raises ContractError where the version was not calibrated to that rate, or there is no threshold at all.
    """
    known = [one for one in stored(connection, version) if one.kind == kind]
    if not known and kind == "fpir":
        raise ContractError(
            f"{version.said} has no threshold at an FPIR: run `pfstore calibrate {version.gallery}`, "
            "or give a score with --threshold"
        )
    if not known:
        raise ContractError(
            f"gallery {version.gallery!r} has too few subjects to tell a threshold: give one with --threshold"
        )
    kept = [one for one in known if one.target <= (target or DEFAULT_FMR)]
    if not kept and target is not None:
        raise ContractError(_not_kept(version, known, target))
    return max(kept, key=lambda one: one.target) if kept else known[-1]


def kept_by(connection: Connection, version: Version, threshold: float) -> Threshold | None:
    """Return the stored threshold at the least FMR that a score as threshold keeps to; None where none is known."""
    kept = [one for one in stored(connection, version) if one.kind == "fmr" and one.threshold <= threshold]
    return min(kept, key=lambda one: one.target, default=None)


def written_since(connection: Connection, version: Version, when: datetime) -> int:
    """Count the templates that were written after this time."""
    query = "SELECT count(*) FROM pfstore.templates WHERE version_id = %s AND fused_at > %s"
    row = connection.execute(query, (version.version_id, when)).fetchone()
    assert row is not None
    return int(row[0])


def needed(target: float) -> int:
    """Return the comparisons or searches at which LEAST_ERRORS errors are expected, of the target as it is written."""
    return ceil(LEAST_ERRORS / Fraction(repr(float(target))))


def _not_kept(version: Version, known: Sequence[Threshold], target: float) -> str:
    kind, last = known[-1].kind, known[-1]
    return (
        f"an {kind.upper()} of {target:g} needs {needed(target):,} {COUNTED[kind]}, those of {version.said} rest on "
        f"{last.comparisons:,}: ask for {last.target:.2g} or more, or `pfstore calibrate {version.gallery} "
        f"--{kind} {target:g}` with more, or give --threshold"
    )
