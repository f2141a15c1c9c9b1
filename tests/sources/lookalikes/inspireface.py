"""InspireFace: a virtual table of sqlite-vec, whose vectors lie in plain tables in chunks of 1024."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.sources.lookalikes.base import Lookalike, People, Tables

_CHUNK = 16  # sqlite-vec has 1024, of which one would be enough for everybody here


@dataclass(frozen=True)
class InspireFace(Lookalike):
    """The file of a FeatureHub; a removed feature leaves a hole in its chunk, of which the row is gone."""

    preset = "inspireface"
    system = "inspireface"
    dimension = 512
    faces = "vec_items_rowids"
    excluded: ClassVar = {}
    query = """
        SELECT r.rowid, '', (SELECT hex(v.vectors) FROM vec_items_vector_chunks00 v WHERE v.rowid = r.chunk_id)
          || ' ' || r.chunk_offset FROM vec_items_rowids r"""

    def schema(self) -> Sequence[str]:
        virtual = "CREATE VIRTUAL TABLE vec_items USING vec0(embedding float[512] distance_metric=cosine)"
        return (
            'CREATE TABLE "vec_items_chunks" (chunk_id INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL,'
            " validity BLOB NOT NULL, rowids BLOB NOT NULL)",
            'CREATE TABLE "vec_items_rowids" (rowid INTEGER PRIMARY KEY AUTOINCREMENT, id, chunk_id INTEGER,'
            " chunk_offset INTEGER)",
            'CREATE TABLE "vec_items_vector_chunks00" (rowid PRIMARY KEY, vectors BLOB NOT NULL)',
            # The table itself needs the extension to be made, and to be touched.
            "PRAGMA writable_schema = ON",
            "INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql)"
            f" VALUES ('table', 'vec_items', 'vec_items', 0, '{virtual}')",
            "PRAGMA writable_schema = RESET",
        )

    def fill(self, people: People) -> Tables:
        tables = Tables()
        faces = list(people)
        for first in range(0, len(faces), _CHUNK):
            chunk, held = 1 + first // _CHUNK, faces[first : first + _CHUNK]
            vectors = b"".join(struct.pack(f"<{len(one.values)}f", *one.values) for one in held)
            space = _CHUNK * 4 * self.dimension
            tables["vec_items_chunks"].append(
                {"chunk_id": chunk, "size": _CHUNK, "validity": b"\xff", "rowids": b"\0" * 8 * _CHUNK}
            )
            tables["vec_items_vector_chunks00"].append({"rowid": chunk, "vectors": vectors.ljust(space, b"\0")})
            # Every fifth was removed.
            tables["vec_items_rowids"] += [
                {"rowid": 10 + 3 * one.number, "id": None, "chunk_id": chunk, "chunk_offset": offset}
                for offset, one in enumerate(held)
                if one.number % 5
            ]
        return tables

    def decode(self, value: Any) -> Sequence[float]:
        digits, offset = value.split()
        start = int(offset) * 4 * self.dimension
        return struct.unpack(f"<{self.dimension}f", bytes.fromhex(digits)[start : start + 4 * self.dimension])
