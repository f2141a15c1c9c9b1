from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pfstore.config import SourceConfig
from pfstore.errors import ConfigError, InputError
from pfstore.sources import open_source
from pfstore.sources.pack import pack
from pfstore.training import data as training_data
from pfstore.training.data import of_hdf5
from tests.training.samples import DIMENSION, joined, of_file, people, write_hdf5, write_npz


def test_a_source_is_read_whole_with_its_media(tmp_path: Path) -> None:
    made = people()
    write_npz(tmp_path / "people.npz", made)
    read = of_file(tmp_path / "people.npz")
    assert sorted(read.subjects) == sorted(made.subjects)
    assert read.counts == {"read": len(made.batch.features)}
    for subject in (made.subjects[0], made.subjects[-1]):
        there, put = read.select({subject}.__contains__), made.select({subject}.__contains__)
        order = np.lexsort(there.batch.features.T), np.lexsort(put.batch.features.T)
        np.testing.assert_array_equal(there.batch.features[order[0]], put.batch.features[order[1]])
        assert sorted(np.diff(there.batch.media_offsets)) == sorted(np.diff(put.batch.media_offsets))


def test_without_media_each_feature_is_one(tmp_path: Path) -> None:
    write_npz(tmp_path / "people.npz", people(), media=False)
    read = of_file(tmp_path / "people.npz")
    assert set(np.diff(read.batch.media_offsets)) == {1}
    assert len(read.batch.features) == len(people().batch.features)


def test_unusable_features_are_left_out_and_counted(tmp_path: Path) -> None:
    spoilt = people().prepared(np.copy)
    spoilt.batch.features[3] = np.nan
    spoilt.batch.features[7] = 0
    write_npz(tmp_path / "people.npz", spoilt)
    read = of_file(tmp_path / "people.npz")
    assert read.counts["non-finite"] == read.counts["zero norm"] == 1
    assert len(read.batch.features) == len(spoilt.batch.features) - 2
    assert np.isfinite(read.batch.features).all()


def test_more_than_there_is_memory_for_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path / "people.npz", people())
    monkeypatch.setattr(training_data, "_MEMORY_SHARE", 0.0)
    with pytest.raises(InputError, match="GiB to train on"):
        of_file(tmp_path / "people.npz")


def test_the_digest_is_of_the_data_and_not_of_their_order() -> None:
    made = people()
    half = set(made.subjects[:30])
    first, second = made.select(half.__contains__), made.select(lambda one: one not in half)
    assert made.digest() == people.__wrapped__().digest()
    assert len({made.digest(), first.digest(), second.digest()}) == 3
    changed = made.prepared(np.copy)
    changed.batch.features[0, 0] += 1e-3
    assert changed.digest() != made.digest()


def test_hdf5_gives_galleries_and_probes(tmp_path: Path) -> None:
    made = people()
    write_hdf5(tmp_path / "train" / "detector" / "extractor", made)
    read = of_hdf5(tmp_path / "train")[0]
    assert read.probes is not None
    several = np.diff(made.batch.subject_offsets) > 1
    assert read.probes.sum() == several.sum()
    assert sorted(read.subjects) == sorted(made.subjects)
    assert len(read.batch.features) == len(made.batch.features)
    assert read.batch.dimension == DIMENSION
    assert read.counts == {"read": len(made.batch.features)}


def test_unusable_features_of_hdf5_are_counted_and_told(tmp_path: Path) -> None:
    spoilt = people().prepared(np.copy)
    spoilt.batch.features[::50] = np.nan
    write_hdf5(tmp_path / "train" / "detector" / "extractor", spoilt)
    read = of_hdf5(tmp_path / "train")[0]
    void = len(spoilt.batch.features[::50])
    assert read.counts == {"read": len(spoilt.batch.features), "non-finite": void}
    assert len(read.batch.features) == len(spoilt.batch.features) - void
    assert any("left out" in one for one in read.warnings)


def test_subjects_in_order_are_the_same_subjects() -> None:
    made = people()
    order = list(reversed(range(len(made.subjects))))
    pieces = [made.select({made.subjects[one]}.__contains__) for one in order]
    turned = joined([one.batch for one in pieces])
    first, second = made.ordered(), turned.ordered()
    assert list(first.subjects) == list(second.subjects) == sorted(made.subjects)
    np.testing.assert_array_equal(first.batch.features, second.batch.features)
    np.testing.assert_array_equal(first.batch.media_offsets, second.batch.media_offsets)
    assert first.digest() == made.digest()


def test_hdf5_without_probes_is_drawn_from_like_a_source(tmp_path: Path) -> None:
    write_npz(tmp_path / "people.npz", people())
    config = SourceConfig(path=tmp_path / "people.npz", extractor="made-up/sphere")
    with open_source(config, "people", tmp_path) as source:
        pack(source, tmp_path / "packed")
    read, extractor = of_hdf5(tmp_path / "packed", "made-up/sphere")
    assert extractor == "made-up/sphere"
    assert read.probes is None
    assert len(read.batch.features) == len(people().batch.features)
    assert sorted(np.diff(read.batch.media_offsets)) == sorted(np.diff(people().batch.media_offsets))
    with pytest.raises(ConfigError, match="does not tell what made its features: name it by --extractor"):
        of_hdf5(tmp_path / "packed")
