"""Immich in its generations: arrays, then vectors, then a table of vectors; people who became groups."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pfstore.sources.base import Reason
from tests.sources.lookalikes.base import Face, Lookalike, People, Row, Tables, uuid

_GONE = "2024-05-01 10:00:00+00"
_OWNERS = [uuid(9, 1), uuid(9, 2)]
_ASSET, _PERSON, _FACE = 1, 2, 3
_HIDDEN, _TRASHED = 20, 40


@dataclass(frozen=True)
class Immich2(Lookalike):
    """2.5 to 3.1, the generation from which the others differ."""

    preset = "immich-2.5"
    system = "immich"
    dimension = 512
    faces = "asset_face"
    needs_pgvector = True
    excluded: ClassVar = {
        "face deleted": 2,
        "asset deleted": 2,
        "face outside of the edited photo": 2,
        "face without an embedding": 3,
        "no person assigned": 3,
        "person hidden": 2,
    }
    # pgvector takes the zero vector; its cosine distance to anything is not a number.
    rejected: ClassVar = {Reason.ZERO_NORM: 1}
    query = """
        SELECT f."personId", f."assetId", s.embedding::text FROM asset_face f
        JOIN face_search s ON s."faceId" = f.id JOIN asset a ON a.id = f."assetId"
        JOIN person p ON p.id = f."personId"
        WHERE f."deletedAt" IS NULL AND f."isVisible" AND a."deletedAt" IS NULL AND NOT p."isHidden\""""

    assets: ClassVar[str] = "asset"
    face_columns: ClassVar[str] = '"deletedAt" timestamptz, "isVisible" boolean NOT NULL DEFAULT true'

    def schema(self) -> Sequence[str]:
        return (
            "CREATE EXTENSION vector",
            f'CREATE TABLE {self.assets} (id uuid PRIMARY KEY, "ownerId" uuid, "deletedAt" timestamptz,'
            " visibility text NOT NULL DEFAULT 'timeline')",
            'CREATE TABLE person (id uuid PRIMARY KEY, "ownerId" uuid, name text, "isHidden" boolean NOT NULL)',
            f'CREATE TABLE {self.faces} (id uuid PRIMARY KEY, "assetId" uuid, "personId" uuid,'
            f' "boundingBoxX1" integer, {self.face_columns})',
            'CREATE TABLE face_search ("faceId" uuid PRIMARY KEY, embedding vector(512) NOT NULL)',
            'CREATE TABLE smart_search ("assetId" uuid PRIMARY KEY, embedding vector(512) NOT NULL)',
        )

    def fill(self, people: People) -> Tables:
        tables = Tables()
        tables[self.assets] = [_asset(number) for number in range(24)]
        tables[self.assets].append(_asset(_TRASHED) | {"deletedAt": _GONE})
        tables["person"] = [self.person(number) for number in range(8)]
        tables["person"].append(self.person(_HIDDEN) | {"isHidden": True})
        spare = people.spares()
        traps = [(next(spare), trap) for trap in self.traps()]
        for face, trap in [(face, Row()) for face in people] + traps:
            values = trap.get("embedding", face.values)
            tables[self.faces].append(_without(self.face(face) | trap, "embedding"))
            if values is not None:
                tables["face_search"].append({"faceId": uuid(_FACE, face.number), "embedding": values})
        return tables

    def traps(self) -> list[Row]:
        """Return how the rows of the traps differ from others."""
        return [
            *[{"deletedAt": _GONE}] * 2,
            *[{"isVisible": False}] * 2,
            *self.common_traps("personId"),
        ]

    def common_traps(self, person: str) -> list[Row]:
        """Return the traps of all generations with a table of vectors."""
        return [
            *[{"assetId": uuid(_ASSET, _TRASHED)}] * 2,
            *[{"embedding": None}] * 2,
            {"embedding": None, person: None},
            *[{person: None}] * 3,
            *[{person: uuid(_PERSON, _HIDDEN)}] * 2,
            {"embedding": [0.0] * 512},
        ]

    def person(self, number: int) -> Row:
        """Return a row of person."""
        name = f"Person {number}" if number % 3 else ""
        return {"id": uuid(_PERSON, number), "ownerId": _OWNERS[0], "name": name, "isHidden": False}

    def face(self, face: Face) -> Row:
        """Return the row of a face as all generations have it."""
        return {
            "id": uuid(_FACE, face.number),
            "assetId": uuid(_ASSET, face.medium),
            "personId": uuid(_PERSON, face.subject),
            "boundingBoxX1": face.number % 7,
            "deletedAt": None,
            "isVisible": True,
        }

    def decode(self, value: Any) -> Sequence[float]:
        numbers: list[float] = json.loads(value)
        return numbers


@dataclass(frozen=True)
class Immich32(Immich2):
    """3.2: a person is what an owner calls a group, and one group may have people of several owners."""

    preset = "immich-3.2"
    query = """
        SELECT f."personGroupId", f."assetId", s.embedding::text FROM asset_face f
        JOIN face_search s ON s."faceId" = f.id JOIN asset a ON a.id = f."assetId"
        WHERE f."deletedAt" IS NULL AND f."isVisible" AND a."deletedAt" IS NULL AND f."personGroupId" IS NOT NULL
          AND (SELECT p."isHidden" FROM person p
               WHERE p."personGroupId" = f."personGroupId" AND p."ownerId" = a."ownerId") IS NOT TRUE"""

    def schema(self) -> Sequence[str]:
        changed = {
            "person": 'CREATE TABLE person ("ownerId" uuid, "personGroupId" uuid, name text,'
            ' "isHidden" boolean NOT NULL, PRIMARY KEY ("ownerId", "personGroupId"))',
            "asset_face": f'CREATE TABLE asset_face (id uuid PRIMARY KEY, "assetId" uuid, "personGroupId" uuid,'
            f' "boundingBoxX1" integer, {self.face_columns})',
        }
        return [changed.get(one.removeprefix("CREATE TABLE ").split()[0], one) for one in super().schema()]

    def fill(self, people: People) -> Tables:
        tables = super().fill(people)
        # The other owner knows everybody too, and hides the first, which is no matter for photos that are not theirs.
        twins = [one | {"ownerId": _OWNERS[1], "isHidden": number == 0} for number, one in enumerate(tables["person"])]
        tables["person"] += twins
        # One person is known to the other owner alone.
        only = (_OWNERS[0], uuid(_PERSON, 5))
        tables["person"] = [one for one in tables["person"] if (one["ownerId"], one["personGroupId"]) != only]
        return tables

    def traps(self) -> list[Row]:
        return [
            *[{"deletedAt": _GONE}] * 2,
            *[{"isVisible": False}] * 2,
            *self.common_traps("personGroupId"),
        ]

    def person(self, number: int) -> Row:
        row = super().person(number)
        return {"personGroupId": row.pop("id"), **row}

    def face(self, face: Face) -> Row:
        row = super().face(face)
        return {"personGroupId": row.pop("personId"), **row}


@dataclass(frozen=True)
class Immich137(Immich2):
    """1.137 to 2.4: nobody can crop a face out of a photo."""

    preset = "immich-1.137"
    excluded: ClassVar = {
        cause: rows for cause, rows in Immich2.excluded.items() if cause != "face outside of the edited photo"
    }
    query = Immich2.query.replace(' AND f."isVisible"', "")
    face_columns: ClassVar[str] = '"deletedAt" timestamptz'

    def traps(self) -> list[Row]:
        return [*[{"deletedAt": _GONE}] * 2, *self.common_traps("personId")]

    def face(self, face: Face) -> Row:
        return _without(super().face(face), "isVisible")


@dataclass(frozen=True)
class Immich127(Immich137):
    """1.127 to 1.136: the tables have their names in the plural."""

    preset = "immich-1.127"
    faces = "asset_faces"
    query = Immich137.query.replace("asset_face f", "asset_faces f").replace("asset a", "assets a")
    assets: ClassVar[str] = "assets"


@dataclass(frozen=True)
class Immich106(Immich127):
    """1.106 to 1.126: a deleted face is gone."""

    preset = "immich-1.106"
    excluded: ClassVar = {cause: rows for cause, rows in Immich127.excluded.items() if cause != "face deleted"}
    query = Immich127.query.replace('f."deletedAt" IS NULL AND ', "")
    face_columns: ClassVar[str] = '"sourceType" text'

    def traps(self) -> list[Row]:
        return self.common_traps("personId")

    def face(self, face: Face) -> Row:
        return _without(super().face(face), "deletedAt")


@dataclass(frozen=True)
class Immich91(Immich106):
    """1.91 to 1.105: the vector is in the row of the face."""

    preset = "immich-1.83"
    excluded: ClassVar = {"asset deleted": 2, "no person assigned": 3, "person hidden": 2}
    query = """
        SELECT f."personId", f."assetId", f.embedding::text FROM asset_faces f JOIN assets a ON a.id = f."assetId"
        JOIN person p ON p.id = f."personId" WHERE a."deletedAt" IS NULL AND NOT p."isHidden\""""
    face_columns: ClassVar[str] = "embedding vector(512)"

    def schema(self) -> Sequence[str]:
        return [one for one in super().schema() if "face_search" not in one]

    def fill(self, people: People) -> Tables:
        tables = super().fill(people)
        vectors = {row["faceId"]: row["embedding"] for row in tables.pop("face_search")}
        for row in tables[self.faces]:
            row["embedding"] = vectors[row["id"]]
        return tables

    def traps(self) -> list[Row]:
        return [one for one in super().traps() if one.get("embedding", ()) is not None]


@dataclass(frozen=True)
class Immich83(Immich91):
    """1.83 to 1.90: the feature is an array, and may be missing."""

    needs_pgvector = False
    rejected: ClassVar = {Reason.ZERO_NORM: 1, Reason.EMPTY: 2}
    face_columns: ClassVar[str] = "embedding real[]"
    query = Immich91.query.replace("f.embedding::text", "f.embedding")

    def schema(self) -> Sequence[str]:
        return [one for one in super().schema() if "smart_search" not in one and "EXTENSION" not in one]

    def fill(self, people: People) -> Tables:
        tables = super().fill(people)
        spare = people.spares()
        nothing: list[Any] = [None, []]
        for number, value in enumerate(nothing, 10_000):
            tables[self.faces].append(self.face(next(spare)) | {"id": uuid(_FACE, number), "embedding": value})
        return tables

    def decode(self, value: Any) -> Sequence[float]:
        return value or []


def _asset(number: int) -> Row:
    visibility = "locked" if number % 5 == 0 else "timeline"
    return {"id": uuid(_ASSET, number), "ownerId": _OWNERS[0], "deletedAt": None, "visibility": visibility}


def _without(row: Row, key: str) -> Row:
    return {name: value for name, value in row.items() if name != key}
