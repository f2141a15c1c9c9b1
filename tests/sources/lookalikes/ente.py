"""Ente: a protobuf message of doubles in SQLite, and a row without a feature for each photo without a face."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pfstore.sources.base import Reason
from tests.sources.lookalikes.base import Face, Lookalike, People, Row, Tables


@dataclass(frozen=True)
class Ente(Lookalike):
    """ente.ml.db of the mobile app."""

    preset = "ente"
    system = "ente"
    dimension = 192
    faces = "faces"
    excluded: ClassVar = {
        "no face in the file, or an error": 3,
        "not clustered yet": 2,
        "cluster without a person": 2,
        "cluster of several people": 1,
    }
    rejected: ClassVar = {Reason.EMPTY: 1}
    query = """
        SELECT p.person_id, f.file_id, f.embedding FROM faces f JOIN face_clusters c USING (face_id)
        JOIN cluster_person p USING (cluster_id) WHERE f.score > 0 AND c.cluster_id <> 'shared'"""

    def schema(self) -> Sequence[str]:
        return (
            "CREATE TABLE faces (file_id INTEGER NOT NULL, face_id TEXT NOT NULL UNIQUE, detection TEXT,"
            " embedding BLOB NOT NULL, score REAL NOT NULL, blur REAL NOT NULL, ml_version INTEGER,"
            " PRIMARY KEY (file_id, face_id))",
            "CREATE TABLE face_clusters (face_id TEXT PRIMARY KEY, cluster_id TEXT NOT NULL)",
            "CREATE TABLE cluster_person (person_id TEXT, cluster_id TEXT, PRIMARY KEY (person_id, cluster_id))",
            "CREATE TABLE cluster_summary (cluster_id TEXT PRIMARY KEY, avg BLOB NOT NULL, count INTEGER)",
            "CREATE TABLE clip (file_id INTEGER PRIMARY KEY, embedding BLOB NOT NULL)",
        )

    def fill(self, people: People) -> Tables:
        tables = Tables()
        for number in range(8):
            for cluster in (_cluster(number, 0), _cluster(number, 1)):
                tables["cluster_person"].append({"person_id": f"person-{number}", "cluster_id": cluster})
                tables["cluster_summary"].append({"cluster_id": cluster, "avg": _vector([1.0] * 192), "count": 3})
        tables["cluster_person"] += [{"person_id": f"person-{n}", "cluster_id": "shared"} for n in (0, 1)]
        for face in people:
            _add(tables, face, _cluster(face.subject, face.number % 2))
        self._add_traps(tables, people)
        return tables

    def _add_traps(self, tables: Tables, people: People) -> None:
        spare = people.spares()
        for score in (0.0, 0.0, -1.0):
            _add(tables, next(spare), None, embedding=b"", score=score)
        for cluster in (None, None, "nobody", "nobody", "shared"):
            _add(tables, next(spare), cluster)
        _add(tables, next(spare), _cluster(0, 0), embedding=b"")

    def decode(self, value: Any) -> Sequence[float]:
        if not value:
            return []
        # Field 1, length-delimited: 0x0a, then the length as a varint of two bytes for 192 doubles.
        length = (value[1] & 0x7F) | value[2] << 7
        assert (value[0], length) == (0x0A, len(value) - 3)
        return struct.unpack(f"<{length // 8}d", value[3:])


def _add(tables: Tables, face: Face, cluster: str | None, **changes: Any) -> None:
    name = f"{face.medium}_0.1_0.2_0.3_{face.number}"
    row: Row = {
        "file_id": face.medium,
        "face_id": name,
        "detection": "{}",
        "embedding": _vector(face.values),
        "score": 0.9,
        "blur": 300.0,
        "ml_version": 1,
    }
    tables["faces"].append(row | changes)
    if cluster is not None:
        tables["face_clusters"].append({"face_id": name, "cluster_id": cluster})


def _cluster(subject: int, number: int) -> str:
    return f"cluster-{subject}-{number}"


def _vector(values: Sequence[float]) -> bytes:
    length = 8 * len(values)
    return bytes([0x0A, length & 0x7F | 0x80, length >> 7]) + struct.pack(f"<{len(values)}d", *values)
