"""Made-up legacy schemas with names that tell nothing, and what an inspection should find out about each."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import ARRAY

from pfstore.features import Floats
from pfstore.synthetic import Population
from tests.conftest import REALDATA
from tests.sources.inspection import things
from tests.sources.inspection.features import varint

Numbers: TypeAlias = NDArray[np.int64]
Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class People:
    """Features [N, D] float32 of people, in no order; of each its subject, and its medium, numbered from 0."""

    features: Floats
    subject: Numbers
    medium: Numbers

    def __len__(self) -> int:
        return len(self.features)


def people(dimension: int = 512, subjects: int = 40, seed: int = 0) -> People:
    """Return about ten features of each of so many people, two of a medium.

    They are the first values of real features where those are beside the project and have enough, else made up.
    """
    random = np.random.default_rng(seed)
    features, subject = _real(subjects, random) if dimension <= 512 else (None, None)
    if features is None or subject is None:
        features, subject = _synthetic(dimension, subjects, seed)
    order = np.argsort(subject, kind="stable")
    features, subject = features[order, :dimension], subject[order]
    rank = np.arange(len(subject)) - np.searchsorted(subject, subject)
    _, medium = np.unique(subject * 1000 + rank // 2, return_inverse=True)
    shuffled = random.permutation(len(subject))
    return People(np.ascontiguousarray(features[shuffled]), subject[shuffled], medium[shuffled])


def _real(subjects: int, random: np.random.Generator) -> tuple[Floats, Numbers] | tuple[None, None]:
    path = REALDATA / "lfw_arcface.npz"
    if not path.exists():
        return None, None
    with np.load(path) as data:
        features, known = data["features"].astype(np.float32), data["subject"]
    names = np.unique(known)
    if subjects > len(names):
        return None, None
    chosen = random.choice(names, subjects, replace=False)
    rows = np.isin(known, chosen)
    return features[rows], np.unique(known[rows], return_inverse=True)[1].astype(np.int64)


def _synthetic(dimension: int, subjects: int, seed: int) -> tuple[Floats, Numbers]:
    population = Population(subjects=subjects, dimension=dimension, seed=seed, features_per_subject=10)
    faces = list(population.faces())
    features = np.concatenate([one.features for one in faces]).astype(np.float32)
    return features, np.concatenate([one.subjects for one in faces])


@dataclass(frozen=True)
class Truth:
    """What there is to find out. subject: its table and columns; also: others that tell the same people apart.

    medium, quality, changed, deleted, model: columns of the features' table, or "table.column" of one that leads to
    the subject; None where there is none.
    """

    table: str
    column: str
    encoding: str
    dimension: int
    subject: tuple[str, tuple[str, ...]]
    also: tuple[tuple[str, tuple[str, ...]], ...] = ()
    medium: str | None = None
    quality: str | None = None
    changed: str | None = None
    deleted: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Schema:
    """A made-up database. create makes it of people whose features have at least 512 values.

    dialects: the names of those that have its types.
    """

    create: Callable[[sa.Engine, People], Truth]
    dialects: tuple[str, ...] = ("sqlite", "mysql", "mariadb", "postgresql")


_INT, _TIME = sa.Integer(), sa.DateTime()
_FLOAT: sa.Double[float] = sa.Double()
_BLOB = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_BYTES = sa.LargeBinary(16).with_variant(mysql.VARBINARY(16), "mysql", "mariadb")
_NAME = sa.String(80)
_START = datetime(2019, 3, 1, 8, 0, 0)
_Column: TypeAlias = sa.types.TypeEngine[Any] | sa.ForeignKey


def _write(engine: sa.Engine, tables: Mapping[str, tuple[Sequence[_Column], Iterable[Row]]]) -> None:
    """Write tables in this order, with the columns c1, c2 …, of which the first is the primary key."""
    metadata = sa.MetaData()
    with engine.begin() as connection:
        for name, (types, rows) in tables.items():
            columns = [
                sa.Column(f"c{number}", *((_INT, kind) if isinstance(kind, sa.ForeignKey) else (kind,)))
                for number, kind in enumerate(types, 1)
            ]
            columns[0].primary_key, columns[0].autoincrement = True, False
            table = sa.Table(name, metadata, *columns)
            table.create(connection)
            connection.execute(sa.insert(table), [dict(zip(table.c.keys(), row, strict=True)) for row in rows])


def _random(people: People) -> np.random.Generator:
    return np.random.default_rng(len(people))


def _time(row: int) -> datetime:
    return _START + timedelta(minutes=7 * row)


def _rows(people: People, dimension: int) -> list[tuple[int, int, int, Floats]]:
    """Return number, subject, medium and the first values of each feature."""
    features = people.features[:, :dimension]
    return list(zip(range(len(people)), people.subject.tolist(), people.medium.tolist(), features, strict=True))


def _plain(engine: sa.Engine, people: People) -> Truth:
    """Whole numbers as keys, a score, soft deletes, and a camera."""
    random = _random(people)
    rows = [
        (
            row + 1,
            1001 + 7 * subject,
            50_000 + medium,
            feature.astype("<f4").tobytes(),
            float(np.linalg.norm(feature) / 40 + random.normal(0, 0.02)),
            _time(row),
            int(random.integers(1, 5)),
            _time(row) + timedelta(days=300) if row % 20 == 3 else None,
        )
        for row, subject, medium, feature in _rows(people, 512)
    ]
    _write(engine, {"t1": ((_INT, _INT, _INT, _BLOB, _FLOAT, _TIME, _INT, _TIME), rows)})
    return Truth(
        "t1",
        "c4",
        "float32-le",
        512,
        ("t1", ("c2",)),
        medium="c3",
        quality="c5",
        changed="c6",
        deleted="c8",
    )


def _hex_text(engine: sa.Engine, people: People) -> Truth:
    """Names as keys, of which a tenth are NULL, beside pictures and what is the same for half of the people."""
    random = _random(people)
    rows = [
        (
            row + 1,
            feature.astype("<f8").tobytes().hex(),
            None if row % 10 == 4 else f"p-{subject:05d}",
            "fm"[subject % 2],
            things.jpeg(random, int(random.integers(300, 900))),
            f"{medium:08x}.jpg",
        )
        for row, subject, medium, feature in _rows(people, 128)
    ]
    _write(engine, {"t1": ((_INT, _TEXT, _NAME, _NAME, _BLOB, _NAME), rows)})
    return Truth("t1", "c2", "hex+float64-le", 128, ("t1", ("c3",)), medium="c6")


def _json_one_join(engine: sa.Engine, people: People) -> Truth:
    """People in a table of their own, which a foreign key names; a flag for those who left."""
    subjects = sorted(set(people.subject.tolist()))
    rows = [
        (row + 1, json.dumps(feature.tolist()), subject + 1, f"img/{medium}", row % 3)
        for row, subject, medium, feature in _rows(people, 256)
    ]
    persons = [(one + 1, f"Person {one}", one % 12 == 5, _time(one)) for one in subjects]
    _write(
        engine,
        {
            "t2": ((_INT, _NAME, sa.Boolean(), _TIME), persons),
            "t1": ((_INT, _TEXT, sa.ForeignKey("t2.c1"), _NAME, _INT), rows),
        },
    )
    also = (("t2", ("c1",)), ("t2", ("c2",)))
    return Truth("t1", "c2", "json", 256, ("t1", ("c3",)), also, medium="c4", deleted="t2.c3")


def _base64_two_joins(engine: sa.Engine, people: People) -> Truth:
    """Two clusters for each person, and the person behind them; no foreign key says so."""
    random = _random(people)
    subjects = sorted(set(people.subject.tolist()))
    rows = [
        (
            row + 1,
            base64.b64encode(feature.astype(">f4").tobytes()).decode(),
            None if row % 15 == 7 else 900 + 2 * subject + medium % 2,
            medium + 1,
            float(random.random()),
        )
        for row, subject, medium, feature in _rows(people, 256)
    ]
    clusters = [(900 + 2 * one + half, one + 1, half == 0) for one in subjects for half in (0, 1)]
    persons = [(one + 1, f"{one:04d}", ("north", "south", "east")[one % 3]) for one in subjects]
    _write(
        engine,
        {
            "t3": ((_INT, _TEXT, _INT, _INT, _FLOAT), rows),
            "t2": ((_INT, _INT, sa.Boolean()), clusters),
            "t1": ((_INT, _NAME, _NAME), persons),
        },
    )
    also = (("t1", ("c1",)), ("t1", ("c2",)))
    return Truth("t3", "c2", "base64+float32-be", 256, ("t2", ("c2",)), also, medium="c4")


def _header_and_two_keys(engine: sa.Engine, people: People) -> Truth:
    """A name belongs to one person in each of four houses, so that only both together are a person."""
    rows = []
    for row, subject, medium, feature in _rows(people, 320):
        data = feature.astype("<f4").tobytes()
        header = struct.pack("<4sIII", b"FVEC", 2, len(feature), zlib.crc32(data))
        rows.append((row + 1, subject % 4 + 1, f"user{subject // 4}", medium, header + data, _time(row)))
    _write(engine, {"t1": ((_INT, _INT, _NAME, _INT, _BLOB, _TIME), rows)})
    return Truth("t1", "c5", "float32-le@16", 320, ("t1", ("c2", "c3")), medium="c4", changed="c6")


def _zlib_and_bytes(engine: sa.Engine, people: People) -> Truth:
    """Bytes as keys, a flag of deleted rows, and features that are missing."""
    keys = _random(people)
    persons = {one: keys.bytes(16) for one in sorted(set(people.subject.tolist()))}
    rows = []
    for row, subject, medium, feature in _rows(people, 256):
        value = zlib.compress(feature.astype("<f4").tobytes()) if row % 25 else None
        person = persons[subject] if row % 9 else None
        rows.append((row + 1, value, person, medium * 3 + 11, int(row % 16 == 5), 1 + row % 7))
    _write(engine, {"t1": ((_INT, _BLOB, _BYTES, _INT, _INT, _INT), rows)})
    return Truth("t1", "c2", "zlib+float32-le", 256, ("t1", ("c3",)), medium="c4", deleted="c5")


def _halves_and_paths(engine: sa.Engine, people: People) -> Truth:
    """Big-endian halves of unit length, the places of pictures, and four sites."""
    rows = []
    for row, subject, medium, feature in _rows(people, 192):
        unit = feature / np.linalg.norm(feature)
        path = f"/srv/{2015 + medium % 6}/{medium % 12 + 1:02d}/{medium:06d}.jpg"
        rows.append((row + 1, row % 4, unit.astype(">f2").tobytes(), subject + 1, path, _time(row)))
    _write(engine, {"t1": ((_INT, _INT, _BLOB, _INT, sa.String(200), _TIME), rows)})
    return Truth("t1", "c3", "float16-be", 192, ("t1", ("c4",)), medium="c5", changed="c6")


def _json_path(engine: sa.Engine, people: People) -> Truth:
    """Numbers as text, deep in a document, and placeholders."""
    rows = []
    for row, subject, medium, feature in _rows(people, 128):
        numbers = [f"{number:.7f}" for number in feature.tolist()] if row % 12 else []
        document = json.dumps({"box": [row % 90, 3, 64, 64], "data": {"v": 2, "vec": numbers}})
        rows.append((f"{row:09d}", document, f"m{medium}", f"{subject:08x}", float(np.linalg.norm(feature)), "de"))
    _write(engine, {"t1": ((_NAME, _TEXT, _NAME, _NAME, _FLOAT, _NAME), rows)})
    return Truth("t1", "c2", "json:data.vec", 128, ("t1", ("c4",)), medium="c3", quality="c5")


def _arrays(engine: sa.Engine, people: People) -> Truth:
    """Arrays of PostgreSQL, and people who are named in the table of pictures."""
    media = dict(zip(people.medium.tolist(), people.subject.tolist(), strict=True))
    rows = [(row + 1, medium + 1, feature.tolist(), row % 2) for row, _, medium, feature in _rows(people, 128)]
    pictures = [(medium + 1, f"name {subject}", _time(medium)) for medium, subject in sorted(media.items())]
    array = ARRAY(_FLOAT)
    _write(engine, {"t2": ((_INT, _NAME, _TIME), pictures), "t1": ((_INT, sa.ForeignKey("t2.c1"), array, _INT), rows)})
    return Truth("t1", "c3", "array", 128, ("t2", ("c2",)), medium="c2")


def _two_extractors(engine: sa.Engine, people: People) -> Truth:
    """Each face twice, by two extractors of one dimension whose features have nothing in common."""
    random = _random(people)
    other = np.linalg.qr(random.normal(0, 1, (256, 256)))[0].astype(np.float32)
    rows: list[Row] = []
    for row, subject, medium, feature in _rows(people, 256):
        for name, vector in (("m1", feature), ("m2", feature @ other)):
            rows.append((len(rows) + 1, name, vector.astype("<f4").tobytes(), medium, 31 * subject + 5, row % 5))
    _write(engine, {"t1": ((_INT, _NAME, _BLOB, _INT, _INT, _INT), rows)})
    return Truth("t1", "c3", "float32-le", 256, ("t1", ("c5",)), medium="c4", model="c2")


def _protobuf_and_pictures(engine: sa.Engine, people: People) -> Truth:
    """Messages in one table, who is in them in a second, and in a third more vectors, of pictures without anybody."""
    random = _random(people)
    messages, persons = [], []
    for row, subject, medium, feature in _rows(people, 192):
        data = feature.astype("<f8").tobytes() if row % 30 else b""
        message = b"\x0a" + varint(len(data)) + data + b"\x12\x04abcd" + b"\x18" + varint(row)
        messages.append((f"f{row}", message, medium + 1, float(np.linalg.norm(feature) / 30), _time(row)))
        persons.append((f"f{row}", f"s{subject}", row % 6))
    # Pictures of products have much in common, as those of CLIP do.
    common = random.normal(0, 1, 512)
    pictures = [
        (row + 1, (vector / np.linalg.norm(vector)).astype("<f4").tobytes(), row % 40, row % 10)
        for row, vector in enumerate(random.normal(0, 1, (2 * len(people), 512)) + common)
    ]
    _write(
        engine,
        {
            "t1": ((_INT, _BLOB, _INT, _INT), pictures),
            "t2": ((_NAME, _BLOB, _INT, _FLOAT, _TIME), messages),
            "t3": ((_NAME, _NAME, _INT), persons),
        },
    )
    return Truth("t2", "c2", "protobuf:1:double", 192, ("t3", ("c2",)), medium="c3", quality="c4", changed="c5")


SCHEMAS: Mapping[str, Schema] = {
    "plain": Schema(_plain),
    "hex text": Schema(_hex_text),
    "json, one join": Schema(_json_one_join),
    "base64, two joins": Schema(_base64_two_joins),
    "a header and two keys": Schema(_header_and_two_keys),
    "zlib and bytes": Schema(_zlib_and_bytes),
    "halves and paths": Schema(_halves_and_paths),
    "json path": Schema(_json_path),
    "arrays": Schema(_arrays, ("postgresql",)),
    "two extractors": Schema(_two_extractors),
    "protobuf and pictures": Schema(_protobuf_and_pictures),
}


def shop(engine: sa.Engine, rows: int = 200) -> None:
    """Write a shop's database: pictures, hashes, documents, lists of numbers and places, and not one feature."""
    random = np.random.default_rng(rows)
    numbers = range(1, rows + 1)
    stock = [(one, one, json.dumps(random.integers(0, 50, 365).tolist())) for one in numbers]
    _write(
        engine,
        {
            "customers": (
                (_INT, _NAME, _NAME, _BYTES, _TIME),
                [
                    (one, f"{one}@example.org", random.bytes(64).hex()[:80], random.bytes(16), _time(one))
                    for one in numbers
                ],
            ),
            "products": (
                (_INT, _NAME, sa.Numeric(9, 2), _BLOB),
                [(one, f"thing {one}", one % 90 + 0.99, things.jpeg(random, 2034)) for one in numbers],
            ),
            "orders": (
                (_INT, sa.ForeignKey("customers.c1"), _TEXT, _FLOAT),
                [
                    (one, int(random.integers(1, rows + 1)), json.dumps(things.basket(random)), float(random.random()))
                    for one in numbers
                ],
            ),
            "sessions": ((_NAME, _BLOB, _INT), [(random.bytes(32).hex(), random.bytes(64), one) for one in numbers]),
            "stock": ((_INT, sa.ForeignKey("products.c1"), _TEXT), stock),
            "places": (
                (_INT, _FLOAT, _FLOAT, _BLOB),
                [(one, *random.uniform(-90, 90, 2).tolist(), things.wkb(random, 24)) for one in numbers],
            ),
        },
    )
