"""Presets for SQL stores, each on a store that looks like its system's: what is read, left out and refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from pfstore.config import SourceConfig
from pfstore.errors import MappingError, SourceError
from pfstore.sources import complete_source, open_source
from pfstore.sources.base import FeatureSource, SourceBatch
from pfstore.sources.presets import all_presets, recognise
from pfstore.sources.sql_database import LegacyDatabase
from tests.sources.lookalikes.base import SUBJECTS, Lookalike, People, Stored, in_order
from tests.sources.lookalikes.catalogue import LOOKALIKES, each
from tests.sources.lookalikes.deepface import DeepFaceArrays, DeepFaceVectors
from tests.sources.lookalikes.nextcloud import Recognize10
from tests.sources.lookalikes.photoprism import PhotoPrism


def _opened(store_url: str, preset: str, **changes: Any) -> FeatureSource:
    return open_source(SourceConfig(url=store_url, preset=preset, **changes), "legacy", Path())


def _complete(store_url: str, preset: str) -> SourceConfig:
    return complete_source(SourceConfig(url=store_url, preset=preset), "legacy", Path())


def _read(source: FeatureSource, dimension: int) -> list[SourceBatch]:
    return [
        batch for shard in source.shards(15) for batch in source.read(shard.range, dimension=dimension, features=10)
    ]


def _stored(batches: list[SourceBatch]) -> Stored:
    stored: Stored = defaultdict(lambda: defaultdict(list))
    for one in (batch.features for batch in batches):
        media = np.repeat(np.arange(len(one.media_ids)), np.diff(one.media_offsets))
        subjects = np.repeat(np.arange(len(one.subject_ids)), np.diff(one.subject_offsets))
        for feature, medium in zip(one.features, media.tolist(), strict=True):
            subject = one.subject_ids[subjects[medium]]
            stored[subject][one.media_ids[medium]].append(feature.tobytes())
    return in_order(stored)


def _excluded(batches: list[SourceBatch]) -> Counter[str]:
    return sum((Counter(batch.excluded) for batch in batches), Counter())


@each(LOOKALIKES)
def test_everything_is_read_that_is_to_be_and_nothing_else(
    lookalike: Lookalike, engine: sa.Engine, store_url: str
) -> None:
    with engine.connect() as connection:
        stored, excluded = lookalike.truth(connection)
        rows = connection.exec_driver_sql(f"SELECT COUNT(*) FROM {lookalike.faces}").scalar_one()
    with _opened(store_url, lookalike.preset) as source:
        batches = _read(source, lookalike.dimension)
    assert _stored(batches) == stored
    assert _excluded(batches) == excluded
    assert Counter(reject.reason for batch in batches for reject in batch.rejects) == Counter(lookalike.rejected)
    # Every row of the store is accounted for.
    assert sum(batch.read for batch in batches) + excluded.total() == rows
    assert len(stored) > 5


def test_every_preset_has_a_look_alike_with_all_its_traps() -> None:
    traps = {lookalike.preset: set(lookalike.excluded) for lookalike in LOOKALIKES}
    presets = {one.name: set(one.mapping.get("exclude", {})) for one in all_presets().values() if one.engines}
    assert traps == presets


@each(LOOKALIKES)
def test_nothing_is_read_but_what_the_preset_names(lookalike: Lookalike, engine: sa.Engine, store_url: str) -> None:
    preset = all_presets()[lookalike.preset]
    tables = {table.replace("{prefix}", _prefix(lookalike)): columns for table, columns in preset.tables.items()}
    inspector = sa.inspect(engine)
    assert tables.keys() <= set(inspector.get_table_names())
    quoted = engine.dialect.identifier_preparer.quote
    with engine.begin() as connection:
        for table, columns in tables.items():
            for column in {one["name"] for one in inspector.get_columns(table)} - {*columns}:
                connection.exec_driver_sql(f"ALTER TABLE {quoted(table)} DROP COLUMN {quoted(column)}")
        # To drop a virtual table its extension would be needed.
        for table in {*inspector.get_table_names()} - {*tables, "vec_items"}:
            connection.exec_driver_sql(f"DROP TABLE {quoted(table)}")
    with _opened(store_url, lookalike.preset) as source:
        assert sum(batch.read for batch in _read(source, lookalike.dimension)) > 0


def _prefix(lookalike: Lookalike) -> str:
    if lookalike.system == "deepface":
        return lookalike.faces.removeprefix("embeddings_")
    return "oc_"


@each(LOOKALIKES)
def test_a_store_is_one_generation_of_one_system_and_others_are_refused(lookalike: Lookalike, store_url: str) -> None:
    with LegacyDatabase(store_url, "legacy", 60) as database, database.snapshot() as connection:
        assert recognise(connection, database) == [lookalike.preset]
    of_system, of_generation = (_complete(store_url, preset) for preset in (lookalike.system, lookalike.preset))
    assert of_system == of_generation
    for other in all_presets().values():
        if other.system != lookalike.system or other.name == lookalike.preset or lookalike.engine not in other.engines:
            continue
        with pytest.raises(MappingError, match=r"there is (a|no) table '|has (a|no) column '") as refused:
            _opened(store_url, other.name)
        message = str(refused.value)
        assert f'preset = "{lookalike.preset}"' in message
        assert "\n" not in message


@each([one for one in LOOKALIKES if one.mixes])
def test_features_of_two_extractors_are_refused_until_one_is_chosen(
    lookalike: Lookalike, engine: sa.Engine, store_url: str, people: People
) -> None:
    with _opened(store_url, lookalike.preset) as source:
        chosen = source.extractor
    with engine.connect() as connection:
        stored, _ = lookalike.truth(connection)
    with engine.begin() as connection:
        lookalike.another_extractor(people).write(connection)
    with (
        _opened(store_url, lookalike.preset) as source,
        pytest.raises(SourceError, match="several extractors") as refused,
    ):
        _ = source.extractor
    assert chosen in str(refused.value)
    column = "calculator" if lookalike.system == "compreface" else "extractor"
    with _opened(store_url, lookalike.preset, extractor={"column": column, "value": chosen}) as source:
        batches = _read(source, lookalike.dimension)
    assert _stored(batches) == stored


@each([Recognize10("sqlite"), Recognize10("mysql"), Recognize10("postgresql")])
def test_tables_may_have_another_prefix(lookalike: Lookalike, engine: sa.Engine, store_url: str) -> None:
    with engine.begin() as connection:
        stored, _ = lookalike.truth(connection)
        for table in ("recognize_face_detections", "recognize_face_clusters"):
            connection.exec_driver_sql(f"ALTER TABLE oc_{table} RENAME TO cloud_{table}")
    for prefix in ({}, {"prefix": "cloud_"}):
        with _opened(store_url, "recognize", **prefix) as source:
            assert _stored(_read(source, lookalike.dimension)) == stored
    with pytest.raises(MappingError, match=r"there is no table 'oc_recognize_face_detections'.*recognize-10"):
        _opened(store_url, "recognize-10", prefix="oc_")


@each([DeepFaceArrays("postgresql"), DeepFaceVectors("postgresql")])
def test_the_subject_is_what_the_pattern_finds(lookalike: Lookalike, store_url: str) -> None:
    with _opened(store_url, "deepface", subject_pattern="person ([0-9]+)") as source:
        assert {*_stored(_read(source, lookalike.dimension))} == {str(number) for number in range(SUBJECTS)}


@each([PhotoPrism("sqlite")])
def test_an_exclusion_can_be_taken_back(lookalike: Lookalike, store_url: str) -> None:
    with _opened(store_url, lookalike.preset, exclude={"person hidden": False}) as source:
        batches = _read(source, lookalike.dimension)
    planted = Counter(lookalike.excluded)
    assert _excluded(batches) == planted - Counter({"person hidden": planted["person hidden"]})
    assert "js00000000000016" in _stored(batches)


@each([DeepFaceVectors("postgresql")])
def test_of_several_tables_that_fit_one_is_to_be_named(lookalike: Lookalike, engine: sa.Engine, store_url: str) -> None:
    with engine.begin() as connection:
        there = "embeddings_facenet512_retinaface_aligned_raw"
        connection.exec_driver_sql(f"CREATE TABLE embeddings_sface_opencv_aligned_raw AS SELECT * FROM {there}")
    with pytest.raises(MappingError, match="several prefixes.*sface_opencv_aligned_raw.*set prefix"):
        _opened(store_url, "deepface-pgvector")
    with _opened(store_url, "deepface-pgvector", prefix="sface_opencv_aligned_raw") as source:
        assert source.sample().read
