"""digiKam: raw float32, in 6.3 within Qt's qCompress; names in a table of keys and values; no photos."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pfstore.sources.base import Reason
from tests.sources.lookalikes.base import Face, Lookalike, People, Row, Tables


@dataclass(frozen=True)
class DigiKam8(Lookalike):
    """recognition.db as a file, or the database of faces on a server."""

    preset = "digikam-8"
    system = "digikam"
    dimension = 128
    faces = "FaceMatrices"
    excluded: ClassVar = {"identity gone": 2}
    rejected: ClassVar = {Reason.EMPTY: 2, Reason.WRONG_DIMENSION: 1}
    query = "SELECT f.identity, '', f.embedding FROM FaceMatrices f JOIN Identities i ON i.id = f.identity"

    columns: ClassVar[str] = "removeHash TEXT, embedding BLOB"
    feature: ClassVar[str] = "embedding"

    def schema(self) -> Sequence[str]:
        return (
            "CREATE TABLE Identities (id INTEGER PRIMARY KEY, type INTEGER)",
            "CREATE TABLE IdentityAttributes (id INTEGER, attribute TEXT, value TEXT)",
            f"CREATE TABLE FaceMatrices (id INTEGER PRIMARY KEY, identity INTEGER, {self.columns})",
        )

    def fill(self, people: People) -> Tables:
        tables = Tables()
        for number in range(1, 9):
            tables["Identities"].append({"id": number, "type": 0})
            for attribute, value in (("fullName", f"Person {number}"), ("name", f"P{number}"), ("uuid", "{0}")):
                tables["IdentityAttributes"].append({"id": number, "attribute": attribute, "value": value})
        tables["FaceMatrices"] = [self.row(face) for face in people]
        spare = people.spares()
        traps: list[Row] = [
            {"identity": -1},
            {"identity": 99},
            {self.feature: b""},
            {self.feature: None},
            {self.feature: self.encoded([0.5] * 64)},
        ]
        tables["FaceMatrices"] += [self.row(next(spare)) | trap for trap in traps]
        return tables

    def row(self, face: Face) -> Row:
        """Return the row of a face."""
        return {
            "id": face.number,
            "identity": face.subject + 1,
            "removeHash": f"{face.number:032x}",
            "embedding": self.encoded(face.values),
        }

    def encoded(self, values: Sequence[float]) -> bytes:
        """Return a feature as it is stored."""
        return struct.pack(f"<{len(values)}f", *values)

    def decode(self, value: Any) -> Sequence[float]:
        return struct.unpack(f"<{len(value) // 4}f", value) if value else []


@dataclass(frozen=True)
class DigiKam7(DigiKam8):
    """A context in place of the hash."""

    preset = "digikam-7"
    columns: ClassVar[str] = "context TEXT, embedding BLOB"

    def row(self, face: Face) -> Row:
        row = super().row(face)
        return {"context": "digikam", "id": row["id"], "identity": row["identity"], "embedding": row["embedding"]}


@dataclass(frozen=True)
class DigiKam6(DigiKam8):
    """6.3 and 6.4: a length in big-endian, then zlib; rows of other recognisers hold an image as well."""

    preset = "digikam-6"
    query = "SELECT f.identity, '', f.vecdata FROM FaceMatrices f, Identities i WHERE i.id = f.identity"
    columns: ClassVar[str] = "context TEXT, data BLOB, vecdata BLOB"
    feature: ClassVar[str] = "vecdata"

    def row(self, face: Face) -> Row:
        return {
            "id": face.number,
            "identity": face.subject + 1,
            "context": "digikam",
            "data": self.encoded([1.0] * 9) if face.number % 4 == 0 else None,
            "vecdata": self.encoded(face.values),
        }

    def encoded(self, values: Sequence[float]) -> bytes:
        raw = super().encoded(values)
        return struct.pack(">I", len(raw)) + zlib.compress(raw)

    def decode(self, value: Any) -> Sequence[float]:
        return super().decode(zlib.decompress(value[4:])) if value else []
