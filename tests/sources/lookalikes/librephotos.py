"""LibrePhotos: hexadecimal text of float64, guessed labels beside given ones, and photos that changed their key."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pfstore.sources.base import Reason
from tests.sources.lookalikes.base import Face, Lookalike, People, Row, Tables, uuid

_UNKNOWN, _CLUSTER = 20, 21
_TRASHED, _REMOVED, _HIDDEN = 40, 41, 42


@dataclass(frozen=True)
class LibrePhotos99(Lookalike):
    """Since migration 0099: photos have a UUID, and encodings of the old model are emptied."""

    preset = "librephotos-0099"
    system = "librephotos"
    dimension = 512
    faces = "api_face"
    mixes = True
    excluded: ClassVar = {
        "face deleted": 2,
        "label guessed, not given": 3,
        "no person assigned": 2,
        "cluster without a name": 1,
        "photo in the trash": 2,
        "photo removed": 1,
        "photo hidden": 2,
        "encoding emptied": 2,
    }
    query = """
        SELECT f.person_id, f.photo_id, f.encoding FROM api_face f, api_person n, api_photo p
        WHERE n.id = f.person_id AND p.id = f.photo_id AND n.kind = 'USER' AND NOT f.deleted AND NOT p.in_trashcan
          AND NOT p.removed AND NOT p.hidden AND LENGTH(f.encoding) = 8192"""

    photo_columns: ClassVar[str] = "id {uuid} PRIMARY KEY, image_hash VARCHAR(64)"
    photo_key: ClassVar[str] = "{uuid}"
    photo_flags: ClassVar[tuple[str, ...]] = ("in_trashcan", "removed", "hidden")
    no_guess: ClassVar[Row] = {"cluster_person_id": None, "classification_person_id": None}
    face_columns: ClassVar[str] = (
        "cluster_person_id INTEGER, classification_person_id INTEGER, classification_probability FLOAT,"
        " deleted BOOLEAN NOT NULL"
    )

    def schema(self) -> Sequence[str]:
        kind = "uuid" if self.engine == "postgresql" else "CHAR(32)"
        flags = ", ".join(f"{flag} BOOLEAN NOT NULL" for flag in self.photo_flags)
        return (
            "CREATE TABLE api_person (id INTEGER PRIMARY KEY, name VARCHAR(128), kind VARCHAR(10))",
            f"CREATE TABLE api_photo ({self.photo_columns.format(uuid=kind)}, {flags})",
            "CREATE TABLE api_cluster (id INTEGER PRIMARY KEY, person_id INTEGER, mean_face_encoding TEXT)",
            f"CREATE TABLE api_face (id INTEGER PRIMARY KEY, photo_id {self.photo_key.format(uuid=kind)},"
            f" person_id INTEGER, {self.face_columns}, encoding TEXT NOT NULL)",
        )

    def fill(self, people: People) -> Tables:
        tables = Tables()
        kinds = {**dict.fromkeys(range(8), "USER"), _UNKNOWN: "UNKNOWN", _CLUSTER: "CLUSTER"}
        tables["api_person"] = [
            {"id": number, "name": f"Person {number}", "kind": kind} for number, kind in kinds.items()
        ]
        flagged = dict(zip((_TRASHED, _REMOVED, _HIDDEN), ("in_trashcan", "removed", "hidden"), strict=True))
        tables["api_photo"] = [self.photo(number, flagged.get(number)) for number in (*range(24), *flagged)]
        tables["api_cluster"].append({"id": 1, "person_id": 0, "mean_face_encoding": _hex([1.0] * self.dimension)})
        spare = people.spares()
        tables["api_face"] = [self.face(face) for face in people]
        tables["api_face"] += [self.face(next(spare)) | trap for trap in self.traps()]
        return tables

    def traps(self) -> list[Row]:
        """Return how the rows of the traps differ from others."""
        return [
            *[{"deleted": True}] * 2,
            {"person_id": None, "cluster_person_id": 0},
            {"person_id": None, "classification_person_id": 0},
            {"person_id": None, "classification_person_id": 0, "cluster_person_id": _CLUSTER},
            *self.common_traps(),
            {"photo_id": self.photo_id(_REMOVED)},
            *[{"encoding": ""}] * 2,
        ]

    def common_traps(self) -> list[Row]:
        """Return the traps of all generations."""
        return [
            {"person_id": _UNKNOWN},
            {"person_id": None, **self.no_guess},
            {"person_id": _CLUSTER},
            *[{"photo_id": self.photo_id(_TRASHED)}] * 2,
            *[{"photo_id": self.photo_id(_HIDDEN)}] * 2,
        ]

    def photo_id(self, number: int) -> str:
        """Return the key of a photo."""
        key = uuid(4, number)
        return key if self.engine == "postgresql" else key.replace("-", "")

    def photo(self, number: int, flag: str | None) -> Row:
        """Return a row of api_photo; flag: what is wrong with the photo."""
        return {
            "id": self.photo_id(number),
            "image_hash": _hash(number),
            **{name: name == flag for name in self.photo_flags},
        }

    def face(self, face: Face) -> Row:
        """Return the row of a face."""
        return {
            "id": face.number,
            "photo_id": self.photo_id(face.medium),
            "person_id": face.subject,
            "cluster_person_id": face.number % 8,
            "classification_person_id": None if face.number % 2 else (face.number + 1) % 8,
            "classification_probability": 0.9,
            "deleted": False,
            "encoding": _hex(face.values),
        }

    def another_extractor(self, people: People) -> Tables:
        tables = Tables()
        tables["api_face"].append(self.face(next(people.spares())) | {"id": 20_000, "encoding": _hex([0.1] * 128)})
        return tables

    def decode(self, value: Any) -> Sequence[float]:
        raw = bytes.fromhex(value)
        return struct.unpack(f"<{len(raw) // 8}d", raw)


@dataclass(frozen=True)
class LibrePhotos71(LibrePhotos99):
    """Migrations 0071 to 0098: a photo's key is its hash; one model, dlib's."""

    preset = "librephotos-0071"
    dimension = 128
    mixes = False
    excluded: ClassVar = {cause: rows for cause, rows in LibrePhotos99.excluded.items() if cause != "encoding emptied"}
    rejected: ClassVar = {Reason.EMPTY: 2}
    query = LibrePhotos99.query.replace("p.id", "p.image_hash").replace("8192", "2048")
    photo_columns: ClassVar[str] = "image_hash VARCHAR(64) PRIMARY KEY"
    photo_key: ClassVar[str] = "VARCHAR(64)"

    def photo_id(self, number: int) -> str:
        return _hash(number)

    def photo(self, number: int, flag: str | None) -> Row:
        row = super().photo(number, flag)
        del row["id"]
        return row


@dataclass(frozen=True)
class LibrePhotos70(LibrePhotos71):
    """Migration 0070: everybody is a person, and a flag tells guessed labels."""

    preset = "librephotos-0070"
    excluded: ClassVar = {
        "no person assigned": 2,
        "cluster without a name": 1,
        "label guessed, not given": 3,
        "photo in the trash": 2,
        "photo removed": 1,
        "photo hidden": 2,
    }
    query = LibrePhotos71.query.replace("NOT f.deleted", "f.person_label_is_inferred IS NOT TRUE")
    no_guess: ClassVar[Row] = {}
    face_columns: ClassVar[str] = "person_label_is_inferred BOOLEAN, person_label_probability FLOAT"

    def traps(self) -> list[Row]:
        return [
            *[{"person_label_is_inferred": True}] * 3,
            *self.common_traps(),
            {"photo_id": self.photo_id(_REMOVED)},
            *[{"encoding": ""}] * 2,
        ]

    def face(self, face: Face) -> Row:
        return {
            "id": face.number,
            "photo_id": self.photo_id(face.medium),
            "person_id": face.subject,
            "person_label_is_inferred": False if face.number % 3 else None,
            "person_label_probability": 1.0,
            "encoding": _hex(face.values),
        }


@dataclass(frozen=True)
class LibrePhotos23(LibrePhotos70):
    """Migrations 0023 to 0068: what is in the trash is called deleted."""

    preset = "librephotos-0023"
    excluded: ClassVar = {cause: rows for cause, rows in LibrePhotos70.excluded.items() if cause != "photo removed"}
    query = LibrePhotos70.query.replace("p.in_trashcan", "p.deleted").replace(" AND NOT p.removed", "")
    photo_flags: ClassVar[tuple[str, ...]] = ("deleted", "hidden")

    def photo(self, number: int, flag: str | None) -> Row:
        return super().photo(number, "deleted" if flag == "in_trashcan" else flag)

    def traps(self) -> list[Row]:
        return [one for one in super().traps() if one.get("photo_id") != self.photo_id(_REMOVED)]


def _hash(number: int) -> str:
    return f"{number:032x}1"


def _hex(values: Sequence[float]) -> str:
    return struct.pack(f"<{len(values)}d", *values).hex()
