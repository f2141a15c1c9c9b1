"""Search (1:N) and verification (1:1), answered by the server in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from pfstore.errors import ContractError, InputError, NotFoundError, PfstoreError
from pfstore.features import Floats, Offsets
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version

if TYPE_CHECKING:
    from pfstore.fusion import Fuser

PIPELINED = 32
"""Searches sent to the server before the first answer is read."""

_ERRORS: dict[str, type[PfstoreError]] = {"PF404": NotFoundError, "PF409": ContractError, "PF422": InputError}


@dataclass(frozen=True)
class Candidate:
    """One line of a candidate list. score: cosine of the two templates, in [-1, 1], higher is nearer."""

    rank: int
    subject: str
    score: float


_SEARCH = """
    SELECT rank, subject, score FROM pfstore.search(
        %(gallery)s, %(probe)s, k => %(top)s, threshold => %(threshold)s, among => %(among)s, exact => %(exact)s,
        version => %(version)s)
"""


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
) -> Iterator[list[Candidate]]:
    """Yield each probe's candidate list, in the order of the probes.

    templates: [P, blocks*D] float32, L2-normalised. top: the most candidates. threshold: the least score.
    among: only these subjects. exact: compare with every template even where there is an index.
    Without an index every search is exact.
    """
    register_vector(connection)
    fixed = {
        "gallery": version.gallery, "version": version.number, "top": top, "threshold": threshold, "exact": exact,
        "among": None if among is None else list(among),
    }  # fmt: skip
    for start in range(0, len(templates), PIPELINED):
        probes = [HalfVector(row) for row in templates[start : start + PIPELINED]]
        with said(), connection.pipeline():
            cursors = [connection.cursor(binary=True).execute(_SEARCH, fixed | {"probe": probe}) for probe in probes]
            rows = [cursor.fetchall() for cursor in cursors]
        for found in rows:
            yield [Candidate(*one) for one in found]


def verify(connection: Connection, version: Version, subject: str, template: Floats) -> float:
    """Return the comparison score of a probe's template ([blocks*D] float32) with a subject's.

    Raises NotFoundError where the subject has no template in this version.
    """
    register_vector(connection)
    query = "SELECT score FROM pfstore.verify(%s, %s, %s, version => %s)"
    with said():
        row = connection.execute(query, (version.gallery, subject, HalfVector(template), version.number)).fetchone()
    assert row is not None
    return float(row[0])


@contextmanager
def said() -> Iterator[None]:
    """Turn what pfstore's SQL functions raise into pfstore's own errors."""
    try:
        yield
    except psycopg.DatabaseError as error:
        if (kind := _ERRORS.get(error.sqlstate or "")) is None:
            raise
        raise kind(error.diag.message_primary or str(error)) from None
