"""Galleries of templates made by hand, and the scores that the server computes between them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from pfstore.features import Floats
from pfstore.gallery import galleries, models, schema
from pfstore.gallery.coarse import Coarse
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Contract, Version

COLUMNS = "version_id, subject_id, template, coarse, residual, features, media, fingerprint, run_id, fused_at"


def version_of(
    connection: Connection, templates: Mapping[str, Floats], name: str = "staff", blocks: int = 1
) -> Version:
    """Make an active version of a gallery with these templates by subject, each [blocks*D], normalised here."""
    dimension = len(next(iter(templates.values()))) // blocks
    model = models.resolve(connection, "average")
    contract = Contract("test-extractor", dimension, "unit", model.digest, "set")
    version = galleries.ensure(connection, name, contract, blocks=blocks)
    add(connection, version, templates)
    return galleries.promote(connection, name, version.number, force=True)


def add(connection: Connection, version: Version, templates: Mapping[str, Floats]) -> None:
    """Write templates, as fused now."""
    register_vector(connection)
    with connection.cursor().copy(f"COPY pfstore.templates ({COLUMNS}) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text", "halfvec", "halfvec", "float4", "int4", "int4", "bytea", "int8", "timestamptz"])
        now = datetime.now(UTC)
        for subject, template in templates.items():
            unit = np.asarray(template, np.float32) / np.linalg.norm(template)
            inline = Coarse.of(unit[None], version.blocks) if version.scanned == "coarse" else None
            coarse = inline and (HalfVector(inline.vectors[0]), float(inline.residuals[0]))
            copy.write_row(
                (version.version_id, subject, HalfVector(unit), *(coarse or (None, None)), 1, 1, b"", 1, now)
            )


def strangers(count: int, dimension: int = 16, seed: int = 0) -> dict[str, Floats]:
    """Return templates of so many subjects, some of whom are like many others."""
    random = np.random.default_rng(seed)
    common = random.normal(size=dimension)
    made = random.normal(size=(count, dimension)) + random.exponential(0.4, size=(count, 1)) * common
    return {f"s{number:04}": row.astype(np.float32) for number, row in enumerate(made)}


def one_hot(place: int, dimension: int) -> Floats:
    """Return the unit vector along one axis."""
    made = np.zeros(dimension, dtype=np.float32)
    made[place] = 1
    return made


def server_scores(connection: Connection, version: Version) -> NDArray[np.float64]:
    """[N, N] the scores of all subjects in the order of their names, as the server computes them."""
    query = (
        "SELECT -(a.template <#> b.template) FROM pfstore.templates a JOIN pfstore.templates b USING (version_id)"
        " WHERE version_id = %s ORDER BY a.subject_id, b.subject_id"
    )
    rows = np.array([score for (score,) in connection.execute(query, (version.version_id,))])
    side = round(len(rows) ** 0.5)
    return rows.reshape(side, side)


def migrate(database: Database, direction: str, revision: str) -> None:
    """Bring the schema "upgrade" or "downgrade" to a revision."""
    from alembic import command

    with database.engine().begin() as migrating:
        getattr(command, direction)(schema._alembic(migrating), revision)
