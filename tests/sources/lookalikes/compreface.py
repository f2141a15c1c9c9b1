"""CompreFace: arrays of float8, before 0.5.1 numbers written as strings within JSON; a demo that everybody has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pfstore.sources.base import Reason
from tests.sources.lookalikes.base import Face, Lookalike, People, Row, Tables, uuid

_DEMO_KEY = "00000000-0000-0000-0000-000000000002"
_KEYS = {1: uuid(5, 1), 2: uuid(5, 2), 3: _DEMO_KEY}
_SUBJECT, _EMBEDDING, _IMAGE = 6, 7, 8


@dataclass(frozen=True)
class CompreFace(Lookalike):
    """Since 0.5.1. Two services know the same names, and one name has a slash and a percent sign."""

    preset = "compreface-0.5.1"
    system = "compreface"
    dimension = 512
    faces = "embedding"
    mixes = True
    excluded: ClassVar = {"person of the demo": 2}
    rejected: ClassVar = {Reason.EMPTY: 1, Reason.NON_FINITE: 1, Reason.ZERO_NORM: 1}
    query = f"""
        SELECT m.id, s.subject_name, CASE WHEN e.img_id IS NULL THEN e.id ELSE e.img_id END, e.embedding
        FROM embedding e JOIN subject s ON s.id = e.subject_id JOIN model m ON m.api_key = s.api_key
        WHERE m.api_key <> '{_DEMO_KEY}' AND e.calculator = 'facenet.Calculator@20180402'"""

    def schema(self) -> Sequence[str]:
        return (
            "CREATE TABLE model (id bigint PRIMARY KEY, name text, api_key varchar(36) UNIQUE)",
            "CREATE TABLE subject (id uuid PRIMARY KEY, api_key varchar(36), subject_name varchar(255),"
            " UNIQUE (api_key, subject_name))",
            "CREATE TABLE img (id uuid PRIMARY KEY, content bytea NOT NULL)",
            "CREATE TABLE embedding (id uuid PRIMARY KEY, subject_id uuid, embedding float8[] NOT NULL,"
            " calculator varchar(255) NOT NULL, img_id uuid)",
        )

    def fill(self, people: People) -> Tables:
        tables = Tables()
        tables["model"] = [{"id": number, "name": "Service", "api_key": key} for number, key in _KEYS.items()]
        for number in range(8):
            key = _KEYS[1 + number % 2]
            tables["subject"].append({"id": uuid(_SUBJECT, number), "api_key": key, "subject_name": _name(number)})
        demo = {"id": "00000000-0000-0000-0000-000000000010", "api_key": _DEMO_KEY, "subject_name": "A film star"}
        tables["subject"].append(demo)
        tables["embedding"] = [_embedding(face) for face in people]
        spare = people.spares()
        traps: list[Row] = [
            *[{"subject_id": demo["id"], "img_id": None}] * 2,
            {"embedding": []},
            {"embedding": [float("nan")] * 512},
            {"embedding": [0.0] * 512},
        ]
        tables["embedding"] += [_embedding(next(spare)) | trap for trap in traps]
        return tables

    def another_extractor(self, people: People) -> Tables:
        tables = Tables()
        spare = people.spares()
        for number in range(3):
            row = _embedding(next(spare)) | {"id": uuid(_EMBEDDING, 20_000 + number)}
            tables["embedding"].append(row | {"calculator": "insightface.Calculator@arcface_r100_v1"})
        return tables

    def decode(self, value: Any) -> Sequence[float]:
        return [] if any(number != number for number in value) else value


@dataclass(frozen=True)
class OldCompreFace(CompreFace):
    """Up to 0.5.0, where a face is a row of its own and its name the only tie to others."""

    preset = "compreface-0.5"
    faces = "face"
    rejected: ClassVar = {Reason.EMPTY: 2, Reason.UNDECODABLE: 1}
    query = f"""
        SELECT m.id, f.face_name, f.id, f.embeddings FROM face f JOIN model m ON m.api_key = f.api_key
        WHERE m.api_key <> '{_DEMO_KEY}' AND (f.embeddings ->> 'calculatorVersion') = 'Facenet2018'"""

    def schema(self) -> Sequence[str]:
        return (
            super().schema()[0],
            "CREATE TABLE face (id varchar(36) UNIQUE, face_name varchar(255), api_key varchar(36), embeddings json)",
            "CREATE TABLE image (face_id varchar(36), raw_img_fs bytea, face_img_fs bytea)",
        )

    def fill(self, people: People) -> Tables:
        tables = Tables()
        tables["model"] = [{"id": number, "name": "Service", "api_key": key} for number, key in _KEYS.items()]
        tables["face"] = [_face(face) for face in people]
        spare = people.spares()
        traps: list[Row] = [
            {"api_key": _DEMO_KEY, "id": "00000000-0000-0000-0000-000000000010"},
            {"api_key": _DEMO_KEY, "id": "00000000-0000-0000-0000-000000000026"},
            {"embeddings": _json([])},
            {"embeddings": _json(None)},
            {"embeddings": _json(["0.5", "many"])},
        ]
        tables["face"] += [_face(next(spare)) | trap for trap in traps]
        return tables

    def another_extractor(self, people: People) -> Tables:
        tables = Tables()
        values = [str(number) for number in next(people.spares()).values]
        row = {"id": uuid(_EMBEDDING, 20_000), "face_name": _name(0), "api_key": _KEYS[1]}
        tables["face"].append(row | {"embeddings": _json(values, "Arcface")})
        return tables

    def decode(self, value: Any) -> Sequence[float]:
        values = value["embeddings"] or []
        return [float(number) for number in values] if "many" not in values else []


def _name(number: int) -> str:
    return "A/B 50% off" if number == 3 else f"Person {number // 2}"


def _embedding(face: Face) -> Row:
    # Where no images are kept, every embedding stands for itself.
    image = uuid(_IMAGE, face.medium) if face.medium % 2 else None
    return {
        "id": uuid(_EMBEDDING, face.number),
        "subject_id": uuid(_SUBJECT, face.subject),
        "embedding": face.values,
        "calculator": "facenet.Calculator@20180402",
        "img_id": image,
    }


def _face(face: Face) -> Row:
    return {
        "id": uuid(_EMBEDDING, face.number),
        "face_name": _name(face.subject),
        "api_key": _KEYS[1 + face.subject % 2],
        "embeddings": _json([str(number) for number in face.values]),
    }


def _json(values: Sequence[str] | None, version: str = "Facenet2018") -> str:
    return json.dumps({"embeddings": values, "calculatorVersion": version})
