"""Sampled rows of a table whose feature can be used, each feature once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pfstore.features import Floats
from pfstore.sources.assembly import MINIMUM_NORM
from pfstore.sources.base import Reason
from pfstore.sources.encodings import Encoding
from pfstore.sources.inspection.attributes import Attribute, of_table
from pfstore.sources.inspection.walking import Rows, Table


@dataclass(frozen=True)
class Sample:
    """Rows whose feature can be used, each feature once: features [n, D], and the other columns' values of them.

    rows: all, with those that cannot be used; read: how many. duplicates: features that were there before.
    dimensions: of all that could be decoded. reasons: why others could not.
    """

    rows: Rows
    features: Floats
    attributes: Sequence[Attribute]
    read: int
    duplicates: int
    dimensions: Counter[int]
    reasons: Counter[Reason]

    @classmethod
    def of(cls, table: Table, column: str, rows: Rows, encoding: Encoding, dimension: int) -> Sample:
        """Decode a column of sampled rows; features of another dimension, or without a direction, are left out."""
        decoded = encoding.decode_many(rows[column])
        kept: dict[bytes, int] = {}
        usable = 0
        vectors = [None if row in decoded.faults else one for row, one in enumerate(decoded.features)]
        for row, vector in enumerate(vectors):
            if vector is None or len(vector) != dimension or not _has_direction(vector):
                continue
            usable += 1
            # The same feature twice would make any column look as if it told persons apart.
            kept.setdefault(vector.tobytes(), row)
        numbers = np.array(list(kept.values()), dtype=np.int64)
        features = [decoded.features[row] for row in kept.values()]
        attributes = [one.taken(numbers) for one in of_table(table, rows) if one.column != column]
        stacked = np.array(features, dtype=np.float32).reshape(-1, dimension)
        dimensions = Counter(len(one) for one in vectors if one is not None)
        reasons = Counter(fault.reason for fault in decoded.faults.values())
        return cls(rows, stacked, attributes, len(vectors), usable - len(kept), dimensions, reasons)


def _has_direction(vector: Floats) -> bool:
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    return np.isfinite(norm) and norm >= MINIMUM_NORM


def together(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several samples of one table as those of one."""
    names = list(parts[0])
    return {name: [value for part in parts for value in part.get(name, ())] for name in names}
