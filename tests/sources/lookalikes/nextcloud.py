"""Recognize and Face Recognition, two apps of Nextcloud: JSON on three engines, prefixed tables, clusters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pfstore.sources.base import Reason
from tests.sources.lookalikes.base import Engine, Face, Lookalike, People, Row, Tables

_USERS = ("anna", "bjørn/2")
_UNNAMED, _HIDDEN = 30, 31


def _json_type(engine: Engine) -> str:
    return "JSON" if engine != "sqlite" else "CLOB"


@dataclass(frozen=True)
class Recognize10(Lookalike):
    """Since version 10. Two users have a cluster of the same title."""

    preset = "recognize-10"
    system = "recognize"
    dimension = 128
    faces = "oc_recognize_face_detections"
    mixes = True
    excluded: ClassVar = {
        "not clustered yet": 2,
        "in no cluster: an outlier, or taken out": 3,
        "cluster gone": 1,
        "cluster without a name": 2,
        "no feature": 1,
    }
    query = """
        SELECT d.user_id, c.title, d.file_id, d.face_vector
        FROM oc_recognize_face_detections d, oc_recognize_face_clusters c
        WHERE c.id = d.cluster_id AND c.title <> '' AND d.cluster_id > 0 AND LENGTH(d.face_vector) < 4500"""

    column: ClassVar[str] = "face_vector"

    def schema(self) -> Sequence[str]:
        return (
            "CREATE TABLE oc_recognize_face_clusters (id BIGINT PRIMARY KEY, title VARCHAR(4000) NOT NULL,"
            " user_id VARCHAR(64))",
            "CREATE TABLE oc_recognize_face_detections (id BIGINT PRIMARY KEY, user_id VARCHAR(64), file_id BIGINT,"
            f" x DOUBLE PRECISION, width DOUBLE PRECISION, {self.column} {self.column_type()} NOT NULL,"
            " cluster_id BIGINT, threshold DOUBLE PRECISION)",
            "CREATE TABLE oc_recognize_queue_faces (id BIGINT PRIMARY KEY, file_id BIGINT)",
        )

    def column_type(self) -> str:
        """Return the type of the feature's column."""
        return "TEXT"

    def fill(self, people: People) -> Tables:
        tables = Tables()
        clusters = tables["oc_recognize_face_clusters"]
        for number in range(1, 9):
            title = "Grandma 100%" if number <= 2 else f"Person {number}"
            clusters.append({"id": number, "title": title, "user_id": _USERS[number % 2]})
        clusters.append({"id": _UNNAMED, "title": "", "user_id": _USERS[0]})
        tables[self.faces] = [self.row(face) for face in people]
        spare = people.spares()
        tables[self.faces] += [self.row(next(spare)) | trap for trap in self.traps()]
        return tables

    def traps(self) -> list[Row]:
        """Return how the rows of the traps differ from others."""
        return [
            *[{"cluster_id": None}] * 2,
            *[{"cluster_id": -1}] * 3,
            {"cluster_id": 99},
            *[{"cluster_id": _UNNAMED}] * 2,
            {self.column: "[]"},
        ]

    def row(self, face: Face) -> Row:
        """Return the row of a face."""
        cluster = face.subject + 1
        return {
            "id": face.number + 1,
            "user_id": _USERS[cluster % 2],
            "file_id": 100 + face.medium,
            "x": 0.5,
            "width": 0.1,
            self.column: json.dumps(face.values),
            "cluster_id": cluster,
            "threshold": 0.0,
        }

    def another_extractor(self, people: People) -> Tables:
        tables = Tables()
        row = self.row(next(people.spares())) | {"id": 20_000, self.column: json.dumps([0.25] * 512)}
        tables[self.faces].append(row)
        return tables

    def decode(self, value: Any) -> Sequence[float]:
        # psycopg gives JSON as what it says.
        numbers: list[float] = json.loads(value) if isinstance(value, str) else value
        return numbers


@dataclass(frozen=True)
class Recognize2(Recognize10):
    """Before version 10: the column has another name and is JSON."""

    preset = "recognize-2"
    mixes = False
    excluded: ClassVar = {cause: rows for cause, rows in Recognize10.excluded.items() if cause != "no feature"}
    rejected: ClassVar = {Reason.EMPTY: 1}
    query = Recognize10.query.replace("d.face_vector", "d.vector", 1).replace(" AND LENGTH(d.face_vector) < 4500", "")
    column: ClassVar[str] = "vector"

    def column_type(self) -> str:
        return _json_type(self.engine)


@dataclass(frozen=True)
class FaceRecognition(Lookalike):
    """Since 0.9.93: faces have clusters, and clusters have people."""

    preset = "facerecognition-0.9.93"
    system = "facerecognition"
    dimension = 128
    faces = "oc_facerecog_faces"
    mixes = True
    excluded: ClassVar = {
        "photo gone": 1,
        "face set apart": 2,
        "not clustered yet": 2,
        "cluster hidden": 2,
        "cluster without a name": 2,
    }
    rejected: ClassVar = {Reason.EMPTY: 1}
    query = """
        SELECT c.user, c.person, i.file, f.descriptor
        FROM oc_facerecog_faces f, oc_facerecog_images i, oc_facerecog_clusters c, oc_facerecog_persons p
        WHERE i.id = f.image AND c.id = f.cluster AND p.id = c.person AND (f.is_groupable OR f.is_groupable IS NULL)
          AND (c.is_visible OR c.is_visible IS NULL)"""

    face_key: ClassVar[str] = "cluster"

    def schema(self) -> Sequence[str]:
        user = '"user"' if self.engine == "postgresql" else "user"
        return (
            "CREATE TABLE oc_facerecog_images (id INTEGER PRIMARY KEY, file INTEGER, model INTEGER)",
            f"CREATE TABLE oc_facerecog_faces (id INTEGER PRIMARY KEY, image INTEGER, {self.face_key} INTEGER,"
            f" is_groupable BOOLEAN, confidence DOUBLE PRECISION, descriptor {_json_type(self.engine)} NOT NULL,"
            " creation_time TIMESTAMP)",
            "CREATE TABLE oc_facerecog_models (id INTEGER PRIMARY KEY, name VARCHAR(256))",
            *self.people_schema(user),
        )

    def people_schema(self, user: str) -> Sequence[str]:
        """Return the statements for clusters and people."""
        return (
            f"CREATE TABLE oc_facerecog_clusters (id INTEGER PRIMARY KEY, {user} VARCHAR(64), model INTEGER,"
            f" is_visible BOOLEAN, person INTEGER)",
            f"CREATE TABLE oc_facerecog_persons (id INTEGER PRIMARY KEY, {user} VARCHAR(64), name VARCHAR(256))",
        )

    def fill(self, people: People) -> Tables:
        tables = Tables()
        tables["oc_facerecog_models"].append({"id": 3, "name": "DlibHog"})
        tables["oc_facerecog_images"] = [{"id": n, "file": 500 + n, "model": 3} for n in range(24)]
        self.fill_people(tables)
        tables[self.faces] = [self.row(face) for face in people]
        spare = people.spares()
        traps: list[Row] = [
            {"image": 99},
            *[{"is_groupable": False}] * 2,
            *[{self.face_key: None}] * 2,
            *[{self.face_key: _HIDDEN}] * 2,
            *[{self.face_key: _UNNAMED}] * 2,
            {"descriptor": "[]"},
        ]
        tables[self.faces] += [self.row(next(spare)) | trap for trap in traps]
        return tables

    def fill_people(self, tables: Tables) -> None:
        """Add clusters and people; each of the first looks like two clusters."""
        for number in range(8):
            user = _USERS[number % 2]
            tables["oc_facerecog_persons"].append({"id": number, "user": user, "name": f"Person {number}"})
            for cluster in (number, number + 10):
                tables["oc_facerecog_clusters"].append(_cluster(cluster, user, person=number))
        tables["oc_facerecog_clusters"] += [
            _cluster(_HIDDEN, _USERS[0], person=0, is_visible=False),
            _cluster(_UNNAMED, _USERS[0], person=None),
        ]

    def row(self, face: Face) -> Row:
        """Return the row of a face."""
        return {
            "id": face.number,
            "image": face.medium,
            self.face_key: face.subject + (10 if face.number % 2 else 0),
            "is_groupable": True if face.number % 3 else None,
            "confidence": 1.1,
            "descriptor": json.dumps(face.values),
            "creation_time": "2024-01-01 00:00:00",
        }

    def another_extractor(self, people: People) -> Tables:
        tables = Tables()
        tables["oc_facerecog_images"].append({"id": 50, "file": 500, "model": 4})
        tables[self.faces].append(self.row(next(people.spares())) | {"id": 20_000, "image": 50})
        return tables

    def decode(self, value: Any) -> Sequence[float]:
        numbers: list[float] = json.loads(value) if isinstance(value, str) else value
        return numbers


@dataclass(frozen=True)
class OldFaceRecognition(FaceRecognition):
    """Up to 0.9.8: what is called a person is a cluster, and several may have one name."""

    preset = "facerecognition-0.5"
    query = """
        SELECT p.user, p.name, i.file, f.descriptor
        FROM oc_facerecog_faces f, oc_facerecog_images i, oc_facerecog_persons p
        WHERE i.id = f.image AND p.id = f.person AND p.name <> '' AND (f.is_groupable OR f.is_groupable IS NULL)
          AND (p.is_visible OR p.is_visible IS NULL)"""
    face_key: ClassVar[str] = "person"

    def people_schema(self, user: str) -> Sequence[str]:
        return (
            f"CREATE TABLE oc_facerecog_persons (id INTEGER PRIMARY KEY, {user} VARCHAR(64), name VARCHAR(256),"
            f" is_visible BOOLEAN, is_valid BOOLEAN)",
        )

    def fill_people(self, tables: Tables) -> None:
        for number in range(8):
            for cluster in (number, number + 10):
                tables["oc_facerecog_persons"].append(_person(cluster, _USERS[number % 2], f"Person {number}"))
        tables["oc_facerecog_persons"] += [
            _person(_HIDDEN, _USERS[0], "Person 0", is_visible=False),
            _person(_UNNAMED, _USERS[0], None),
        ]


def _cluster(number: int, user: str, **changes: Any) -> Row:
    return {"id": number, "user": user, "model": 3, "is_visible": True if number % 2 else None, **changes}


def _person(number: int, user: str, name: str | None, **changes: Any) -> Row:
    return {"id": number, "user": user, "name": name, "is_visible": True, "is_valid": True, **changes}
