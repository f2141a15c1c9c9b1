"""The same real features in four legacy stores give the same gallery, and SQL finds what numpy finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import sqlalchemy as sa

from pfstore.config import FeatureColumn, SourceConfig
from pfstore.features import Floats, offsets_of
from pfstore.fusion import Fuser, random_model
from pfstore.gallery import galleries, models, searching
from pfstore.gallery.database import Connection
from pfstore.jobs.backfill import backfill
from pfstore.sources import open_source
from tests.conftest import REALDATA

EXTRACTOR = "insightface/arcface"
PER_SUBJECT = 7
"""Of each subject's ten photos so many are enrolled; the others are probes."""


@dataclass(frozen=True)
class Photos:
    """Real features: [N, 512] float32, and the subject and medium of each."""

    features: Floats
    subject: list[int]
    medium: list[int]

    def rows(self) -> Iterator[tuple[int, int, Floats]]:
        """Yield subject, medium and feature."""
        return zip(self.subject, self.medium, self.features, strict=True)


@pytest.fixture(scope="module")
def photos() -> tuple[Photos, Photos]:
    """The enrolled photos and the probes."""
    path = REALDATA / "lfw_arcface.npz"
    if not path.exists():
        pytest.skip("the real face features (lfw_arcface.npz) are not beside the project")
    data = np.load(path)
    order = np.argsort(data["subject"], kind="stable")
    features, subject = data["features"][order].astype(np.float32), data["subject"][order]
    medium = data["medium"][order]
    enrolled = np.arange(len(subject)) % 10 < PER_SUBJECT
    assert (np.diff(subject[::10]) > 0).all()
    return tuple(
        Photos(features[part], subject[part].tolist(), medium[part].tolist()) for part in (enrolled, ~enrolled)
    )  # type: ignore[return-value]


def _sql_source(url: str, encoding: str) -> SourceConfig:
    return SourceConfig(
        url=url,
        table="faces",
        subject="person",
        medium="photo",
        feature=FeatureColumn(column="vec", encoding=encoding),
        extractor=EXTRACTOR,
    )


def _store(url: str, column: str, values: list[object], photos: Photos) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            sa.text(f"CREATE TABLE faces (id INTEGER PRIMARY KEY, person INTEGER, photo INTEGER, vec {column})")
        )
        rows = [
            {"id": i, "person": person, "photo": photo, "vec": value}
            for i, (person, photo, value) in enumerate(zip(photos.subject, photos.medium, values, strict=True))
        ]
        connection.execute(sa.text("INSERT INTO faces VALUES (:id, :person, :photo, :vec)"), rows)
    engine.dispose()


def _write_hdf5(folder: Path, photos: Photos) -> None:
    for person, photo, feature in photos.rows():
        with h5py.File(folder / f"features_{person}.hdf5", "a") as file:
            file[f"{person}/gallery/images/{photo}"] = feature[None]


@pytest.fixture
def stores(
    tmp_path: Path, photos: tuple[Photos, Photos], mariadb_url: str, postgres15_url: str
) -> dict[str, SourceConfig]:
    """Four legacy stores of the enrolled photos."""
    enrolled = photos[0]
    sqlite = f"sqlite:///{tmp_path / 'legacy.db'}"
    hdf5 = tmp_path / "data" / "train" / "insightface" / "arcface"
    hdf5.mkdir(parents=True)
    _store(mariadb_url, "MEDIUMTEXT", [json.dumps(one.tolist()) for one in enrolled.features], enrolled)
    _store(postgres15_url, "float8[]", [one.tolist() for one in enrolled.features], enrolled)
    _store(sqlite, "BLOB", [one.tobytes() for one in enrolled.features], enrolled)
    _write_hdf5(hdf5, enrolled)
    return {
        "mariadb": _sql_source(mariadb_url, "json"),
        "postgresql": _sql_source(postgres15_url, "array"),
        "sqlite": _sql_source(sqlite, "float32-le"),
        "hdf5": SourceConfig(path=tmp_path / "data"),
    }


@pytest.mark.mariadb
@pytest.mark.postgres15
@pytest.mark.parametrize("kind", ["average", "random ProxyFusion"])
def test_four_stores_one_gallery(
    connection: Connection, stores: dict[str, SourceConfig], photos: tuple[Photos, Photos], kind: str
) -> None:
    fuser: Fuser = random_model(512, experts=3, selected=2, seed=0)
    if kind == "average":
        fuser = models.load(connection, models.resolve(connection, kind).digest)
    else:
        models.register(connection, fuser, "random")
    enrolled, probes = photos
    expected = fuser.templates_media(
        enrolled.features,
        np.arange(len(enrolled.features) + 1),
        offsets_of([PER_SUBJECT] * (len(enrolled.features) // PER_SUBJECT)),
        role="gallery",
    )
    names = [str(subject) for subject in enrolled.subject[::PER_SUBJECT]]
    probe_offsets = offsets_of([10 - PER_SUBJECT] * len(names))
    for store, config in stores.items():
        with open_source(config, store, Path()) as source:
            assert source.extractor == EXTRACTOR
            done = backfill(connection, source, fuser, gallery=store, source_name=store)
        assert done.counts.read == done.counts.fused == len(enrolled.features)
        version = galleries.version(connection, store)
        stored = _templates(connection, version.version_id)
        np.testing.assert_allclose([stored[name] for name in names], expected, atol=2**-11 * np.abs(expected).max())

        templates = searching.probe_templates(fuser, version, probes.features, probe_offsets, EXTRACTOR)
        scores = templates @ expected.T
        for row, found in zip(scores, searching.search(connection, version, templates, top=10), strict=True):
            assert found[0].subject == names[int(row.argmax())]
            np.testing.assert_allclose([one.score for one in found], np.sort(row)[::-1][:10], atol=1e-3)


def _templates(connection: Connection, version_id: int) -> dict[str, Floats]:
    rows = connection.execute(
        "SELECT subject_id, template FROM pfstore.templates WHERE version_id = %s", (version_id,)
    ).fetchall()
    return {name: template.to_numpy().astype(np.float32) for name, template in rows}


@pytest.mark.mariadb
@pytest.mark.postgres15
def test_fusing_identifies_real_people(
    connection: Connection, stores: dict[str, SourceConfig], photos: tuple[Photos, Photos]
) -> None:
    average = models.load(connection, models.resolve(connection, "average").digest)
    with open_source(stores["sqlite"], "sqlite", Path()) as source:
        backfill(connection, source, average, gallery="people", source_name="sqlite")
    version = galleries.version(connection, "people")
    probes = photos[1]
    sets = len(probes.subject) // (10 - PER_SUBJECT)
    templates = searching.probe_templates(average, version, probes.features, offsets_of([3] * sets))
    found = list(searching.search(connection, version, templates, top=1))
    hits = [one[0].subject == str(subject) for one, subject in zip(found, probes.subject[::3], strict=True)]
    assert np.mean(hits) > 0.98
