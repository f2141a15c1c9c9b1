"""Packing: what goes into feature files comes out of them, under the same subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore.errors import InputError, SourceError
from pfstore.sources.base import Reason, Reject, SourceBatch
from pfstore.sources.hdf5 import Hdf5Source
from pfstore.sources.keys import storable
from pfstore.sources.pack import listing, pack
from tests.memory import MemorySource, people


def sets(folder: Path) -> dict[str, list[list[Any]]]:
    """Return each subject's media, as sorted lists of features."""
    found = {}
    with Hdf5Source(folder, extractor="x", name="packed") as source:
        for one in source.read({"after": None, "to": None}, dimension=8, features=10**6):
            batch = one.features
            for i, subject in enumerate(batch.subject_ids):
                media = range(batch.subject_offsets[i], batch.subject_offsets[i + 1])
                cuts = batch.media_offsets
                found[subject] = sorted(batch.features[cuts[m] : cuts[m + 1]].tolist() for m in media)
    return found


@pytest.mark.parametrize("single", [False, True])
def test_a_packed_store_reads_back_the_same(tmp_path: Path, single: bool) -> None:
    subjects = people(25)
    reject = Reject("lost", "", "7", Reason.EMPTY, "NULL")
    packed = pack(MemorySource(subjects, [reject], ["lost"]), tmp_path / "p", single_file=single)
    media = [features for one in subjects.values() for features in one.values()]
    assert (packed.files, packed.subjects, packed.media) == (1 if single else 25, 25, len(media))
    assert packed.features == sum(len(features) for features in media)
    assert packed.rejected == packed.subjects_rejected > 0
    assert sets(tmp_path / "p") == {
        name: sorted(features.tolist() for features in one.values()) for name, one in subjects.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_one_frame_is_an_image_and_more_are_a_video(tmp_path: Path) -> None:
    features = np.ones((5, 8), np.float32)
    pack(MemorySource({"a": {"x": features[:1], "y": features, "z": features[:1]}}), tmp_path / "p")
    with h5py.File(tmp_path / "p/features_a.hdf5") as file:
        assert {kind: list(group) for kind, group in file["a/gallery"].items()} == {
            "images": ["0", "1"],
            "video": ["0"],
        }
    (row,) = listing(tmp_path / "p")
    assert (row.subject, row.media, row.frames, row.probes, row.dimension, row.dtype) == ("a", 3, 7, 0, 8, "float32")


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_key_survives(tmp_path_factory: pytest.TempPathFactory, keys: list[str]) -> None:
    check_keys(tmp_path_factory.mktemp("keys") / "p", keys)


def test_keys_that_mean_something_to_files_survive(tmp_path: Path) -> None:
    keys = [
        "..",
        ".",
        "/etc/passwd",
        "../x",
        "a/b",
        "a%2Fb",
        "%",
        "A",
        "a",
        "x" * 400,
        "x" * 401,
        "\0",
        " ",
        "é/ü",
        "CON",
    ]
    check_keys(tmp_path / "p", keys)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert all(path.parent == tmp_path / "p" for path in tmp_path.rglob("*.hdf5"))


def check_keys(folder: Path, keys: list[str]) -> None:
    subjects = {key: {"m": np.full((1, 8), 1 + i, np.float32)} for i, key in enumerate(keys)}
    pack(MemorySource(subjects), folder)
    assert sets(folder) == {storable(key): [media["m"].tolist()] for key, media in subjects.items()}


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="holds something already"):
        pack(MemorySource(people(2)), tmp_path)
    with pytest.raises(InputError, match="holds something already"):
        pack(MemorySource(people(2)), tmp_path / "mine.txt")
    (tmp_path / "empty").mkdir()
    assert pack(MemorySource(people(2)), tmp_path / "empty").subjects == 2


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    left = iter([None, None])

    def fail() -> None:
        if next(left, 0) == 0:
            raise SourceError("gone")

    with pytest.raises(SourceError, match="gone"):
        pack(MemorySource(people(20), reading=fail), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/p: cannot be written: Not a directory"):
        pack(MemorySource(people(2)), tmp_path / "file/p")


def test_a_source_without_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing to pack"):
        pack(MemorySource({}), tmp_path / "p")


def test_the_list_shows_probes_and_mixed_dimensions(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["b/probe_0"] = np.ones((2, 4))
        file["a/gallery/images/0"] = np.ones((1, 4), np.float16)
        file["a/gallery/video/0"] = np.ones((3, 5), np.float32)
        file["a/probe_0"] = np.ones((3, 5), np.float32)
    first, second = listing(tmp_path / "x.h5")
    assert (first.subject, first.media, first.frames, first.probes, first.dimension) == ("a", 2, 4, 1, None)
    assert (first.dtype, second.frames, second.probes, second.dimension) == ("float16, float32", 0, 1, 4)


def test_a_batch_without_usable_subjects_is_packed_as_nothing(tmp_path: Path) -> None:
    class Lossy(MemorySource):
        def read(self, *args: Any, **kwargs: Any) -> Any:
            for one in super().read(*args, **kwargs):
                yield one
                yield SourceBatch(one.features.select(np.zeros(len(one.features.subject_ids), bool)))

    assert pack(Lossy(people(4)), tmp_path / "p", single_file=True).subjects == 4
