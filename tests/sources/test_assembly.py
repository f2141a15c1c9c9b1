"""Batches: whole subjects, the same however the rows come, and nothing lost between rows and batches."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore.errors import SourceError
from pfstore.sources.assembly import Chunk, Fault, assemble
from pfstore.sources.base import Reason, SourceBatch

Row = tuple[str | None, str, list[float]]


def chunk(rows: Sequence[Row], start: int = 0) -> Chunk:
    return Chunk(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [str(i) for i in range(start, start + len(rows))],
        [np.array(row[2], dtype=np.float64) for row in rows],
    )


def batches(rows: Sequence[Row], size: int = 1000, chunk_rows: int = 1000) -> list[SourceBatch]:
    chunks = (chunk(rows[i : i + chunk_rows], i) for i in range(0, len(rows), chunk_rows))
    return list(assemble(chunks, dimension=2, batch_features=size))


def test_nothing_that_postgresql_cannot_store_leaves_a_source() -> None:
    faults = {1: Fault(Reason.LOW_QUALITY, "\0 is below 1")}
    rows = Chunk(["a\0", "a\0"], ["\udcff", "\udcff"], ["r\0", "\udcff"], np.ones((2, 2)), faults)
    (batch,) = assemble([rows], dimension=2, batch_features=10)
    assert (batch.features.subject_ids, batch.features.media_ids) == (["a%00"], ["0xff"])
    (reject,) = batch.rejects
    assert (reject.subject, reject.medium, reject.row, reject.detail) == ("a%00", "0xff", "0xff", "%00 is below 1")


def test_subjects_and_media_become_offsets() -> None:
    rows: list[Row] = [("a", "1", [1, 0]), ("a", "1", [2, 0]), ("a", "2", [3, 0]), ("b", "1", [4, 0])]
    (batch,) = batches(rows)
    features = batch.features
    assert features.features.tolist() == [[1, 0], [2, 0], [3, 0], [4, 0]]
    assert features.features.dtype == np.float32
    assert features.media_offsets.tolist() == [0, 2, 3, 4]
    assert features.subject_offsets.tolist() == [0, 2, 3]
    assert (features.subject_ids, features.media_ids) == (["a", "b"], ["1", "2", "1"])


def test_nothing_gives_no_batch() -> None:
    assert batches([]) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 2.0, 3.0], Reason.WRONG_DIMENSION),
        ([1.0], Reason.WRONG_DIMENSION),
        ([np.nan, 1.0], Reason.NON_FINITE),
        ([np.inf, 1.0], Reason.NON_FINITE),
        ([1e39, 1.0], Reason.NON_FINITE),
        ([0.0, 0.0], Reason.ZERO_NORM),
        ([1e-7, 0.0], Reason.ZERO_NORM),
    ],
)
def test_a_bad_value_is_rejected_with_its_reason(values: list[float], reason: Reason) -> None:
    (batch,) = batches([("a", "1", [1, 0]), ("a", "2", values), ("b", "1", values)])
    assert [(one.subject, one.medium, one.row, one.reason) for one in batch.rejects] == [
        ("a", "2", "1", reason),
        ("b", "1", "2", reason),
    ]
    assert batch.features.media_ids == ["1"]
    assert batch.rejected_subjects == ["b"]
    assert (batch.read, batch.subjects) == (3, 2)


def test_large_finite_values_are_kept() -> None:
    (batch,) = batches([("a", "1", [3e38, 3e38])])
    assert not batch.rejects


@pytest.mark.parametrize("norm", [1.01e-6, 1e-5, 1e-4, 1.01e-4, 1e19, 3e38])
def test_all_norms_from_the_least_one_on_are_kept(norm: float) -> None:
    (batch,) = batches([("a", "1", [norm, 0]), ("a", "2", [0, -norm])])
    assert (len(batch.features.features), batch.rejects) == (2, [])


@pytest.mark.parametrize("norm", [0.99e-6, 1e-23, 1e-45])
def test_all_norms_below_it_are_not(norm: float) -> None:
    (batch,) = batches([("a", "1", [norm, 0]), ("a", "2", [1, 1])])
    assert [(one.medium, one.reason) for one in batch.rejects] == [("1", Reason.ZERO_NORM)]


def test_a_row_without_subject_counts_no_subject() -> None:
    (batch,) = batches([(None, "1", [1, 0]), ("", "2", [1, 0]), ("a", "3", [1, 0])])
    assert [one.reason for one in batch.rejects] == [Reason.NO_SUBJECT] * 2
    assert [one.subject for one in batch.rejects] == [None, None]
    assert (batch.read, batch.subjects) == (3, 1)


def test_the_readers_faults_are_kept() -> None:
    matrix = np.array([[1, 0], [np.nan, 0]], dtype=np.float32)
    rows = Chunk(["a", "a"], ["", ""], ["1", "2"], matrix, {1: Fault(Reason.LOW_QUALITY, "0.1")})
    (batch,) = assemble([rows], dimension=2, batch_features=10)
    assert [(one.reason, one.detail) for one in batch.rejects] == [(Reason.LOW_QUALITY, "0.1")]


def test_a_matrix_of_another_width_is_rejected_whole() -> None:
    rows = Chunk(["a", "b"], ["", ""], ["1", "2"], np.ones((2, 3), dtype=np.float32))
    (batch,) = assemble([rows], dimension=2, batch_features=10)
    assert batch.rejected_subjects == ["a", "b"]
    assert batch.features.features.shape == (0, 2)
    assert batch.rejects[0].detail == "3 values instead of 2"


def test_batches_end_with_the_subject_that_fills_them() -> None:
    rows: list[Row] = [(name, "", [1, 0]) for name in "aabbbcddddddddde"]
    assert [list(batch.features.subject_ids) for batch in batches(rows, size=4)] == [["a", "b"], ["c"], ["d"], ["e"]]


def test_rows_without_subject_are_cut_like_others() -> None:
    rows: list[Row] = [(None, "", [1, 0])] * 10
    assert [batch.read for batch in batches(rows, size=4, chunk_rows=3)] == [4, 4, 2]


def test_a_subject_that_returns_is_an_error() -> None:
    with pytest.raises(SourceError, match="subject 'a' are not adjacent"):
        batches([("a", "", [1, 0]), ("b", "", [1, 0]), ("a", "", [1, 0])])


def test_a_medium_that_returns_is_an_error() -> None:
    with pytest.raises(SourceError, match="medium of subject .a. are not adjacent"):
        batches([("a", "1", [1, 0]), ("a", "2", [1, 0]), ("a", "1", [1, 0])])


@st.composite
def stores(draw: st.DrawFn) -> list[Row]:
    rows: list[Row] = []
    vectors = st.sampled_from([[1.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [1.0], [5.0, 5.0]])
    subjects: list[str | None] = draw(st.lists(st.sampled_from("abcdefghij"), unique=True))
    for subject in [*subjects, None]:
        for medium in draw(st.lists(st.sampled_from("xyz"), unique=True)):
            rows += [(subject, medium, vector) for vector in draw(st.lists(vectors, max_size=4))]
    return rows


@given(stores(), st.integers(1, 12), st.integers(1, 7))
@settings(max_examples=150, deadline=None)
def test_every_row_is_accounted_for_and_chunks_do_not_matter(rows: list[Row], size: int, chunk_rows: int) -> None:
    cut, whole = batches(rows, size, chunk_rows), batches(rows, size, 1000)
    assert sum(batch.read for batch in cut) == len(rows)
    assert sum(batch.subjects for batch in cut) == len([key for key, _ in groupby(row[0] for row in rows) if key])
    assert len(cut) == len(whole)
    for one, other in zip(cut, whole, strict=True):
        assert one.features.fingerprints() == other.features.fingerprints()
        assert (one.rejects, one.rejected_subjects) == (other.rejects, other.rejected_subjects)
        assert one.features.media_offsets[-1] == len(one.features.features)
        assert one.features.subject_offsets[-1] == len(one.features.media_ids)


def test_a_huge_subject_takes_little_more_than_its_features() -> None:
    rows, dimension = 120_000, 32

    def chunks() -> Iterator[Chunk]:
        for start in range(0, rows, 2000):
            names = [str(i) for i in range(start, start + 2000)]
            yield Chunk(["a"] * 2000, [""] * 2000, names, np.ones((2000, dimension), dtype=np.float32))

    tracemalloc.start()
    (batch,) = assemble(chunks(), dimension=dimension, batch_features=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = rows * dimension * 4
    assert batch.read == rows
    assert peak < 4.5 * size


@given(st.permutations([[1.0, 2.0], [2.0, 1.0], [3.0, 4.0], [3.0, 4.0], [-1.0, 0.5]]))
@settings(max_examples=20, deadline=None)
def test_unordered_rows_give_the_same_batch(vectors: list[list[float]]) -> None:
    rows: list[Row] = [*(("a", "1", vector) for vector in vectors), ("a", "2", [9, 9]), ("b", "", [0.5, 0])]
    (batch,) = assemble([chunk(rows)], dimension=2, batch_features=10, unordered=True)
    expected = sorted(vectors, key=lambda vector: np.array(vector, dtype=np.float32).tobytes())
    assert batch.features.features.tolist() == [*expected, [9, 9], [0.5, 0]]
