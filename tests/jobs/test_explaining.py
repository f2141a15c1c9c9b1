"""An explained template is the stored one, read again and fused again; what has changed since is said."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.config import FeatureColumn, SourceConfig
from pfstore.errors import ContractError, NotFoundError
from pfstore.features import Floats
from pfstore.fusion import BASELINES, Fuser, load_model, random_model
from pfstore.gallery import galleries, models
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Strategy
from pfstore.jobs import explaining
from pfstore.jobs.backfill import backfill
from pfstore.jobs.explain_plotting import plot
from pfstore.jobs.explaining import ExplainedTemplate
from pfstore.sources import open_source
from pfstore.sources.hdf5 import Hdf5Source
from pfstore.synthetic import TABLE, Population, write_hdf5, write_sqlite
from tests.memory import MemorySource, batch_of, people

POPULATION = Population(subjects=25, dimension=16, seed=2, features_per_subject=12, wrong_person_share=0)


def fill(connection: Connection, source: Any, fuser: Fuser, strategy: Strategy | None = None) -> galleries.Version:
    name = "m" if fuser.kind != "baseline" else fuser.name
    models.register(connection, fuser, name)
    backfill(connection, source, fuser, gallery="staff", source_name="hr", strategy=strategy)
    return galleries.version(connection, "staff")


def told(connection: Connection, source: Any, version: galleries.Version, subject: str) -> ExplainedTemplate:
    return explaining.explain(connection, source, version, subject, source_name="hr")


@pytest.fixture
def legacy(tmp_path: Path) -> SourceConfig:
    """A made-up SQLite store with two bad rows of each kind."""
    write_sqlite(tmp_path / "legacy.db", POPULATION, damage=2)
    return SourceConfig(
        url=f"sqlite:///{tmp_path / 'legacy.db'}",
        table=TABLE,
        subject="person_id",
        medium="image_id",
        feature=FeatureColumn(column="vec", encoding="float32-le"),
        extractor=POPULATION.extractor,
    )


def change(config: SourceConfig, *statements: str) -> None:
    connection = sqlite3.connect(str(config.url).removeprefix("sqlite:///"))
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("strategy", ["media", "set"])
@pytest.mark.parametrize("name", ["random", *BASELINES])
def test_every_template_is_as_it_was_stored(
    connection: Connection, legacy: SourceConfig, name: str, strategy: Strategy
) -> None:
    fuser: Fuser = random_model(16, experts=5, selected=3) if name == "random" else load_model(name)
    with open_source(legacy, "hr", Path()) as source:
        version = fill(connection, source, fuser, strategy)
        for number in range(6):
            found = told(connection, source, version, POPULATION.name(number))
            assert found.same
            assert not found.changed
            assert found.cosine == pytest.approx(1, abs=1e-5)
            assert found.explanation.strategy == strategy
            assert len(found.rows) == found.stored.features == POPULATION.counts[number]
            assert len(found.media) == found.stored.media


def test_rows_rejects_and_media_are_named(connection: Connection, legacy: SourceConfig) -> None:
    fuser = random_model(16, experts=5, selected=3)
    with open_source(legacy, "hr", Path()) as source:
        version = fill(connection, source, fuser)
        document = told(connection, source, version, POPULATION.name(0)).as_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    count = int(POPULATION.counts[0])
    assert document["features"] == {"read": count + 7, "fused": count, "rejected": 7}
    assert [frame["row"] for frame in document["frames"]] == [str(row + 1) for row in range(count)]
    assert document["frames"][0]["medium"] == "img-000000-0000"
    assert sum(medium["frames"] for medium in document["media"]) == count
    assert sum(frame["share"] for frame in document["frames"]) == pytest.approx(1)
    assert sum(medium["share"] for medium in document["media"]) == pytest.approx(1)
    assert document["rejects"] == {
        "non-finite": 2, "empty": 2, "zero norm": 1, "wrong dimension": 1, "undecodable": 1,
    }  # fmt: skip
    assert {one["medium"][:4] for one in document["rejected"]} == {"bad-"}
    assert [one["rank"] for one in document["experts"]["gallery"]] == [1, 2, 3]
    scores = [one["score"] for one in document["experts"]["probe"]]
    assert scores == sorted(scores, reverse=True)


def test_weights_in_the_document_make_the_template(connection: Connection) -> None:
    subjects = people(8)
    fuser = random_model(8, experts=5, selected=2)
    source = MemorySource(subjects)
    version = fill(connection, source, fuser)
    for name in ("s0000", "s0005"):
        document = told(connection, source, version, name).as_dict()
        weights = np.array([frame["weights"] for frame in document["frames"]]).T
        features = np.concatenate(list(subjects[name].values())).astype(np.float64)
        batch = batch_of({name: subjects[name]})
        expected = fuser.fuse_media(batch.features, batch.media_offsets, batch.subject_offsets)[0]
        units = features / np.linalg.norm(features, axis=1, keepdims=True)
        np.testing.assert_allclose(weights @ units, expected, atol=1e-6)
        assert document["frames"][0]["row"] is None


def test_a_changed_source_is_said(connection: Connection, legacy: SourceConfig) -> None:
    with open_source(legacy, "hr", Path()) as source:
        version = fill(connection, source, load_model("average"))
    victim = POPULATION.name(int(np.argmax(POPULATION.counts)))
    change(legacy, f"DELETE FROM {TABLE} WHERE id = (SELECT min(id) FROM {TABLE} WHERE person_id = '{victim}')")
    with open_source(legacy, "hr", Path()) as source:
        found = told(connection, source, version, victim)
        assert found.changed
        assert 0.8 < found.cosine < 0.99999
        assert not told(connection, source, version, POPULATION.name(3)).changed
    template = found.as_dict()["template"]
    assert (template["same"], template["source_changed"]) == (False, True)
    assert template["features"] == len(found.rows) + 1


def test_duplicates_and_a_stranger_are_flagged(connection: Connection) -> None:
    random = np.random.default_rng(0)
    person, stranger = random.normal(size=(2, 32))
    shots = (person + 0.3 * random.normal(size=(9, 32))).astype(np.float32)
    shots[4] = stranger
    shots[7] = shots[6]
    subjects: Mapping[str, Mapping[str, Floats]] = {
        "a": {"p": shots[:1], "q": shots[1:2], "v": shots[2:]},
        "b": {"p": shots[:1]},
    }
    source = MemorySource(subjects)
    version = fill(connection, source, load_model("average"))
    found = told(connection, source, version, "a")
    flags = [found.flags(number) for number in range(9)]
    assert flags == [[], [], [], [], ["outlier"], [], [], ["duplicate"], []]
    assert [found.medium(number)["outliers"] for number in range(3)] == [0, 0, 1]
    assert found.frame(4) | {"weights": 0, "shares": 0, "template_cosines": 0, "cosine": 0} == {
        "medium": "v", "frame": 2, "row": None, "share": pytest.approx(1 / 21), "shares": 0, "weights": 0, "cosine": 0,
        "template_cosines": 0, "flags": ["outlier"],
    }  # fmt: skip
    alone = told(connection, source, version, "b").as_dict()
    assert alone["frames"][0]["cosine"] is None
    assert alone["outlier_limit"] is None


def test_hdf5(connection: Connection, tmp_path: Path) -> None:
    folder = write_hdf5(tmp_path, POPULATION)
    with Hdf5Source(folder, extractor=None, name="hr") as source:
        version = fill(connection, source, random_model(16, experts=4, selected=2))
        found = told(connection, source, version, POPULATION.name(1))
    assert found.same
    assert found.rows[0] == "gallery/images/0[0]"


def test_what_cannot_be_explained(connection: Connection, legacy: SourceConfig) -> None:
    with open_source(legacy, "hr", Path()) as source:
        version = fill(connection, source, load_model("average"))
    change(
        legacy,
        f"UPDATE {TABLE} SET person_id = 'newcomer' WHERE person_id = '{POPULATION.name(1)}'",
        f"UPDATE {TABLE} SET vec = zeroblob(64) WHERE person_id = '{POPULATION.name(2)}'",
        f"DELETE FROM {TABLE} WHERE person_id = '{POPULATION.name(3)}'",
    )
    cases = {
        "Person-000004": "neither version 1 of gallery 'staff' nor source 'hr' has a subject 'Person-000004'; "
        "did you mean 'person-000004'",
        "?": r"has a subject '\?'$",
        "newcomer": r"has no template of subject 'newcomer', of which source 'hr' has \d+ usable rows: run `pfstore",
        "person-000001": r"no longer has subject 'person-000001', so its template of 20.* from \d+ features cannot",
        "person-000002": r"every row .* is rejected \(\d+ zero norm\); the next `pfstore backfill staff` removes",
        "lost-000000": r"every row .* 'lost-000000' is rejected \(1 zero norm\), so it has no template",
    }
    with open_source(legacy, "hr", Path()) as source:
        for subject, message in cases.items():
            with pytest.raises(NotFoundError, match=message):
                told(connection, source, version, subject)


def test_features_that_cancel_by_now(connection: Connection) -> None:
    one = np.array([[1, 2, 3, 4]], dtype=np.float32)
    version = fill(connection, MemorySource({"a": {"x": one, "y": one}}), load_model("average"))
    for media, what in (
        ({"x": one, "y": np.concatenate([one, -one])}, "medium 'y'"),
        ({"x": one, "y": -one}, "subject"),
    ):
        with pytest.raises(NotFoundError, match=f"has no template any more: the features of .*{what}.* cancel to zero"):
            told(connection, MemorySource({"a": media}), version, "a")


def test_another_extractor_is_refused(connection: Connection) -> None:
    subjects = people(3)
    version = fill(connection, MemorySource(subjects), load_model("average"))
    with pytest.raises(ContractError, match="gives features of 'other' by now, version 1 of gallery 'staff' was made"):
        told(connection, MemorySource(subjects, extractor="other"), version, "s0001")


@pytest.mark.parametrize("frames", [1, 5, 60, 600, 1500])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures_of_any_size(connection: Connection, tmp_path: Path, frames: int, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    random = np.random.default_rng(frames)
    shots = (1 + random.normal(size=(frames, 8))).astype(np.float32)
    cuts = np.unique([1, *random.integers(1, frames + 1, 12)])
    media = {f"$m{number}_{{\n 女": part for number, part in enumerate(np.split(shots, cuts)) if len(part)}
    source = MemorySource({"s\x1b": media})
    version = fill(connection, source, random_model(8, experts=3, selected=2))
    found = told(connection, source, version, "s\x1b")
    path = tmp_path / f"picture.{suffix}"
    plot(found, path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert len(data) > 10_000
