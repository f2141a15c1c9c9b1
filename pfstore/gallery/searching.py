"""Search (1:N) and verification (1:1), answered by the server in SQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql

from pfstore.errors import ContractError, NotFoundError
from pfstore.features import Floats, Offsets
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version

if TYPE_CHECKING:
    from pfstore.fusion import Fuser

PIPELINED = 32
"""Searches sent to the server before the first answer is read."""

MOST_EF_SEARCH = 1000  # pgvector's own limit


@dataclass(frozen=True)
class Candidate:
    """One line of a candidate list. score: cosine of the two templates, in [-1, 1], higher is nearer."""

    rank: int
    subject: str
    score: float


# The second key orders equal scores the same way every time; an index could not serve it, and need not.
_EXACT = sql.SQL(
    "SELECT subject_id, -(template <#> %(probe)s) FROM pfstore.templates"
    " WHERE version_id = {version} AND -(template <#> %(probe)s) >= %(threshold)s"
    " ORDER BY template <#> %(probe)s, subject_id LIMIT %(top)s"
)
_INDEXED = sql.SQL(
    "SELECT subject_id, score FROM ("
    " SELECT subject_id, -(template::halfvec({length}) <#> %(probe)s) AS score FROM {partition}"
    " ORDER BY template::halfvec({length}) <#> %(probe)s LIMIT %(top)s"
    ") nearest WHERE score >= %(threshold)s ORDER BY score DESC, subject_id"
)


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
    exact: bool = False,
) -> Iterator[list[Candidate]]:
    """Yield each probe's candidate list, in the order of the probes.

    templates: [P, blocks*D] float32, L2-normalised. top: the most candidates. threshold: the least score.
    exact: compare with every template even where there is an index (where there is none it is so anyway).
    """
    register_vector(connection)
    query = _statement(version, exact=exact)
    with connection.transaction():
        if version.indexed and not exact:
            _widen(connection, top)
        for start in range(0, len(templates), PIPELINED):
            probes = [HalfVector(row) for row in templates[start : start + PIPELINED]]
            with connection.pipeline():
                values = ({"probe": probe, "threshold": _bound(threshold), "top": top} for probe in probes)
                cursors = [connection.cursor(binary=True).execute(query, value) for value in values]
                rows = [cursor.fetchall() for cursor in cursors]
            for found in rows:
                yield [Candidate(rank, subject, score) for rank, (subject, score) in enumerate(found, 1)]


def verify(connection: Connection, version: Version, subject: str, template: Floats) -> float:
    """Return the comparison score of a probe's template ([blocks*D] float32) with a subject's.

    Raises NotFoundError where the subject has no template in this version.
    """
    register_vector(connection)
    row = connection.execute(
        "SELECT -(template <#> %s) FROM pfstore.templates WHERE version_id = %s AND subject_id = %s",
        (HalfVector(template), version.version_id, subject),
    ).fetchone()
    if row is None:
        raise NotFoundError(f"gallery {version.gallery!r} has no template of subject {subject!r}")
    return float(row[0])


def _statement(version: Version, *, exact: bool) -> sql.Composed:
    if version.indexed and not exact:
        return _INDEXED.format(length=sql.Literal(version.template_dimension), partition=version.partition)
    return _EXACT.format(version=sql.Literal(version.version_id))


def _widen(connection: Connection, top: int) -> None:
    # One pass of HNSW returns at most ef_search rows; the iterative scan goes on where more are wanted.
    breadth = min(MOST_EF_SEARCH, max(100, 2 * top))
    connection.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(breadth)))
    connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")


def _bound(threshold: float) -> float:
    # In half precision the score of two opposite templates can be a little below -1.
    return threshold if threshold > -1 else float("-inf")
