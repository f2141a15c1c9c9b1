from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pfstore.errors import InputError
from pfstore.evaluation.protocols.hdf5 import hdf5_experiment
from pfstore.features import offsets_of
from pfstore.training import data as training_data
from pfstore.training.data import TrainingData, of_experiment
from tests.training.samples import DIMENSION, of_file, people, write_hdf5, write_npz


def test_a_source_is_read_whole_with_its_media(tmp_path: Path) -> None:
    made = people()
    write_npz(tmp_path / "people.npz", made)
    read = of_file(tmp_path / "people.npz")
    assert sorted(read.subject_ids) == sorted(made.subject_ids)
    assert read.counts == {"read": len(made.features)}
    for subject in (made.subject_ids[0], made.subject_ids[-1]):
        there, put = read.select({subject}.__contains__), made.select({subject}.__contains__)
        order = np.lexsort(there.features.T), np.lexsort(put.features.T)
        np.testing.assert_array_equal(there.features[order[0]], put.features[order[1]])
        assert sorted(np.diff(there.media_offsets)) == sorted(np.diff(put.media_offsets))


def test_without_media_each_feature_is_one(tmp_path: Path) -> None:
    write_npz(tmp_path / "people.npz", people(), media=False)
    read = of_file(tmp_path / "people.npz")
    assert set(np.diff(read.media_offsets)) == {1}
    assert len(read.features) == len(people().features)


def test_unusable_features_are_left_out_and_counted(tmp_path: Path) -> None:
    spoilt = people().prepared(np.copy)
    spoilt.features[3] = np.nan
    spoilt.features[7] = 0
    write_npz(tmp_path / "people.npz", spoilt)
    read = of_file(tmp_path / "people.npz")
    assert read.counts["non-finite"] == read.counts["zero norm"] == 1
    assert len(read.features) == len(spoilt.features) - 2
    assert np.isfinite(read.features).all()


def test_more_than_there_is_memory_for_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path / "people.npz", people())
    monkeypatch.setattr(training_data, "_MEMORY_SHARE", 0.0)
    with pytest.raises(InputError, match="GiB to train on"):
        of_file(tmp_path / "people.npz")


def test_the_digest_is_of_the_data_and_not_of_their_order() -> None:
    made = people()
    half = set(made.subject_ids[:30])
    first, second = made.select(half.__contains__), made.select(lambda one: one not in half)
    assert made.digest() == people.__wrapped__().digest()
    assert len({made.digest(), first.digest(), second.digest()}) == 3
    changed = made.prepared(np.copy)
    changed.features[0, 0] += 1e-3
    assert changed.digest() != made.digest()


def test_hdf5_gives_galleries_and_probes(tmp_path: Path) -> None:
    made = people()
    write_hdf5(tmp_path / "train" / "detector" / "extractor", made)
    read = of_experiment(hdf5_experiment(tmp_path / "train"))
    assert read.probes is not None
    several = np.diff(made.subject_offsets) > 1
    assert read.probes.sum() == several.sum()
    assert sorted(read.subject_ids) == sorted(made.subject_ids)
    assert len(read.features) == len(made.features)
    assert read.dimension == DIMENSION
    assert read.counts == {"read": len(made.features)}


def test_unusable_features_of_hdf5_are_counted_and_told(tmp_path: Path) -> None:
    spoilt = people().prepared(np.copy)
    spoilt.features[::50] = np.nan
    write_hdf5(tmp_path / "train" / "detector" / "extractor", spoilt)
    read = of_experiment(hdf5_experiment(tmp_path / "train"))
    void = len(spoilt.features[::50])
    assert read.counts == {"read": len(spoilt.features), "non-finite": void}
    assert len(read.features) == len(spoilt.features) - void
    assert any("left out" in one for one in read.warnings)


def test_subjects_in_order_are_the_same_subjects() -> None:
    made = people()
    order = list(reversed(range(len(made.subject_ids))))
    pieces = [made.select({made.subject_ids[one]}.__contains__) for one in order]
    turned = TrainingData(
        np.concatenate([one.features for one in pieces]),
        offsets_of(np.concatenate([np.diff(one.media_offsets) for one in pieces])),
        offsets_of(np.concatenate([np.diff(one.subject_offsets) for one in pieces])),
        [one.subject_ids[0] for one in pieces],
    )
    first, second = made.ordered(), turned.ordered()
    assert list(first.subject_ids) == list(second.subject_ids) == sorted(made.subject_ids)
    np.testing.assert_array_equal(first.features, second.features)
    np.testing.assert_array_equal(first.media_offsets, second.media_offsets)
    assert first.digest() == made.digest()
