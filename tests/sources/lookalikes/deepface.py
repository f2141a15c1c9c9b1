"""DeepFace: nothing but the name of an image tells who it shows; one table for all, or one for each configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pfstore.sources.base import Reason
from tests.sources.lookalikes.base import Face, Lookalike, People, Row, Tables


@dataclass(frozen=True)
class DeepFaceArrays(Lookalike):
    """The table of the client for plain PostgreSQL."""

    preset = "deepface-array"
    system = "deepface"
    dimension = 512
    faces = "embeddings"
    mixes = True
    excluded: ClassVar = {"image name without a person": 2}
    rejected: ClassVar = {Reason.EMPTY: 1, Reason.ZERO_NORM: 1}
    query = """
        SELECT split_part(replace(img_name, E'\\\\', '/'), '/', 3), img_name, embedding FROM embeddings
        WHERE img_name NOT IN ('upload', 'https') AND model_name = 'Facenet512'"""

    kind: ClassVar[str] = "float8[]"

    def schema(self) -> Sequence[str]:
        return (
            f"CREATE TABLE {self.faces} (id bigserial PRIMARY KEY, img_name text NOT NULL, face bytea,"
            " model_name text NOT NULL, detector_backend text NOT NULL, aligned boolean DEFAULT true,"
            f" l2_normalized boolean DEFAULT false, embedding {self.kind}, created_at timestamptz DEFAULT now())",
            "CREATE TABLE embeddings_index (id serial PRIMARY KEY, model_name text, index_data bytea)",
        )

    def fill(self, people: People) -> Tables:
        tables = Tables()
        tables[self.faces] = [_row(face) for face in people]
        spare = people.spares()
        tables[self.faces] += [_row(next(spare)) | trap for trap in self.traps()]
        return tables

    def traps(self) -> list[Row]:
        """Return how the rows of the traps differ from others."""
        return [
            {"img_name": "upload"},
            {"img_name": "https"},
            {"embedding": None},
            {"embedding": [0.0] * 512},
        ]

    def another_extractor(self, people: People) -> Tables:
        tables = Tables()
        tables[self.faces].append(_row(next(people.spares())) | {"id": 20_000, "model_name": "ArcFace"})
        return tables

    def decode(self, value: Any) -> Sequence[float]:
        return value or []


@dataclass(frozen=True)
class DeepFaceVectors(DeepFaceArrays):
    """A table of the client for pgvector."""

    preset = "deepface-pgvector"
    faces = "embeddings_facenet512_retinaface_aligned_raw"
    needs_pgvector = True
    mixes = False
    query = DeepFaceArrays.query.replace("embedding FROM embeddings", f"embedding::text FROM {faces}")
    kind: ClassVar[str] = "vector(512)"

    def schema(self) -> Sequence[str]:
        return ("CREATE EXTENSION vector", super().schema()[0])

    def decode(self, value: Any) -> Sequence[float]:
        return json.loads(value) if value else []


def _row(face: Face) -> Row:
    # The same people were registered from Windows and from Linux.
    between = "\\" if face.subject % 2 else "/"
    name = between.join(["photos", "2024", f"person {face.subject}", f"{face.medium}.jpg"])
    return {
        "id": face.number + 1,
        "img_name": name,
        "face": b"\0" * 12,
        "model_name": "Facenet512",
        "detector_backend": "retinaface",
        "aligned": True,
        "l2_normalized": False,
        "embedding": face.values,
        "created_at": f"2024-01-01 00:00:{face.number % 60:02d}+00",
    }
