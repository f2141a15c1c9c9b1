"""The table of how versions are searched, and searches with settings that nobody else sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg import sql
from psycopg.rows import class_row

from pfstore.gallery import thresholds
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version


@dataclass(frozen=True)
class Setting:
    """ef_search: the breadth of a search of the index. candidates: how many it hands on to be compared in full.

    sure: the best score at which the answer stands; below it the search goes on exhaustively. None: it always stands.
    """

    ef_search: int
    candidates: int
    sure: float | None = None


@dataclass(frozen=True)
class Tuning:
    """How a version is searched, and what that was measured to give.

    path: "index", or "exhaustive" where that is as fast. recall: of all probes, the share whose best template comes
    first. mated_recall: the same of those whose own subject is the best; the target is for these, or for all where
    there are none. low, high: the 95 % interval of that share. answered: of the same probes, the share whose answer
    is the index's; the others are searched exhaustively. basis: what the probes are. index_seconds: the mean of a
    search by the index, with what goes on exhaustively; exhaustive_seconds: of an exhaustive one. templates: the
    size of the gallery then. The rest: see Setting.
    """

    path: Literal["index", "exhaustive"]
    target: float
    recall: float
    low: float
    high: float
    mated_recall: float | None
    probes: int
    basis: str
    ef_search: int
    candidates: int
    sure: float | None
    answered: float
    index_seconds: float
    exhaustive_seconds: float
    templates: int
    created_at: datetime

    @property
    def reached(self) -> float:
        """The share that the target is for."""
        return self.recall if self.mated_recall is None else self.mated_recall

    @property
    def said(self) -> str:
        """What the index gives and what that rests on: "0.9990 [0.9975, 0.9997] of 2,000 worn templates, seed 0"."""
        return f"{self.reached:.4f} [{self.low:.4f}, {self.high:.4f}] of {self.basis}"

    def outgrown(self, templates: int) -> bool:
        """Tell whether a gallery of so many templates is too large for the recall to hold."""
        return templates > thresholds.OUTGROWN * self.templates

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}


_NAMES = [field.name for field in fields(Tuning)]
_COLUMNS = ", ".join(_NAMES)


def stored(connection: Connection, version: Version) -> Tuning | None:
    """Return how a version is tuned; None where nobody has tuned the index that it has now."""
    cursor = connection.cursor(row_factory=class_row(Tuning))
    query = f"SELECT {_COLUMNS} FROM pfstore.tunings WHERE version_id = %s"
    return cursor.execute(query.encode(), (version.version_id,)).fetchone()


def write(connection: Connection, version: Version, one: Tuning) -> None:
    """Store how a version is searched from now on."""
    values = ", ".join(f"%({name})s" for name in _NAMES)
    changes = ", ".join(f"{name} = excluded.{name}" for name in _NAMES)
    statement = (
        f"INSERT INTO pfstore.tunings (version_id, {_COLUMNS}) VALUES (%(version)s, {values})"
        f" ON CONFLICT (version_id) DO UPDATE SET {changes}"
    )
    connection.execute(statement.encode(), {"version": version.version_id} | asdict(one))


@contextmanager
def trying(connection: Connection, version: Version, setting: Setting) -> Iterator[None]:
    """Let this connection search with a setting, and no other one."""
    trial = replace(_UNTUNED, **asdict(setting), created_at=datetime.now(UTC))
    with connection.transaction(force_rollback=True):
        # In the order in which an index is built, lest the two wait for each other.
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(version.partition))
        write(connection, version, trial)
        yield


_UNTUNED = Tuning(
    path="index",
    target=0,
    recall=0,
    low=0,
    high=0,
    mated_recall=None,
    probes=0,
    basis="",
    ef_search=0,
    candidates=0,
    sure=None,
    answered=0,
    index_seconds=0,
    exhaustive_seconds=0,
    templates=0,
    created_at=datetime.min.replace(tzinfo=UTC),
)
