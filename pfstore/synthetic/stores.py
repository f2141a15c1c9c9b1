"""Made-up people as the stores that legacy systems leave behind: a table, or HDF5 feature files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.mysql import MEDIUMBLOB, MEDIUMTEXT
from sqlalchemy.dialects.postgresql import ARRAY

from pfstore.errors import InputError
from pfstore.synthetic.damage import Damage, Encoding, bad_features, bad_values, encoded
from pfstore.synthetic.population import Faces, Population

TABLE = "face_features"

_EPOCH = datetime(2019, 3, 1, 8, 0, 0)  # legacy systems keep local time without a zone
_COLUMN_TYPES: Mapping[Encoding, sa.types.TypeEngine[Any]] = {
    "float32-le": sa.LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb"),
    "json": sa.Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb"),
    "array": ARRAY(sa.Double()),
}


@dataclass(frozen=True)
class Written:
    """What a store holds: good features of so many subjects, and the bad rows planted beside them, by kind."""

    subjects: int
    features: int
    damage: Mapping[Damage, int]


def write_sqlite(path: Path, population: Population, *, encoding: Encoding = "float32-le", damage: int = 0) -> Written:
    """Write a new SQLite file; see write_sql."""
    return write_sql(f"sqlite:///{path}", population, encoding=encoding, damage=damage)


def write_sql(url: str, population: Population, *, encoding: Encoding = "float32-le", damage: int = 0) -> Written:
    """Write a table as an old attendance system might have it into any database that SQLAlchemy reaches.

    Columns: id, person_id, image_id, score (the quality), vec (the feature), model (the extractor), updated_at,
    deleted_at (NULL). damage: so many bad rows of each kind are added; the good ones stay as they would be
    without. All rows are committed at once.

    Raises InputError where the table exists, or the encoding is "array" and the database not PostgreSQL.
    """
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    if encoding == "array" and engine.dialect.name != "postgresql":
        raise InputError(f"arrays are PostgreSQL's; choose another encoding for {engine.dialect.name}")
    table = _table(encoding)
    with engine.begin() as connection:
        if sa.inspect(connection).has_table(TABLE):
            raise InputError(f"{engine.url!r}: the table {TABLE} is there already; choose an empty database")
        table.create(connection)
        features = 0
        for faces in population.faces():
            connection.execute(sa.insert(table), list(_rows(population, faces, encoding, features)))
            features += len(faces.features)
        planted = list(_bad_rows(population, encoding, damage, features))
        if planted:
            connection.execute(sa.insert(table), [row for _, row in planted])
    return Written(population.subjects, features, Counter(kind for kind, _ in planted))


def write_hdf5(folder: Path, population: Population, *, probes: int = 2, damage: int = 0, split: str = "train") -> Path:
    """Write feature files, one for each subject, below folder/split; return the folder that they are in.

    probes: probe sets for each subject. damage: so many subjects, the first ones, get a medium for each kind of
    damage that such a file can hold (SHORT, NAN, INFINITE, ZERO, EMPTY), of one row.

    Raises FileExistsError where a file is there already.
    """
    target = folder / split / population.extractor
    target.mkdir(parents=True, exist_ok=True)
    for faces in population.faces():
        subjects = np.unique(faces.subjects)
        bounds = np.searchsorted(faces.subjects, [*subjects, subjects[-1] + 1])
        shown = [population.mated(subjects, number=number) for number in range(probes)]
        for index, subject in enumerate(subjects.tolist()):
            with h5py.File(target / f"features_{population.name(subject)}.hdf5", "x") as file:
                group = file.create_group(population.name(subject))
                _write_gallery(group.create_group("gallery"), faces, slice(bounds[index], bounds[index + 1]))
                for number, probe in enumerate(shown):
                    offsets = probe.medium_offsets
                    group[f"probe_{number}"] = probe.features[offsets[index] : offsets[index + 1]]
                if subject < damage:
                    _damage_gallery(group["gallery"], faces.features[bounds[index]])
    return target


def _write_gallery(gallery: h5py.Group, faces: Faces, rows: slice) -> None:
    media, first = np.unique(faces.media[rows], return_index=True)
    ends = [*first[1:], rows.stop - rows.start]
    for medium, start, end in zip(media.tolist(), first, ends, strict=True):
        kind = "video" if faces.videos[rows][start] else "images"
        gallery[f"{kind}/{medium}"] = faces.features[rows][start:end]


def _damage_gallery(gallery: h5py.Group, feature: Any) -> None:
    for damage, spoilt in bad_features(feature):
        gallery[f"images/{damage.name.lower()}"] = spoilt[None]
    gallery["images/empty"] = feature[None][:0]


def _table(encoding: Encoding) -> sa.Table:
    return sa.Table(
        TABLE,
        sa.MetaData(),
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("person_id", sa.String(64), index=True),
        sa.Column("image_id", sa.String(64)),
        sa.Column("score", sa.Float()),
        sa.Column("vec", _COLUMN_TYPES[encoding]),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("deleted_at", sa.DateTime()),
    )


def _rows(population: Population, faces: Faces, encoding: Encoding, start: int) -> Iterator[dict[str, Any]]:
    features = faces.features.astype(np.float32, copy=False)
    known = zip(
        faces.subjects.tolist(), faces.media.tolist(), faces.videos.tolist(), faces.qualities.tolist(), strict=True
    )
    for number, (subject, medium, video, quality) in enumerate(known):
        image = f"{'vid' if video else 'img'}-{subject:06d}-{medium:04d}"
        feature = encoded(features[number], encoding)
        yield _row(population, start + number, population.name(subject), image, quality, feature)


def _row(
    population: Population, number: int, person: str | None, image: str, score: float, feature: Any
) -> dict[str, Any]:
    return {
        "id": number + 1,
        "person_id": person,
        "image_id": image,
        "score": score,
        "vec": feature,
        "model": population.extractor,
        "updated_at": _EPOCH + timedelta(minutes=number),
        "deleted_at": None,
    }


def _bad_rows(
    population: Population, encoding: Encoding, each: int, start: int
) -> Iterator[tuple[Damage, dict[str, Any]]]:
    """Yield bad rows: of one kind after the other, spread over the subjects."""
    good = population.identities([0])[0] * np.float32(20)
    number = start
    for copy in range(each):
        victim = population.name(copy * 31 % population.subjects)
        kinds: list[tuple[Damage, str | None, Any]] = [
            *((kind, victim, value) for kind, value in bad_values(good, encoding)),
            (Damage.NO_SUBJECT, None, encoded(good, encoding)),
            (Damage.LOST_SUBJECT, f"lost-{copy:06d}", encoded(np.zeros_like(good), encoding)),
        ]
        for kind, person, value in kinds:
            yield kind, _row(population, number, person, f"bad-{number:08d}", 0.1, value)
            number += 1
