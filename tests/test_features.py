import numpy as np

from pfstore.features import FeatureBatch, offsets_of
from tests.memory import batch_of, people


def test_selecting_subjects_keeps_them_whole() -> None:
    subjects = people(6)
    keep = np.array([True, False, True, True, False, False])
    chosen = batch_of(subjects).select(keep)
    expected = batch_of({name: media for (name, media), kept in zip(subjects.items(), keep, strict=True) if kept})
    np.testing.assert_array_equal(chosen.features, expected.features)
    np.testing.assert_array_equal(chosen.media_offsets, expected.media_offsets)
    np.testing.assert_array_equal(chosen.subject_offsets, expected.subject_offsets)
    assert list(chosen.subject_ids) == list(expected.subject_ids)
    assert list(chosen.media_ids) == list(expected.media_ids)


def test_selecting_none() -> None:
    none = batch_of(people(3)).select(np.zeros(3, dtype=bool))
    assert none.features.shape == (0, 8)
    assert none.set_offsets.tolist() == [0]


def test_joining_undoes_a_parting() -> None:
    whole = batch_of(people(6))
    parts = [whole.take(np.array(numbers, dtype=np.int64)) for numbers in ([0, 1], [2], [3, 4, 5])]
    joined = FeatureBatch.joined([FeatureBatch.empty(whole.dimension), *parts])
    np.testing.assert_array_equal(joined.features, whole.features)
    assert joined.fingerprints() == whole.fingerprints()
    assert (list(joined.subject_ids), list(joined.media_ids)) == (list(whole.subject_ids), list(whole.media_ids))


def test_a_fingerprint_is_of_what_is_fused() -> None:
    subjects = people(3)
    before = batch_of(subjects).fingerprints()
    assert batch_of(subjects).fingerprints() == before
    assert batch_of({"s0001": subjects["s0001"]}).fingerprints() == [before[1]]
    changed = {**subjects, "s0001": {**subjects["s0001"], "m0": subjects["s0001"]["m0"] * 2}}
    regrouped = {**subjects, "s0001": {"all": np.concatenate(list(subjects["s0001"].values()))}}
    renamed = {**subjects, "s0001": {f"{medium}-": values for medium, values in subjects["s0001"].items()}}
    for other in (changed, regrouped, renamed):
        after = batch_of(other).fingerprints()
        assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_offsets() -> None:
    assert offsets_of([]).tolist() == [0]
    assert offsets_of([2, 0, 3]).tolist() == [0, 2, 2, 5]
