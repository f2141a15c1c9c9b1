"""Templates as the rows of PostgreSQL's binary COPY."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.features import TemplateBatch
from pfstore.gallery.coarse import Coarse, halves
from pfstore.gallery.galleries import Version

COLUMNS = (
    "subject_id", "version_id", "run_id", "fused_at", "features", "media", "fingerprint", "residual", "coarse",
    "template",
)  # fmt: skip
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_KEY = struct.Struct(">hi")  # the number of columns, and the bytes of the first
_VALUES_AT_ONCE = 2**18
"""1 MB of templates: they stay in the processor's cache, and what is made of them in memory that is at hand."""


def rows(batch: TemplateBatch, version: Version, *, run: int, fused_at: datetime, encoding: str) -> Iterator[bytes]:
    """Encode a batch as rows of COLUMNS, a part of it at a time; the templates become half precision.

    encoding: in which the connection sends text, as Python names it.
    """
    for part in _parts(batch, max(1, _VALUES_AT_ONCE // version.template_dimension)):
        coarse = Coarse.of(part.templates, version.blocks) if version.scanned == "coarse" else None
        keys = list(map(str.encode, part.subject_ids, repeat(encoding)))
        yield _keyed(keys, _table(part, coarse, version, run, fused_at))


def _parts(batch: TemplateBatch, size: int) -> Iterator[TemplateBatch]:
    for first in range(0, len(batch.subject_ids), size):
        of = slice(first, first + size)
        counts = batch.features[of], batch.media[of]
        yield TemplateBatch(batch.subject_ids[of], batch.templates[of], *counts, batch.fingerprints[of])


def _table(
    batch: TemplateBatch, coarse: Coarse | None, version: Version, run: int, fused_at: datetime
) -> NDArray[np.void]:
    """[S] rows but for their keys: every other value has one length in all of them."""
    values: dict[str, tuple[str, Any]] = {
        "version_id": (">i4", version.version_id),
        "run_id": (">i8", run),
        "fused_at": (">i8", (fused_at - _EPOCH) // fused_at.resolution),
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
    return table


def _fields(name: str, kind: str, value: Any, filled: dict[str, Any]) -> list[Any]:
    """The fields of a value in a row, and what is to be in them."""
    filled[name] = value
    if kind != "halfvec":
        return [(name, kind)]
    # pgvector sends the dimension, two bytes that mean nothing yet, and the values.
    filled[f"{name} dimension"] = value.shape[1]
    return [(f"{name} dimension", ">i2"), (f"{name} unused", ">i2"), (name, ">f2", (value.shape[1],))]


def _keyed(keys: Sequence[bytes], table: NDArray[np.void]) -> bytes:
    """Join the rows, each behind the number of its columns and its key."""
    heads = {length: _KEY.pack(len(COLUMNS), length) for length in set(map(len, keys))}
    contents = table.view(f"V{table.itemsize}").tolist()
    parts = zip(map(heads.__getitem__, map(len, keys)), keys, contents, strict=True)
    return b"".join(chain.from_iterable(parts))
