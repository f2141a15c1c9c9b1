"""HDF5 feature files: found, read whole, everything in them accounted for, and nothing outside them touched."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pfstore import synthetic
from pfstore.errors import ConfigError, SourceError
from pfstore.sources.base import Reason, SourceBatch
from pfstore.sources.hdf5 import Hdf5Source, find

D = 8


def frames(count: int, seed: int = 0, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, D)).astype(dtype)


def store(path: Path, content: dict[str, Any]) -> Path:
    """Write datasets by their path in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value
    return path


def opened(path: Path, extractor: str | None = "test/extractor") -> Hdf5Source:
    return Hdf5Source(path, extractor=extractor, name="legacy")


def read(source: Hdf5Source, shard: int = 10**6, batch: int = 10**6) -> list[SourceBatch]:
    ranges = [one.range for one in source.shards(shard)]
    return [one for range_ in ranges for one in source.read(range_, dimension=D, features=batch)]


def test_media_are_read_in_natural_order_and_probes_are_not(tmp_path: Path) -> None:
    content = {f"anna/gallery/images/{n}": frames(1, n) for n in (10, 2, 0)}
    content |= {"anna/gallery/video/0": frames(5), "anna/probe_0": frames(3)}
    with opened(store(tmp_path / "features_anna.hdf5", content)) as source:
        (batch,) = read(source)
        assert source.has_media
    assert batch.features.media_ids == ["images/0", "images/2", "images/10", "video/0"]
    assert batch.features.set_offsets.tolist() == [0, 8]
    np.testing.assert_array_equal(batch.features.features[3:], frames(5))
    assert (batch.read, batch.rejects) == (8, [])


def test_a_name_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    path = store(tmp_path / "a.h5", {"b/gallery/images/0": frames(1)})
    with h5py.File(path, "a") as file:
        file[b"\xff\xfe/gallery/\xff/0"] = frames(2)
    (batch,) = read(opened(path))
    assert (batch.features.subject_ids, list(batch.features.media_ids)) == (["b", "0xfffe"], ["images/0", "0xff2f30"])
    with h5py.File(path, "a") as file:
        file[b"\xff\xfe/gallery/\xff/1"] = h5py.SoftLink("/b")
    with pytest.raises(SourceError, match="link to elsewhere"):
        read(opened(path))


@pytest.mark.parametrize("dtype", ["float16", "<f4", ">f4", "float64"])
def test_all_floats_become_float32(tmp_path: Path, dtype: str) -> None:
    path = store(tmp_path / "a.h5", {"a/gallery/images/0": frames(1, dtype=dtype)})
    (batch,) = read(opened(path))
    assert batch.features.features.dtype == np.float32
    np.testing.assert_array_equal(batch.features.features, frames(1, dtype=dtype).astype(np.float32))


def test_what_is_no_feature_is_rejected_and_counted(tmp_path: Path) -> None:
    bad = frames(6)
    bad[1, 3], bad[2, 0], bad[4] = np.nan, np.inf, 0
    content: dict[str, Any] = {
        "a/gallery/images/0": frames(1)[0],
        "a/gallery/images/1": np.empty((0, D), np.float32),
        "a/gallery/images/2": h5py.Empty("f4"),
        "a/gallery/images/3": np.ones((2, D), np.int32),
        "a/gallery/images/4": np.array([b"text"]),
        "a/gallery/images/5": np.ones((2, 2, D), np.float32),
        "a/gallery/images/6": np.float32(1),
        "a/gallery/images/7": np.ones((3, D + 1), np.float32),
        "a/gallery/video/0": bad,
        "b/gallery/images/0": np.zeros((2, D), np.float32),
    }
    with opened(store(tmp_path / "all.hdf5", content)) as source:
        shards = list(source.shards(10**6))
        (batch,) = read(source)
    assert batch.read == shards[0].features == 1 + 6 + 3 + 6 + 2
    assert Counter(one.reason for one in batch.rejects) == {
        Reason.EMPTY: 2, Reason.UNDECODABLE: 4, Reason.WRONG_DIMENSION: 3, Reason.NON_FINITE: 2, Reason.ZERO_NORM: 3,
    }  # fmt: skip
    assert (batch.features.subject_ids, batch.rejected_subjects) == (["a"], ["b"])
    assert {one.row for one in batch.rejects if one.reason is Reason.NON_FINITE} == {
        "gallery/video/0[1]", "gallery/video/0[2]",
    }  # fmt: skip
    assert batch.features.media_ids == ["images/0", "video/0"]


def test_a_dataset_never_written_is_not_read_as_zeros(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a/gallery/video/0", (2**40, D), "f4", chunks=(64, D))
        file.create_dataset("a/gallery/video/1", (1, 10**9), "f4", chunks=(1, 1000))
    (batch,) = read(opened(tmp_path / "a.h5"))
    assert [one.reason for one in batch.rejects] == [Reason.UNDECODABLE] * 2
    assert "never written" in batch.rejects[0].detail


def test_chunks_too_large_to_unpack_are_rejected(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a/gallery/video/0", (2**25, D), "f4", chunks=(2**25, D), compression="gzip")
        data.id.write_direct_chunk((0, 0), b"\0" * 10)
    (batch,) = read(opened(tmp_path / "a.h5"))
    assert [one.reason for one in batch.rejects] == [Reason.UNDECODABLE]


def test_shards_and_batches_hold_everything_once(tmp_path: Path) -> None:
    people = {f"p{n:02}": frames(n % 7 + 1, n) for n in range(40)}
    for name, features in people.items():
        store(tmp_path / f"features_{name}.hdf5", {f"{name}/gallery/video/0": features})
    with opened(tmp_path) as source:
        shards = list(source.shards(20))
        batches = read(source, shard=20, batch=10)
    assert len(shards) > 3
    assert (shards[0].range["after"], shards[-1].range["to"]) == (None, None)
    assert [one.range["to"] for one in shards[:-1]] == [one.range["after"] for one in shards[1:]]
    assert sum(one.features for one in shards) == sum(len(one) for one in people.values())
    assert [name for one in batches for name in one.features.subject_ids] == sorted(people)
    np.testing.assert_array_equal(
        np.concatenate([one.features.features for one in batches]), np.concatenate(list(people.values()))
    )


def test_a_subject_that_comes_later_is_in_one_of_the_shards(tmp_path: Path) -> None:
    for name in ("b", "d", "f"):
        store(tmp_path / f"features_{name}.hdf5", {f"{name}/gallery/images/0": frames(1)})
    shards = list(opened(tmp_path).shards(1))
    for name in ("a", "c", "e", "z"):
        store(tmp_path / f"features_{name}.hdf5", {f"{name}/gallery/images/0": frames(1)})
    source = opened(tmp_path)
    batches = [one for shard in shards for one in source.read(shard.range, dimension=D, features=10)]
    assert [name for one in batches for name in one.features.subject_ids] == list("abcdefz")


def test_a_long_video_is_read_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfstore.sources.hdf5.SLICE_VALUES", 3 * D)
    path = store(tmp_path / "a.h5", {"a/gallery/video/0": frames(10)})
    source = opened(path)
    assert [len(chunk.rows) for chunk in source.chunks("a")] == [3, 3, 3, 1]
    (batch,) = read(source)
    np.testing.assert_array_equal(batch.features.features, frames(10))


def test_a_file_system_that_gives_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = frames(50)
    path = store(tmp_path / "features_a.hdf5", {"a/gallery/video/0": features})
    whole, parts = os.preadv, []

    def some(descriptor: int, buffers: list[memoryview], place: int) -> int:
        parts.append(place)
        return whole(descriptor, [buffers[0][:1000]], place)

    monkeypatch.setattr("pfstore.sources.hdf5_datasets.os.preadv", some)
    (batch,) = read(opened(path))
    assert np.array_equal(batch.features.features, features)
    assert len(parts) > 1


def test_a_sample_reads_no_more_rows_than_asked(tmp_path: Path) -> None:
    content = {f"{name}/gallery/video/0": frames(10) for name in "abc"}
    sample = opened(store(tmp_path / "a.h5", content)).sample(15)
    assert (sample.dimension, sample.read, sample.subjects, sample.media, len(sample.norms)) == (D, 15, 2, 2, 15)


def test_a_sample_of_nothing_usable_has_no_dimension(tmp_path: Path) -> None:
    sample = opened(store(tmp_path / "a.h5", {"a/gallery/images/0": np.ones(3, np.int64)})).sample()
    assert (sample.dimension, sample.read, len(sample.rejects)) == (None, 1, 1)


@pytest.mark.parametrize("path", ["", "train", "train/retina", "train/retina/ada", "train/retina/ada/features_a.hdf5"])
def test_the_folders_tell_the_extractor(tmp_path: Path, path: str) -> None:
    store(tmp_path / "train/retina/ada/features_a.hdf5", {"a/gallery/images/0": frames(1)})
    assert opened(tmp_path / path, None).extractor == "retina/ada"
    assert opened(tmp_path / path, "mine").extractor == "mine"


def test_without_such_folders_the_extractor_is_asked_for(tmp_path: Path) -> None:
    path = store(tmp_path / "features_a.hdf5", {"a/gallery/images/0": frames(1)})
    for one in (path, tmp_path):
        with pytest.raises(ConfigError, match=r"sources.legacy.*set extractor"):
            opened(one, None)


def test_several_kinds_below_a_folder_are_listed(tmp_path: Path) -> None:
    for folder in ("train/retina/ada", "test/retina/ada"):
        store(tmp_path / folder / "features_a.hdf5", {"a/gallery/images/0": frames(1)})
    with pytest.raises(SourceError, match=r"test/retina/ada, train/retina/ada.*point to one"):
        find(tmp_path)


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        find(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"holds no features_\*"):
        find(tmp_path)


def test_a_subject_in_two_files_names_both(tmp_path: Path) -> None:
    for name in ("x", "y"):
        store(tmp_path / f"features_{name}.hdf5", {"anna/gallery/images/0": frames(1)})
    with pytest.raises(SourceError, match=r"'anna' is in .*features_x.hdf5 and in .*features_y.hdf5"):
        list(opened(tmp_path).shards(10))


def external_link(file: h5py.File, other: Path) -> None:
    file["a/gallery/images/0"] = h5py.ExternalLink(other, "/x")


def external_subject(file: h5py.File, other: Path) -> None:
    file["a"] = h5py.ExternalLink(other, "/")


def soft_link(file: h5py.File, other: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(other, "/")
    file["a/gallery/images/0"] = h5py.SoftLink("/elsewhere/x")


def external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset("a/gallery/images/0", (1, D), "f4", external=[(str(other), 0, 4 * D)])


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((1, D), "f4")
    layout[:] = h5py.VirtualSource(other, "x", (1, D))
    file.create_virtual_dataset("a/gallery/images/0", layout)


def plugin(file: h5py.File, _: Path) -> None:
    space = h5py.h5s.create_simple((1, D))
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((1, D))
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))  # Zstandard, which HDF5 would look for in its plugin folder
    group = file.create_group("a/gallery/images")
    h5py.h5d.create(group.id, b"0", h5py.h5t.NATIVE_FLOAT, space, plan)


def nested(file: h5py.File, _: Path) -> None:
    group = file.create_group("a/gallery/loop")
    group["again"] = group


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (external_link, "is a link to elsewhere"),
        (external_subject, "is a link to elsewhere"),
        (soft_link, "is a link to elsewhere"),
        (external_storage, "external storage"),
        (virtual, "is a virtual dataset"),
        (plugin, "packed by a plugin"),
        (nested, "nested too deep"),
    ],
)
def test_nothing_outside_the_file_is_opened(
    tmp_path: Path, plant: Callable[[h5py.File, Path], None], says: str
) -> None:
    other = store(tmp_path / "other.h5", {"x": frames(1)})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plant(file, other)
    with pytest.raises(SourceError, match=says) as caught:
        read(opened(tmp_path / "a.h5"))
    assert str(tmp_path / "a.h5") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 100, 700, 0.5, 0.99])
def test_a_truncated_file_is_an_error_in_one_line(tmp_path: Path, keep: float) -> None:
    path = store(tmp_path / "a.h5", {"a/gallery/video/0": frames(500), "b/gallery/video/0": frames(500)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    with pytest.raises(SourceError, match=r"a\.h5: damaged or not HDF5") as caught:
        read(opened(path))
    assert "\n" not in str(caught.value)


def test_flipped_bytes_never_crash_and_nothing_is_lost(tmp_path: Path) -> None:
    whole = store(tmp_path / "a.h5", {"a/gallery/video/0": frames(2)}).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(150):
        spoilt = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            spoilt[place] = random.integers(256)
        (tmp_path / "b.h5").write_bytes(spoilt)
        with suppress(SourceError), opened(tmp_path / "b.h5") as source:
            planned = sum(one.features for one in source.shards(10))
            assert sum(one.read for one in read(source)) == planned


def test_synthetic_files_and_their_damage_are_accounted_for(tmp_path: Path) -> None:
    people = synthetic.Population(subjects=20, dimension=16, features_per_subject=5)
    synthetic.write_hdf5(tmp_path, people, damage=3)
    with Hdf5Source(tmp_path, extractor=None, name="legacy") as source:
        batches = [one for s in source.shards(50) for one in source.read(s.range, dimension=16, features=20)]
        assert source.extractor == people.extractor
    assert sum(len(one.features.features) for one in batches) == people.counts.sum()
    assert Counter(reject.reason for one in batches for reject in one.rejects) == {
        Reason.NON_FINITE: 6, Reason.ZERO_NORM: 3, Reason.WRONG_DIMENSION: 3, Reason.EMPTY: 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [{}, {"userblock_size": 1024}, {"chunks": (2, D)}, {"chunks": (2, D), "compression": "gzip"}, {"dtype": ">f4"}],
)
def test_small_sets_are_gathered_wherever_their_values_lie(tmp_path: Path, options: dict[str, Any]) -> None:
    people = {name: [frames(n, n) for n in (3, 1, 4)] for name in "abc"}
    people["b"][2][1, 0] = np.nan
    of_set = {key: options[key] for key in options.keys() - {"userblock_size"}}
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=options.get("userblock_size", 0)) as file:
        for name, media in people.items():
            for number, features in enumerate(media):
                chunked = of_set if len(features) > 1 else {}
                file.create_dataset(f"{name}/gallery/video/{number}", data=features, **chunked)
    with opened(tmp_path / "a.h5") as source:
        assert len(list(source.chunks_of(source.subjects))) == 1
        (batch,) = read(source)
    kept = [features[~np.isnan(features).any(axis=1)] for media in people.values() for features in media]
    np.testing.assert_array_equal(batch.features.features, np.concatenate(kept))
    assert batch.features.media_offsets.tolist() == [0, *np.cumsum([len(features) for features in kept])]
    assert [(one.subject, one.medium, one.row) for one in batch.rejects] == [("b", "video/2", "gallery/video/2[1]")]


def test_sets_of_two_dimensions_are_not_gathered_into_one(tmp_path: Path) -> None:
    content = {f"a/gallery/video/{n}": np.ones((2, D + n % 2), np.float32) for n in range(4)}
    with opened(store(tmp_path / "a.h5", content)) as source:
        (batch,) = read(source)
    assert batch.features.media_ids == ["video/0", "video/2"]
    assert [one.row for one in batch.rejects] == [f"gallery/video/{n}[{row}]" for n in (1, 3) for row in (0, 1)]
