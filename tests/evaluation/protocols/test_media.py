"""Features by medium: found by the names that protocols use, in every kind of file, and nothing taken for another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.errors import InputError, SourceError
from pfstore.evaluation.protocols.media import MediaFeatures, open_media
from pfstore.evaluation.protocols.samples import ChunkedSamples
from tests.evaluation.protocols.reading import collected, store
from tests.sources.formats.reading import DATA, numbers

ROWS = numbers(3)
FRAME = DATA / "pandas-2.2.3-protocol5.pkl"


def put(folder: Path, name: str, value: Any = ROWS) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".pkl", ".pickle"):
        shutil.copy(FRAME, path)
    elif path.suffix in (".h5", ".hdf5"):
        store(path, {"features": value})
    else:
        np.save(path, value)


def rows_of(media: MediaFeatures, key: str) -> Any:
    found = collected(ChunkedSamples(lambda _: "x", lambda: media.chunks(key, "s", "m"), 4))
    return found.media["s"]["m"] if found.media else found.failures["s"]


def test_every_kind_of_file_gives_its_rows(tmp_path: Path) -> None:
    for name in ("a/1.npy", "a/2.pkl", "b/3.pickle", "b/c/4.h5", "5.mp4.hdf5"):
        put(tmp_path, name)
    (tmp_path / "a/notes.txt").write_text("no features")
    media = open_media(tmp_path)
    assert media.keys == ["5.mp4", "a/1", "a/2", "b/3", "b/c/4"]
    assert [rows_of(media, key) for key in media.keys] == [ROWS.tolist()] * 5


def test_datasets_of_one_file_are_media(tmp_path: Path) -> None:
    media = open_media(store(tmp_path / "all.h5", {"x/a.mp4": ROWS, "x/b": ROWS[:1], "c": ROWS[0]}))
    assert media.keys == ["c", "x/a.mp4", "x/b"]
    assert rows_of(media, "x/a.mp4") == ROWS.tolist()
    assert rows_of(media, "c") == ROWS[:1].tolist()
    assert media.find("x/b.mov") == "x/b"


def test_a_medium_is_found_by_its_own_file_s_name(tmp_path: Path) -> None:
    for name in ("a/v.mp4.npy", "a/w.npy", "a.b/plain.npy"):
        put(tmp_path, name)
    media = open_media(tmp_path)
    assert media.find("a/v.mp4") == media.find("/a/v.mp4") == media.find(" ./a/v.mp4 ") == "a/v.mp4"
    assert media.find("a/w.mp4") == media.find("a/w") == "a/w"
    assert media.find("a.b/plain") == "a.b/plain"
    assert media.find("a/x", "a/w") == "a/w"
    for unknown in ("a/v", "w", "../a/w", "", "a", "A/w"):
        assert media.find(unknown) is None


@pytest.mark.parametrize("value", [np.empty((0, 4), np.float32), np.empty(0), np.empty((3, 0), np.float32)])
@pytest.mark.parametrize("name", ["x.npy", "x.h5"])
def test_a_file_without_a_row_is_empty(tmp_path: Path, name: str, value: Any) -> None:
    put(tmp_path, name, value)
    assert rows_of(open_media(tmp_path), "x") == ("x", "empty (no feature)")


@pytest.mark.parametrize("name", ["x.npy", "x.pkl", "x.h5"])
def test_a_file_without_a_byte_is_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert rows_of(open_media(tmp_path), "x") == ("x", "empty (an empty file)")


@pytest.mark.parametrize("name", ["x.npy", "x.pkl", "x.h5"])
def test_a_damaged_file_is_no_failure_to_acquire(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises((InputError, SourceError), match=rf"{name}: .*"):
        rows_of(open_media(tmp_path), "x")


def test_a_pickle_that_would_run_is_not_run(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match=r"x.pkl: the pickle asks for 'posix.mkdir'"):
        rows_of(open_media(tmp_path), "x")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x.npy", "x.pkl"], r"x\.(npy|pkl) and x\.(npy|pkl) are both of 'x'; remove one"),
        ([], "holds no features"),
    ],
)
def test_a_folder_that_cannot_be_told_apart_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        put(tmp_path, name)
    with pytest.raises(InputError, match=message):
        open_media(tmp_path)


def test_a_path_that_is_nothing_of_the_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_media(tmp_path / "x")
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(InputError, match="ends in .hdf5 or .h5"):
        open_media(tmp_path / "x.csv")
    store(tmp_path / "two.h5", {})
    with pytest.raises(InputError, match="holds no dataset"):
        open_media(tmp_path / "two.h5")


def test_a_file_of_one_medium_has_one_dataset(tmp_path: Path) -> None:
    store(tmp_path / "m/x.h5", {"a": ROWS, "b": ROWS})
    with pytest.raises(InputError, match="one dataset; this file has 2"):
        rows_of(open_media(tmp_path / "m"), "x")
