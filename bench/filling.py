"""A gallery's version filled with templates by the writer of backfills."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

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
    batches = (
        batch_of([name(number) for number in range(first, first + len(templates))], templates)
        for first, templates in chunks
    )
    write(connection, version, batches)
    connection.execute(sql.SQL("VACUUM ANALYZE {}").format(version.partition))


def write(connection: Connection, version: Version, batches: Iterable[TemplateBatch], per_shard: int = 1) -> None:
    """Write templates as a backfill does, so many batches in a transaction."""
    with staging(connection, version, 1) as writer:
        coming = iter(batches)
        while shard := list(islice(coming, per_shard)):
            for batch in shard:
                writer.known(batch.subject_ids)
                writer.add(batch)
            writer.commit(0, Counts())


def batch_of(subject_ids: Sequence[str], templates: Floats) -> TemplateBatch:
    """Return templates as of one feature each."""
    ones = np.ones(len(subject_ids), dtype=np.int64)
    return TemplateBatch(subject_ids, templates, ones, ones, [bytes(16)] * len(subject_ids))
