"""npz and npy files as sources, and the choice of a source by its configuration."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore import synthetic
from pfstore.config import SourceConfig
from pfstore.errors import ConfigError, SourceError
from pfstore.sources import open_source
from pfstore.sources.base import FeatureSource, Reason, SourceBatch
from pfstore.sources.encodings import parse_encoding
from pfstore.sources.files import FileSource

D = 4


def values(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32)


def opened(path: Path) -> FileSource:
    return FileSource(path, extractor="test/extractor", name="legacy")


def read(source: FeatureSource, shard: int = 10**6) -> list[SourceBatch]:
    ranges = [one.range for one in source.shards(shard)]
    return [one for range_ in ranges for one in source.read(range_, dimension=D, features=10**6)]


def test_names_that_postgresql_cannot_store_are_read_and_cut(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=values(3), subject=np.array(["a\0b", "b\ud800", "c"]))
    assert list(by_subject(read(opened(tmp_path / "x.npz"), shard=1))) == ["a%00b", "0x62eda080", "c"]
    folder = tmp_path / "one each"
    folder.mkdir()
    for name in (b"a\xff.npy", b"b.npy"):
        np.save(folder / os.fsdecode(name), values(2))
    with opened(folder) as source:
        assert all(json.dumps(one.range).isascii() and "\\u" not in json.dumps(one.range) for one in source.shards(1))
        assert list(by_subject(read(source, shard=1))) == ["0x61ff", "b"]


def by_subject(batches: list[SourceBatch]) -> dict[str, np.ndarray[Any, Any]]:
    found = {}
    for one in batches:
        cuts = one.features.set_offsets
        for i, subject in enumerate(one.features.subject_ids):
            found[subject] = one.features.features[cuts[i] : cuts[i + 1]]
    return found


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_subjects_in_any_order_are_put_together_in_theirs(tmp_path: Path, save: Any) -> None:
    features, subject = values(6), np.array(["b", "a", "b", "ä", "a", "b"])
    save(tmp_path / "x.npz", features=features, subject=subject)
    source = opened(tmp_path / "x.npz")
    found = by_subject(read(source))
    assert list(found) == ["a", "b", "ä"]
    assert not source.has_media
    for name in found:
        np.testing.assert_array_equal(found[name], features[subject == name])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_media_anywhere_in_the_file_are_put_together(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    subject, medium = np.array(rows).T
    features = values(len(rows))
    np.savez(path, features=features, subject=subject, medium=medium)
    batches = read(opened(path), shard=5)
    assert sum(one.read for one in batches) == len(rows)
    for one in batches:
        batch = one.features
        for s, name in enumerate(batch.subject_ids):
            for m in range(batch.subject_offsets[s], batch.subject_offsets[s + 1]):
                expected = features[(subject == int(name)) & (medium == int(batch.media_ids[m]))]
                got = batch.features[batch.media_offsets[m] : batch.media_offsets[m + 1]]
                np.testing.assert_array_equal(got, expected)


def test_offsets_with_ids_and_without(tmp_path: Path) -> None:
    features, offsets = values(5), np.array([0, 2, 2, 5])
    np.savez(tmp_path / "x.npz", features=features, offsets=offsets, ids=np.array(["x", "nobody", "y"]))
    (batch,) = read(opened(tmp_path / "x.npz"))
    assert (batch.features.subject_ids, batch.rejected_subjects) == (["x", "y"], ["nobody"])
    assert [one.reason for one in batch.rejects] == [Reason.EMPTY]
    np.savez(tmp_path / "y.npz", features=features, offsets=offsets[[0, 1, 3]])
    assert list(by_subject(read(opened(tmp_path / "y.npz")))) == ["0", "1"]


def test_bad_values_are_rejected_with_their_row(tmp_path: Path) -> None:
    features = values(4)
    features[1], features[2, 0] = 0, np.nan
    np.savez(tmp_path / "x.npz", features=features, subject=np.array(["a", "a", "b", ""]))
    (batch,) = read(opened(tmp_path / "x.npz"))
    assert {(one.row, one.reason) for one in batch.rejects} == {
        ("1", Reason.ZERO_NORM), ("2", Reason.NON_FINITE), ("3", Reason.NO_SUBJECT),
    }  # fmt: skip
    assert (batch.read, batch.rejected_subjects) == (4, ["b"])


def test_npy_files_are_subjects(tmp_path: Path) -> None:
    np.save(tmp_path / "anna.npy", values(3))
    np.save(tmp_path / "bert.npy", values(1)[0].astype(np.float16))
    np.save(tmp_path / "none.npy", np.empty((0, D), np.float32))
    (batch,) = read(opened(tmp_path))
    assert (batch.features.subject_ids, batch.rejected_subjects) == (["anna", "bert"], ["none"])
    assert batch.features.set_offsets.tolist() == [0, 3, 4]
    assert list(by_subject(read(opened(tmp_path / "anna.npy")))) == ["anna"]


def test_a_sample_tells_the_dimension(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=values(9), subject=np.arange(9) // 3, medium=np.zeros(9, int))
    source = opened(tmp_path / "x.npz")
    sample = source.sample(5)
    assert (sample.dimension, sample.read, sample.subjects, sample.media) == (D, 5, 2, 2)
    assert source.has_media


GOOD: dict[str, Any] = {"features": values(3), "subject": np.array(["a", "a", "b"])}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"features": values(2)}, "subject: 2 entries are expected"),
        ({"features": np.ones((3, D), int)}, "features are float16, float32 or float64"),
        ({"features": np.ones((3, 0), np.float32)}, r"have the shape \[N, D\]"),
        ({"features": values(3)[0]}, r"the shape is \[N, D\]"),
        ({"subject": np.ones(3)}, "text or whole numbers are expected"),
        ({"subject": np.array(["a", None, "b"], object)}, "holds Python objects"),
        ({"subject": None}, "neither 'subject' .* nor 'offsets'"),
        ({"medium": np.arange(2)}, "medium: 3 entries are expected"),
        ({"subject": None, "offsets": np.array([0, 2])}, "offsets rise from 0 to 3"),
        ({"subject": None, "offsets": np.array([0, 2, 1, 3])}, "offsets rise from 0 to 3"),
        ({"subject": None, "offsets": np.array([0.0, 3.0])}, "offsets are whole numbers"),
        ({"subject": None, "offsets": np.array([0, 1, 3]), "ids": np.array(["x", "x"])}, "'x' is there twice"),
        ({"features": None}, "has no array 'features'; it has subject"),
    ],
)
def test_an_npz_of_another_shape_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    arrays = {name: array for name, array in (GOOD | change).items() if array is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(SourceError, match=says) as caught:
        opened(tmp_path / "x.npz")
    assert "x.npz" in str(caught.value)


def npy_header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text + b"\n"


def test_headers_that_claim_more_than_is_there_are_refused(tmp_path: Path) -> None:
    absurd = npy_header((10**12, 512))
    (tmp_path / "x.npy").write_bytes(absurd)
    with pytest.raises(SourceError, match=r"x\.npy: damaged"):
        read(opened(tmp_path / "x.npy"))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("features.npy", absurd)
    with pytest.raises(SourceError, match="claims 2,048,000,000,000,000 bytes, the file has 0"):
        opened(tmp_path / "x.npz")


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", npy_header((2**22, 1)) + bytes(4 * 2**22))
    with pytest.raises(SourceError, match="bytes claim to be 16,777,216; save it uncompressed"):
        opened(tmp_path / "x.npz")


def npy_of_long_header(length: int) -> bytes:
    return b"\x93NUMPY\x02\x00" + length.to_bytes(4, "little") + b" " * length


@pytest.mark.parametrize(
    ("subject", "says"),
    [
        (npy_header((3,), "<U4000000") + bytes(3 * 16_000_000), "bytes claim to be 48,000,000; save"),
        (npy_of_long_header(2**26), "subject: damaged or no array: a header of 67,108,864 bytes"),
    ],
)
def test_a_bomb_is_not_unpacked(tmp_path: Path, subject: bytes, says: str) -> None:
    features = io.BytesIO()
    np.save(features, values(3))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", features.getvalue())
        archive.writestr("subject.npy", subject)
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=says):
            opened(tmp_path / "x.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_header_of_the_second_version_is_read(tmp_path: Path) -> None:
    features = io.BytesIO()
    np.lib.format.write_array(features, values(3), version=(2, 0))
    np.savez_compressed(tmp_path / "y.npz", subject=np.array(["a", "a", "b"]))
    with zipfile.ZipFile(tmp_path / "y.npz", "a") as archive:
        archive.writestr("features.npy", features.getvalue())
    found = by_subject(read(opened(tmp_path / "y.npz")))
    np.testing.assert_array_equal(found["a"], values(3)[:2])


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_other_bytes_are_an_error_in_one_line(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "good.npz", **GOOD)
    whole = (tmp_path / "good.npz").read_bytes()
    for content in (b"", b"\x80\x04]\x94.", whole[:300], b"\x93NUMPY", whole if name.endswith("y") else b"text"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match="damaged") as caught:
            read(opened(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_a_damaged_compressed_array_is_an_error(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", features=values(2000), subject=np.arange(2000))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[2000:2100] = bytes(100)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.npz: features: damaged"):
        opened(tmp_path / "x.npz")


@pytest.mark.parametrize("text", [b"{'descr': '<f4', ", b"(\n", b"  x\n y\n", b"{}\n"])
def test_a_header_that_is_none_is_damage(tmp_path: Path, text: bytes) -> None:
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(48)
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(SourceError, match="damaged"):
        read(opened(tmp_path / "x.npy"))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("features.npy", content)
    with pytest.raises(SourceError, match="damaged"):
        opened(tmp_path / "x.npz")


def test_missing_files_and_extractors_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path / "x.npz")
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path / "x.npy")
    with pytest.raises(ConfigError, match=r"sources\.legacy: .*set extractor"):
        FileSource(tmp_path / "x.npz", extractor=None, name="legacy")


def test_the_configuration_chooses_the_source(tmp_path: Path) -> None:
    people = synthetic.Population(subjects=5, dimension=D, features_per_subject=3)
    synthetic.write_sqlite(tmp_path / "x.db", people)
    synthetic.write_hdf5(tmp_path / "h", people)
    np.savez(tmp_path / "x.npz", **GOOD)
    np.save(tmp_path / "x.npy", values(1))
    table = {"table": synthetic.TABLE, "subject": "person_id", "extractor": "e"}
    feature = {"column": "vec", "encoding": "float32-le"}
    configs: dict[str, dict[str, Any]] = {
        "SqlSource": {"url": "sqlite:///x.db", "feature": feature} | table,
        "Hdf5Source": {"path": "h"},
        "FileSource": {"path": "x.npz", "extractor": "e"},
    }
    for kind, config in configs.items():
        with open_source(SourceConfig(**config), "legacy", tmp_path) as source:
            assert type(source).__name__ == kind
            assert source.sample().dimension == D
    with open_source(SourceConfig(path=tmp_path / "x.npy", extractor="e"), "legacy", Path("/")) as source:
        assert Counter(one.features.subject_ids[0] for one in read(source)) == {"x": 1}


def test_two_keys_that_are_stored_as_one_text_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=values(3), subject=np.array(["\0n", "%00n", "other"]))
    with pytest.raises(SourceError, match="two of the source's keys read the same as text, '%00n'"):
        list(opened(tmp_path / "x.npz").shards(1))


@pytest.mark.parametrize("header", [b"{'descr': '<f4', ", b"((" * 5000, b"{'descr': [], 'shape': (1,)}", b"\xff" * 16])
def test_a_header_that_is_no_header_is_damage(tmp_path: Path, header: bytes) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(SourceError, match="damaged, not npy") as refused:
        read(opened(tmp_path / "x.npy"))
    assert len(str(refused.value)) < 500
    decoded = parse_encoding("npy").decode_many([content])
    assert decoded.faults[0].detail == "not an .npy file"


def test_nobody_s_folder_is_said_by_name() -> None:
    with pytest.raises(ConfigError, match="sources.legacy: "):
        open_source(SourceConfig(path=Path("~no such user/x.npz"), extractor="e"), "legacy", Path())
