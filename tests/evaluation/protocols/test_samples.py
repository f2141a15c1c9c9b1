"""Samples by number from one array: cut as asked for, checked, and the same as a source would make of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore.errors import InputError
from pfstore.evaluation.protocols.samples import ChunkedSamples, IndexedSamples, numbered
from pfstore.features import offsets_of
from pfstore.sources.assembly import Chunk
from tests.evaluation.protocols.reading import D, collected, frames

VALUES = np.array([1.0, 1.0, 1.0, 0.0, np.nan, np.inf, 1e-9, 1e30])


@given(
    st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_indexed_samples_are_as_assembled_ones(sizes: list[list[int]], features: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = sum(map(sum, sizes))
    array = frames(count + 5, 1).astype(np.float64) * generator.choice(VALUES, size=(count + 5, 1))
    rows = generator.permutation(count + 5)[:count]
    media = [f"m{number}" for sample in sizes for number in range(len(sample))]
    subjects = {f"s{number}": f"subject {number % 3}" for number in range(len(sizes))}
    indexed = IndexedSamples(
        subjects,
        array,
        rows,
        media_offsets=offsets_of([size for sample in sizes for size in sample]),
        sample_offsets=offsets_of([len(sample) for sample in sizes]),
        media=media,
    )

    def chunks() -> Iterator[Chunk]:
        start = 0
        for number, sample in enumerate(sizes):
            for medium, size in enumerate(sample):
                picked = rows[start : start + size]
                yield Chunk(
                    [f"s{number}"] * size, [f"m{medium}"] * size, list(map(str, picked.tolist())), array[picked]
                )
                start += size

    whole = collected(ChunkedSamples(subjects.__getitem__, chunks, D))
    found = collected(indexed, features)
    assert found.media == whole.media
    assert found.subjects == whole.subjects
    empty = {f"s{number}" for number, sample in enumerate(sizes) if not sample}
    assert set(found.failures) == set(whole.failures) | empty
    assert all(found.failures[sample] == (subjects[sample], "empty (no feature)") for sample in empty)
    read = sum(batch.read for batch in indexed.batches(features))
    assert read == count + len(empty)
    rejected = [one.row for batch in indexed.batches(features) for one in batch.rejects if one.row]
    usable = sum(len(rows) for media in found.media.values() for rows in media.values())
    assert usable + len(rejected) == count


def test_batches_have_about_the_size_that_is_asked_for() -> None:
    sizes = [3, 1, 1, 9, 2, 2, 2]
    count = sum(sizes)
    samples = IndexedSamples(
        {str(number): "x" for number in range(len(sizes))},
        frames(count),
        np.arange(count),
        media_offsets=offsets_of(sizes),
        sample_offsets=np.arange(len(sizes) + 1),
        media=[""] * len(sizes),
    )
    assert collected(samples, 5).batches == [5, 9, 4, 2]
    assert collected(samples, 1).batches == sizes
    assert collected(samples, 100).batches == [count]


def test_a_mapped_array_is_read_a_batch_at_a_time(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", frames(6).astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    samples = IndexedSamples(
        {"a": "a", "b": "b"},
        mapped,
        np.array([5, 0, 3]),
        media_offsets=np.array([0, 1, 3]),
        sample_offsets=np.array([0, 1, 2]),
        media=["m", "n"],
    )
    expected = frames(6).astype(np.float16).astype(np.float32)
    assert collected(samples, 1).media == {"a": {"m": expected[[5]].tolist()}, "b": {"n": expected[[0, 3]].tolist()}}


def test_two_samples_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="video 'a%00' is there twice"):
        numbered([("a\0", "x"), ("a%00", "y")], "video")
