"""A gallery's version filled with templates, as a backfill writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from psycopg import sql

from pfstore.features import Floats, TemplateBatch
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.runs import Counts
from pfstore.gallery.writing import staging


def fill(
    connection: Connection, version: Version, chunks: Iterable[tuple[int, Floats]], name: Callable[[int], str]
) -> None:
    """Write templates, a chunk in a transaction: the number of its first subject, and [n, blocks*D] templates.

    name: gives a subject's key by its number.
    """
    with staging(connection, version, 1) as writer:
        for first, templates in chunks:
            ids = [name(number) for number in range(first, first + len(templates))]
            ones = np.ones(len(ids), dtype=np.int64)
            writer.add(TemplateBatch(ids, templates, ones, ones, [bytes(16)] * len(ids)))
            writer.commit(0, Counts())
    connection.execute(sql.SQL("VACUUM ANALYZE {}").format(version.partition))
