from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore.features import FeatureBatch, offsets_of
from pfstore.training.data import TrainingData
from pfstore.training.drawing import IMAGES, Drawing, usable


def numbered(media: list[list[int]], probes: list[list[bool]] | None = None) -> TrainingData:
    """Subjects whose features tell where they are from: (subject, medium, frame)."""
    rows = [(s, m, f) for s, own in enumerate(media) for m, frames in enumerate(own) for f in range(frames)]
    batch = FeatureBatch(
        np.array(rows, dtype=np.float32).reshape(-1, 3),
        offsets_of([frames for own in media for frames in own]),
        offsets_of([len(own) for own in media]),
        [str(number) for number in range(len(media))],
        [""] * sum(map(len, media)),
    )
    return TrainingData(
        batch,
        None if probes is None else np.array([one for own in probes for one in own]),
    )


stores = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=8)


@given(stores, st.integers(0, 5), st.tuples(st.integers(1, 3), st.integers(0, 2)))
@settings(max_examples=150, deadline=None)
def test_a_pair_is_of_one_subject_and_shares_no_medium(
    media: list[list[int]], seed: int, span: tuple[int, int]
) -> None:
    data = numbered(media)
    mated, single = usable(data)
    assert mated.tolist() == [number for number, own in enumerate(media) if len(own) > 1]
    wanted = (span[0], span[0] + span[1])
    pairs = Drawing(media=wanted).pairs(data, mated, single, np.random.default_rng(seed))
    sets = [(pairs.probes, [*mated, *single]), (pairs.references, [*mated])]
    used: list[list[set[int]]] = []
    for drawn, subjects in sets:
        assert len(drawn.offsets) == len(subjects) + 1
        used.append([])
        for number, subject in enumerate(subjects):
            rows = drawn.features[drawn.offsets[number] : drawn.offsets[number + 1]]
            assert set(rows[:, 0].tolist()) == {subject}
            chosen = {int(one) for one in rows[:, 1]}
            paired = len(media[subject]) > 1
            assert (min(wanted[0], len(media[subject]) // 2) if paired else 1) <= len(chosen) <= wanted[1]
            assert len(rows) == sum(media[subject][one] for one in chosen)  # whole media, each frame once
            used[-1].append(chosen)
    assert all(not probe & reference for probe, reference in zip(used[0], used[1], strict=False))


def test_told_probes_stay_on_their_side() -> None:
    media = [[5, 1, 1, 1, 1, 1, 7], [3, 2], [4]]
    probes = [[False] * 6 + [True], [True, False], [True]]
    data = numbered(media, probes)
    mated, single = usable(data)
    assert (mated.tolist(), single.tolist()) == ([0, 1], [2])
    images = set()
    for seed in range(60):
        pairs = Drawing().pairs(data, mated, single, np.random.default_rng(seed))
        assert np.diff(pairs.probes.offsets).tolist() == [7, 3, 4]
        first = pairs.references.features[: pairs.references.offsets[1]]
        assert (first[:, 1] == 0).sum() == 5  # the one video, whole
        images.add(len(first) - 5)
    assert images == set(range(IMAGES + 1))


def test_sets_are_capped() -> None:
    data = numbered([[50, 50], [3, 3]] * 15)
    mated, single = usable(data)
    capped = Drawing(most=8).pairs(data, mated, single, np.random.default_rng(0))
    assert set(np.diff(capped.probes.offsets)) == {8, 3}


@pytest.mark.parametrize("told", [False, True])
def test_no_medium_is_in_a_probe_and_a_reference_of_one_batch(told: bool) -> None:
    media = [[1] * count for count in (2, 3, 4, 6, 7)]
    probes = [[number < 1 for number in range(len(own))] for own in media]
    data = numbered(media, probes if told else None)
    mated, single = usable(data)
    for seed in range(30):
        pairs = Drawing().pairs(data, mated, single, np.random.default_rng(seed), repeats=3)
        sides = [{(int(row[0]), int(row[1])) for row in drawn.features} for drawn in (pairs.probes, pairs.references)]
        assert not sides[0] & sides[1]
        for drawn in (pairs.probes, pairs.references):
            owners = drawn.features[drawn.offsets[:-1], 0].astype(int).tolist()
            assert owners == mated.tolist() * 3


def test_the_same_generator_draws_the_same() -> None:
    data = numbered([[2, 3, 1]] * 10)
    mated, none = usable(data)
    first, second = (Drawing().pairs(data, mated, none, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.probes.features, second.probes.features)
    np.testing.assert_array_equal(first.references.offsets, second.references.offsets)
    assert first.features == len(first.probes.features) + len(first.references.features)
