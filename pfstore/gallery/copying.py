"""Templates as the rows of PostgreSQL's binary COPY, made a batch at a time."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.features import TemplateBatch
from pfstore.gallery.coarse import Coarse, halves

COLUMNS = (
    "subject_id", "version_id", "run_id", "fused_at", "features", "media", "fingerprint", "residual", "coarse",
    "template",
)  # fmt: skip
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_KEY = struct.Struct(">hi")  # the number of columns, and the bytes of the first


def rows(batch: TemplateBatch, coarse: Coarse | None, *, version: int, run: int, fused_at: datetime) -> bytes:
    """Encode a batch as rows of COLUMNS; every value but the key of the subject has one length for all of them.

    coarse: the inline vectors, None where a template is its own. The templates become half precision.
    """
    values: dict[str, tuple[str, Any]] = {
        "version_id": (">i4", version),
        "run_id": (">i8", run),
        "fused_at": (">i8", (fused_at - _EPOCH) // (fused_at.resolution)),
        "features": (">i4", batch.features),
        "media": (">i4", batch.media),
        "fingerprint": ("V16", np.frombuffer(b"".join(batch.fingerprints), dtype="V16")),
        "residual": (">f4", coarse and coarse.residuals),
        "coarse": ("halfvec", coarse and coarse.vectors),
        "template": ("halfvec", halves(batch.templates)),
    }
    layout: list[Any] = []
    filled: dict[str, Any] = {}
    for name, (kind, value) in values.items():
        fields = [] if value is None else _fields(name, kind, value, filled)
        filled[f"{name} length"] = np.dtype(fields).itemsize if fields else -1
        layout += [(f"{name} length", ">i4"), *fields]
    table = np.zeros(len(batch.subject_ids), dtype=layout)
    for name, value in filled.items():
        table[name] = value
    return _keyed(batch.subject_ids, table)


def _fields(name: str, kind: str, value: Any, filled: dict[str, Any]) -> list[Any]:
    """The fields of a value in a row, and what is to be in them."""
    filled[name] = value
    if kind != "halfvec":
        return [(name, kind)]
    # pgvector sends the dimension, two bytes that mean nothing yet, and the values.
    filled[f"{name} dimension"] = value.shape[1]
    return [(f"{name} dimension", ">i2"), (f"{name} unused", ">i2"), (name, ">f2", (value.shape[1],))]


def _keyed(keys: Any, table: NDArray[Any]) -> bytes:
    """Join the rows, each behind the number of its columns and its key."""
    width, columns = table.itemsize, len(COLUMNS)
    content = table.view(np.uint8).data if len(table) else memoryview(b"")
    parts: list[bytes | memoryview] = []
    for number, key in enumerate(keys):
        text = key.encode()
        parts += (_KEY.pack(columns, len(text)), text, content[number * width : (number + 1) * width])
    return b"".join(parts)
