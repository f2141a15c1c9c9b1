"""Search (1:N) and verification (1:1), answered by the server in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.pq import TransactionStatus

from pfstore.errors import ContractError, InputError, NotFoundError, PfstoreError
from pfstore.features import Floats, Offsets
from pfstore.gallery import tunings
from pfstore.gallery.among import Names
from pfstore.gallery.database import Connection
from pfstore.gallery.deadlines import end_with_client, limited
from pfstore.gallery.galleries import Version
from pfstore.gallery.tables import PARTITION_PREFIX

if TYPE_CHECKING:
    from pfstore.fusion import Fuser

PIPELINED = 32
"""Searches sent to the server before the first answer is read."""

_ERRORS: dict[str, type[PfstoreError]] = {"PF404": NotFoundError, "PF409": ContractError, "PF422": InputError}


@dataclass(frozen=True)
class Candidate:
    """One line of a candidate list.

    score: cosine of the two templates, higher is nearer; in [-1, 1] but for the rounding of templates to halves, 1e-4.
    """

    rank: int
    subject: str
    score: float


_SEARCH = """
    SELECT rank, subject, score FROM pfstore.search(
        %(gallery)s, %(probe)s, k => %(top)s, threshold => %(threshold)s, among => %(among)s::text[],
        exact => %(exact)s, version => %(version)s)
"""

_READY: WeakSet[Connection] = WeakSet()


def probe_templates(
    fuser: Fuser, version: Version, features: Floats, offsets: Offsets, extractor: str | None = None
) -> Floats:
    """Fuse probe sets for a version: features [N, D] float32, offsets [P+1] int64 -> [P, blocks*D] float32.

    Raises ContractError where the probes have another dimension, or name another extractor, or the model is
    not the one that made the version.
    """
    if extractor is not None and extractor != version.extractor:
        raise ContractError(
            f"the probe's features come from {extractor!r}, gallery {version.gallery!r} holds {version.extractor!r}: "
            "scores between them mean nothing"
        )
    if features.shape[1] != version.dimension:
        raise ContractError(
            f"the probe's features have {features.shape[1]} values, those of gallery {version.gallery!r} "
            f"{version.dimension}: they are not from the extractor {version.extractor!r}"
        )
    if fuser.digest != version.model_digest:
        raise ContractError(
            f"the probe is fused by model {fuser.digest[:12]}, version {version.number} of gallery "
            f"{version.gallery!r} was made by {version.model_digest[:12]} ({version.model})"
        )
    return fuser.templates(features, offsets, role="probe")


def search(
    connection: Connection,
    version: Version,
    templates: Floats,
    *,
    top: int = 10,
    threshold: float = -1.0,
    among: Sequence[str] | None = None,
    exact: bool = False,
    deadline: float | None = None,
    names: Sequence[str] | None = None,
) -> Iterator[list[Candidate]]:
    """Yield each probe's candidate list, in the order of the probes, as soon as it is known.

    templates: [P, blocks*D] float32, L2-normalised. top: the most candidates. threshold: the least score.
    among: only these subjects; make a long list for many calls Names. exact: compare with every template even where
    there is an index. Without an index every search is exact. deadline: the seconds that each search may take; then
    probes go to the server one by one. names: [P], what errors call the probes; else their numbers.

    Raises DeadlineError, and what pfstore.search raises.
    """
    _make_ready(connection)
    fixed = {
        "gallery": version.gallery, "version": version.number, "top": top, "threshold": threshold, "exact": exact,
        "among": None if among is None else (among if isinstance(among, Names) else Names(among)).array,
    }  # fmt: skip
    at_once = PIPELINED if deadline is None else 1
    for start in range(0, len(templates), at_once):
        probes = [HalfVector(row) for row in templates[start : start + at_once]]
        if deadline is None:
            rows = _pipelined(connection, fixed, probes)
        else:
            with said(), limited(connection, deadline, f"probe {names[start] if names else start!r}"):
                rows = [connection.cursor(binary=True).execute(_SEARCH, fixed | {"probe": probes[0]}).fetchall()]
        for found in rows:
            yield [Candidate(*one) for one in found]


def _pipelined(connection: Connection, fixed: dict[str, Any], probes: Sequence[HalfVector]) -> list[list[Any]]:
    with said(), connection.pipeline():
        cursors = [connection.cursor(binary=True).execute(_SEARCH, fixed | {"probe": probe}) for probe in probes]
        return [cursor.fetchall() for cursor in cursors]


def verify(
    connection: Connection, version: Version, subject: str, template: Floats, *, deadline: float | None = None
) -> float:
    """Return the comparison score of a probe's template ([blocks*D] float32) with a subject's.

    Raises NotFoundError where the subject has no template in this version, DeadlineError where that takes more than
    so many seconds.
    """
    _make_ready(connection)
    query = "SELECT score FROM pfstore.verify(%s, %s, %s, version => %s)"
    values = (version.gallery, subject, HalfVector(template), version.number)
    with said(), limited(connection, deadline, f"subject {subject!r}"):
        row = connection.execute(query, values).fetchone()
    assert row is not None
    return float(row[0])


@dataclass(frozen=True)
class How:
    """How searches of a version are answered now. tuning: of the index, where one is used."""

    path: str
    tuning: tunings.Tuning | None

    @property
    def exact(self) -> bool:
        """Whether no candidate can be missed."""
        return self.path == "exhaustive"

    @property
    def said(self) -> str:
        """What a reader of candidate lists is told."""
        if self.exact:
            return "exhaustive, exact"
        return f"index, tuned to {self.tuning.target:g} of rank 1" if self.tuning else "index"

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        one = self.tuning
        tuned = one and {"target": one.target, "recall": one.reached, "interval": (one.low, one.high)}
        return {"path": self.path, "exact": self.exact, "tuned": tuned}


def how(connection: Connection, version: Version, *, exact: bool = False, among: int | None = None) -> How:
    """Tell how a search is answered: asked for exactly, among so many subjects.

    Unlike paths.path, which tells why, it takes no longer in a large gallery.
    """
    query = "SELECT pfstore.path_of(%s, %s, %s)"
    row = connection.execute(query, (version.version_id, exact, among)).fetchone()
    assert row is not None
    return How(row[0], tunings.stored(connection, version) if row[0] == "index" else None)


def _make_ready(connection: Connection) -> None:
    """Let the connection know pgvector's types, and a search end with its client."""
    if connection not in _READY:
        register_vector(connection)
        end_with_client(connection)
        # In a transaction that is rolled back the setting goes as well.
        if connection.info.transaction_status == TransactionStatus.IDLE:
            _READY.add(connection)


@contextmanager
def said() -> Iterator[None]:
    """Turn what pfstore's SQL functions raise into pfstore's own errors."""
    try:
        yield
    except psycopg.DatabaseError as error:
        if isinstance(error, psycopg.errors.UndefinedTable) and PARTITION_PREFIX in str(error):
            raise NotFoundError("the version that was asked for was dropped meanwhile") from None
        if (kind := _ERRORS.get(error.sqlstate or "")) is None:
            raise
        raise kind(error.diag.message_primary or str(error)) from None
