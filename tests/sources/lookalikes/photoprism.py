"""PhotoPrism: JSON in a blob, keys of bytes, and soft deletes on each of four tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pfstore.sources.base import Reason
from tests.sources.lookalikes.base import Face, Lookalike, People, Row, Tables

_GONE = "2024-05-01 10:00:00"


@dataclass(frozen=True)
class PhotoPrism(Lookalike):
    """MariaDB, or SQLite, whose columns take what they are given whatever their type."""

    preset = "photoprism"
    system = "photoprism"
    dimension = 512
    faces = "markers"
    excluded: ClassVar = {
        "no face but another marker": 1,
        "marker invalid": 2,
        "no person assigned": 3,
        "person gone": 1,
        "person deleted": 2,
        "person excluded": 2,
        "person hidden": 2,
        "file deleted": 1,
        "photo archived or deleted": 2,
    }
    rejected: ClassVar = {Reason.EMPTY: 2, Reason.WRONG_DIMENSION: 1}
    query = """
        SELECT m.subj_uid, m.file_uid, m.embeddings_json FROM markers m, subjects s, files f, photos p
        WHERE s.subj_uid = m.subj_uid AND f.file_uid = m.file_uid AND p.id = f.photo_id AND m.marker_type = 'face'
          AND m.marker_invalid = 0 AND s.subj_hidden = 0 AND s.subj_excluded = 0
          AND s.deleted_at IS NULL AND f.deleted_at IS NULL AND p.deleted_at IS NULL"""

    def schema(self) -> Sequence[str]:
        return (
            "CREATE TABLE subjects (subj_uid VARBINARY(42) PRIMARY KEY, subj_name VARCHAR(160), subj_hidden BOOLEAN,"
            " subj_excluded BOOLEAN, subj_private BOOLEAN, deleted_at DATETIME)",
            "CREATE TABLE photos (id INTEGER PRIMARY KEY, photo_private BOOLEAN, deleted_at DATETIME)",
            "CREATE TABLE files (file_uid VARBINARY(42) PRIMARY KEY, file_name VARBINARY(1024), photo_id INTEGER,"
            " deleted_at DATETIME)",
            "CREATE TABLE markers (marker_uid VARBINARY(42) PRIMARY KEY, file_uid VARBINARY(42),"
            " marker_type VARBINARY(8), marker_invalid BOOLEAN, marker_review BOOLEAN, subj_uid VARBINARY(42),"
            " subj_src VARBINARY(8), face_id VARBINARY(64), embeddings_json MEDIUMBLOB, score SMALLINT,"
            " updated_at DATETIME)",
            "CREATE TABLE faces (id VARBINARY(64) PRIMARY KEY, subj_uid VARBINARY(42), embedding_json MEDIUMBLOB)",
        )

    def fill(self, people: People) -> Tables:
        tables = Tables()
        for subject in range(8):
            tables["subjects"].append(_subject(subject))
        tables["subjects"] += [
            _subject(20, deleted_at=_GONE),
            _subject(21, subj_excluded=True),
            _subject(22, subj_hidden=True),
        ]
        for photo in range(24):
            tables["photos"].append({"id": photo, "photo_private": photo % 2 == 0, "deleted_at": None})
            tables["files"].append(_file(photo))
        tables["photos"].append({"id": 30, "photo_private": False, "deleted_at": _GONE})
        tables["files"] += [_file(30), _file(31, photo_id=1, deleted_at=_GONE)]
        tables["markers"] += [_marker(face) for face in people]
        tables["markers"] += self._traps(people)
        tables["faces"].append({"id": "CENTRE", "subj_uid": _uid(0), "embedding_json": _json([[1.0] * 512])})
        return tables

    def _traps(self, people: People) -> list[Row]:
        spare = people.spares()
        traps: list[Row] = [
            {"marker_type": "label"},
            {"marker_invalid": True},
            {"marker_invalid": True, "subj_uid": ""},
            {"subj_uid": None},
            {"subj_uid": ""},
            {"subj_uid": "", "embeddings_json": b""},
            {"subj_uid": _uid(99)},
            *[{"subj_uid": _uid(20)}] * 2,
            *[{"subj_uid": _uid(21)}] * 2,
            *[{"subj_uid": _uid(22)}] * 2,
            {"file_uid": "fs31"},
            *[{"file_uid": "fs30"}] * 2,
            {"embeddings_json": b""},
            {"embeddings_json": None},
            {"embeddings_json": _json([[0.5] * 128])},
        ]
        return [_marker(next(spare)) | trap for trap in traps]

    def decode(self, value: Any) -> Sequence[float]:
        numbers: list[float] = json.loads(value)[0] if value else []
        return numbers


def _uid(subject: int) -> str:
    return f"js{subject:014x}"


def _subject(number: int, **changes: Any) -> Row:
    row = {"subj_uid": _uid(number), "subj_name": f"Person {number}", "subj_hidden": False, "subj_excluded": False}
    return {**row, "subj_private": number % 2 == 0, "deleted_at": None, **changes}


def _file(number: int, **changes: Any) -> Row:
    name = f"2024/05/{number}.jpg"
    return {"file_uid": f"fs{number}", "file_name": name, "photo_id": number, "deleted_at": None, **changes}


def _marker(face: Face) -> Row:
    # Where the model gives more than one vector, one that PhotoPrism cannot match is null.
    further: list[list[Any]] = [[], [None], [[0.25] * 512]]
    return {
        "marker_uid": f"ms{face.number:014x}",
        "file_uid": f"fs{face.medium}",
        "marker_type": "face",
        "marker_invalid": False,
        "marker_review": face.number % 5 == 0,
        "subj_uid": _uid(face.subject),
        "subj_src": "manual" if face.number % 4 == 0 else "",
        "face_id": "CENTRE",
        "embeddings_json": _json([face.values, *further[face.number % 3]]),
        "score": 20 + face.number,
        "updated_at": "2023-01-01 00:00:00",
    }


def _json(embeddings: Sequence[Any]) -> bytes:
    return json.dumps(embeddings).encode()
