"""Made-up stores: the same for the same seed, as real ones are where it matters, damaged as told and no more."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from pfstore import synthetic
from pfstore.config import SourceConfig
from pfstore.errors import InputError
from pfstore.sources import open_source
from pfstore.sources.base import SourceBatch
from pfstore.synthetic import Damage, Population

SMALL = Population(subjects=60, dimension=16, features_per_subject=6, seed=3)


def digest(population: Population) -> str:
    whole = hashlib.sha256()
    for faces in population.faces():
        for array in (faces.subjects, faces.media, faces.qualities, faces.features):
            whole.update(array.tobytes())
    known = synthetic.known_probes(population, mated=10, non_mated=5)
    return hashlib.sha256(whole.digest() + known.sets.features.tobytes()).hexdigest()


def test_a_seed_gives_one_store() -> None:
    assert digest(SMALL) == digest(replace(SMALL))
    assert digest(SMALL) != digest(replace(SMALL, seed=4))


def test_people_differ_in_as_many_dimensions_as_told() -> None:
    even, narrow = (Population(subjects=2000, dimension=64, effective_dimension=one) for one in (None, 10))
    for people, ratio in ((even, 64), (narrow, 10)):
        directions = people.identities(np.arange(2000))
        variances = directions.var(axis=0)
        assert np.linalg.norm(directions, axis=1) == pytest.approx(1, abs=1e-5)
        assert variances.sum() ** 2 / np.square(variances).sum() == pytest.approx(ratio, rel=0.15)
    spread = pooled(narrow.strangers(500), 0).var(axis=0)
    assert spread[:10].sum() > 3 * spread[-10:].sum()
    assert digest(SMALL) != digest(replace(SMALL, effective_dimension=6.0))


@pytest.mark.parametrize("wrong", [1, 16, 400])
def test_an_effective_dimension_is_within_the_dimension(wrong: float) -> None:
    with pytest.raises(ValueError, match="it must be between 1 and 16"):
        replace(SMALL, effective_dimension=wrong)


def test_more_strangers_change_neither_gallery_nor_mated_probes() -> None:
    few, many = (synthetic.known_probes(SMALL, mated=10, non_mated=count) for count in (1, 50))
    mated = few.sets.offsets[10]
    np.testing.assert_array_equal(few.sets.features[:mated], many.sets.features[:mated])


def test_probes_of_different_calls_share_no_noise() -> None:
    people = Population(subjects=40, dimension=256)
    first, second = people.mated(np.arange(20)), people.mated(np.arange(20, 40))
    np.testing.assert_array_less(np.abs(pooled(first, 1) @ pooled(second, 1).T), 0.8)
    assert not np.array_equal(first.qualities[:10], second.qualities[:10])


def test_rows_are_as_the_parameters_say() -> None:
    population = Population(subjects=2000, dimension=32, features_per_subject=20, wrong_person_share=0.1)
    parts = list(population.faces())
    counts = np.bincount(np.concatenate([part.subjects for part in parts]))
    wrong = np.concatenate([part.wrong for part in parts])
    quality = np.concatenate([part.qualities for part in parts])
    norms = np.concatenate([np.linalg.norm(part.features, axis=1) for part in parts])
    np.testing.assert_array_equal(counts, population.counts)
    assert counts.mean() == pytest.approx(20, rel=0.15)
    assert counts.min() == 1
    assert counts.max() > 200
    assert wrong.mean() == pytest.approx(0.1, abs=0.01)
    assert 0 < quality.min() < quality.max() <= 1
    assert np.corrcoef(quality, norms)[0, 1] > 0.9
    assert all(len(part.features) <= 8192 or len(set(part.subjects.tolist())) == 1 for part in parts)


def test_shorter_can_be_better() -> None:
    (faces,) = Population(subjects=50, dimension=32, better_is="shorter").faces()
    assert np.corrcoef(faces.qualities, np.linalg.norm(faces.features, axis=1))[0, 1] < -0.9


def test_batches_are_whole_and_photos_have_one_frame() -> None:
    for batch, faces in zip(SMALL.batches(), SMALL.faces(), strict=True):
        assert batch.set_offsets[-1] == len(batch.features) == len(faces.features)
        lengths = np.diff(batch.media_offsets)
        videos = faces.videos[batch.media_offsets[:-1]]
        assert (lengths[~videos] == 1).all()
    assert sum(len(batch.subject_ids) for batch in SMALL.batches()) == 60


def test_averages_identify_well_and_qualities_help() -> None:
    people = Population(subjects=1000, dimension=256, features_per_subject=15)
    chosen, probes = np.arange(0, 1000, 2), people.mated(np.arange(0, 1000, 2))
    rates = {}
    for power in (0, 2):
        gallery = np.concatenate([pooled(faces, power, by_subject=True) for faces in people.faces()])
        best = (pooled(probes, power) @ gallery.T).argmax(1)
        rates[power] = float((best == chosen).mean())
    assert 0.7 < rates[0] < 0.97
    assert rates[2] > rates[0] + 0.03


def pooled(faces: synthetic.Faces, power: int, by_subject: bool = False) -> np.ndarray[Any, Any]:
    units = faces.features / np.linalg.norm(faces.features, axis=1, keepdims=True)
    starts = np.unique(faces.subjects, return_index=True)[1] if by_subject else faces.medium_offsets[:-1]
    sums = np.add.reduceat(units * faces.qualities[:, None] ** power, starts)
    unit_sums: np.ndarray[Any, Any] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return unit_sums


def test_it_is_fast_enough_to_fill_a_benchmark() -> None:
    population = Population(subjects=1000, dimension=512)
    started = time.process_time()
    made = sum(len(faces.features) for faces in population.faces())
    # On one core it makes 150,000 a second; the rest is for busy machines.
    assert made / (time.process_time() - started) > 20_000


def read(url: str, folder: Path, encoding: str) -> list[SourceBatch]:
    config = SourceConfig(
        url=url, table=synthetic.TABLE, subject="person_id", medium="image_id", quality="score",
        where="deleted_at IS NULL", feature={"column": "vec", "encoding": encoding}, extractor=SMALL.extractor,
    )  # fmt: skip
    with open_source(config, "legacy", folder) as source:
        return [one for s in source.shards(100) for one in source.read(s.range, dimension=16, features=50)]


def check(written: synthetic.Written, batches: list[SourceBatch], each: int) -> None:
    """Every good feature is read as it was made, every bad one is rejected for its reason, and nothing else."""
    expected = np.concatenate([batch.features for batch in SMALL.batches()])
    assert written.features == len(expected) == sum(len(one.features.features) for one in batches)
    found = np.concatenate([one.features.features for one in batches])
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], rtol=1e-6)
    assert set(written.damage.values()) == ({each} if each else set())
    planted = Counter[str]()
    for kind, count in written.damage.items():
        planted[kind.reason] += count
    assert Counter(reject.reason for one in batches for reject in one.rejects) == planted
    lost = [name for one in batches for name in one.rejected_subjects]
    assert len(lost) == written.damage.get(Damage.LOST_SUBJECT, 0)


@pytest.mark.parametrize("encoding", ["float32-le", "json"])
@pytest.mark.parametrize("each", [0, 4])
def test_sqlite(tmp_path: Path, encoding: Any, each: int) -> None:
    written = synthetic.write_sqlite(tmp_path / "x.db", SMALL, encoding=encoding, damage=each)
    check(written, read("sqlite:///x.db", tmp_path, encoding), each)


@pytest.mark.mariadb
def test_mariadb(mariadb_url: str, tmp_path: Path) -> None:
    written = synthetic.write_sql(mariadb_url, SMALL, damage=4)
    check(written, read(mariadb_url, tmp_path, "float32-le"), 4)


@pytest.mark.postgres15
@pytest.mark.parametrize("encoding", ["float32-le", "json", "array"])
def test_postgres15(postgres15_url: str, tmp_path: Path, encoding: Any) -> None:
    written = synthetic.write_sql(postgres15_url, SMALL, encoding=encoding, damage=4)
    check(written, read(postgres15_url, tmp_path, encoding), 4)


def test_a_table_that_is_there_is_left_alone(tmp_path: Path) -> None:
    synthetic.write_sqlite(tmp_path / "x.db", SMALL)
    with pytest.raises(InputError, match="face_features is there already"):
        synthetic.write_sqlite(tmp_path / "x.db", SMALL)
    with pytest.raises(InputError, match="arrays are PostgreSQL's"):
        synthetic.write_sqlite(tmp_path / "y.db", SMALL, encoding="array")


def test_a_store_on_disk_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    digests = set()
    for name in ("x.db", "y.db"):
        synthetic.write_sqlite(tmp_path / name, SMALL, damage=2)
        with sa.create_engine(f"sqlite:///{tmp_path / name}", poolclass=sa.NullPool).connect() as connection:
            rows = connection.execute(sa.text("SELECT * FROM face_features ORDER BY id")).all()
        digests.add(hashlib.sha256(repr(rows).encode()).hexdigest())
    assert len(digests) == 1


def test_more_mated_probes_than_subjects_are_refused() -> None:
    with pytest.raises(ValueError, match="61 mated probes of 60 subjects"):
        synthetic.known_probes(SMALL, mated=61)
