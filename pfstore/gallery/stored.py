"""What a gallery version holds of one subject, and which subjects have names like one that it does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pgvector.psycopg import register_vector

from pfstore.features import Floats
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version

NEIGHBOURS = 4
"""Names looked up before and after each spelling of an unknown one."""


@dataclass(frozen=True)
class StoredTemplate:
    """A template as it is kept: [blocks*D] float32 of half precision, of so many features and media.

    fingerprint: of the features that were fused (see FeatureBatch.fingerprints).
    """

    template: Floats
    features: int
    media: int
    fingerprint: bytes
    run_id: int
    fused_at: datetime


def template_of(connection: Connection, version: Version, subject: str) -> StoredTemplate | None:
    """Return a subject's template in this version, None where it has none."""
    register_vector(connection)
    row = connection.execute(
        "SELECT template, features, media, fingerprint, run_id, fused_at FROM pfstore.templates"
        " WHERE version_id = %s AND subject_id = %s",
        (version.version_id, subject),
    ).fetchone()
    if row is None:
        return None
    template, *rest = row
    return StoredTemplate(template.to_numpy().astype(np.float32), *rest)


def neighbours(connection: Connection, version: Version, subject: str) -> list[str]:
    """Return subjects of this version whose names stand beside this one, in any case of its letters, in the index."""
    spellings = dict.fromkeys((subject, subject.lower(), subject.upper(), subject.title()))
    found: dict[str, None] = {}
    for relation, order in ((">=", "ASC"), ("<", "DESC")):
        query = (
            f"SELECT subject_id FROM pfstore.templates WHERE version_id = %s AND subject_id {relation} %s"
            f" ORDER BY subject_id {order} LIMIT {NEIGHBOURS}"
        )
        for spelling in spellings:
            rows = connection.execute(query, (version.version_id, spelling)).fetchall()
            found |= dict.fromkeys(name for (name,) in rows)
    return list(found)
