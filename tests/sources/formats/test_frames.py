"""Folders of pickled frames, one for each medium."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from pfstore.errors import ConfigError, SourceError
from pfstore.sources.base import Reason
from pfstore.sources.formats.frames import FramesSource
from tests.sources.formats.reading import DATA, at_most, by_medium, numbers, read, rejects

FRAME = DATA / "pandas-2.2.3-protocol5.pkl"
ROWS = numbers(3).tolist()


def put(folder: Path, *names: str, frame: Path = FRAME) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(frame, folder / name)


def opened(path: Path, pattern: str | None = None) -> FramesSource:
    return FramesSource(path, extractor="test", name="legacy", subject_pattern=pattern)


def test_a_file_is_a_medium_and_the_first_folder_its_subject(tmp_path: Path) -> None:
    put(tmp_path, "G1/field/b.pkl", "G1/a.mp4.pickle", "G2/a.pkl")
    (tmp_path / "G2/notes.txt").write_text("no pickle")
    source = opened(tmp_path)
    assert source.has_media
    assert source.subjects == ["G1", "G2"]
    for shard in (1, 10**6):
        assert by_medium(read(source, shard=shard)) == {
            ("G1", "G1/a.mp4"): ROWS, ("G1", "G1/field/b"): ROWS, ("G2", "G2/a"): ROWS,
        }  # fmt: skip


@pytest.mark.parametrize("frame", sorted(DATA.glob("pandas-*.pkl")), ids=lambda path: path.stem)
def test_frames_of_every_pandas_are_read(tmp_path: Path, frame: Path) -> None:
    put(tmp_path, "G1/a.pkl", frame=frame)
    assert by_medium(read(opened(tmp_path))) == {("G1", "G1/a"): ROWS}


def test_a_pattern_finds_the_subject_and_the_others_are_nobody_s(tmp_path: Path) -> None:
    put(tmp_path, "set1/G00123_x.pkl", "set2/G00123_y.pkl", "set1/distractor.pkl")
    source = opened(tmp_path, r"(G\d{5})")
    assert source.subjects == ["G00123"]
    for shard in (1, 10**6):
        batches = read(source, shard=shard)
        assert by_medium(batches) == {("G00123", "set1/G00123_x"): ROWS, ("G00123", "set2/G00123_y"): ROWS}
        assert {(one.subject, one.row, one.reason) for one in rejects(batches)} == {
            (None, f"set1/distractor.pkl[{row}]", Reason.NO_SUBJECT) for row in range(3)
        }
        assert sum(one.read for one in batches) == 9
    assert source.sample().read == 9


def test_a_file_right_in_the_folder_has_no_subject(tmp_path: Path) -> None:
    put(tmp_path, "a.pkl")
    assert [one.reason for one in rejects(read(opened(tmp_path)))] == [Reason.NO_SUBJECT] * 3


def test_the_number_of_rows_is_told_without_reading_all(tmp_path: Path) -> None:
    put(tmp_path, *(f"G1/{i}.pkl" for i in range(5)), "G2/a.pkl")
    source = opened(tmp_path)
    assert (source.count("G1"), source.count("G2")) == (15, 3)
    (tmp_path / "G1/4.pkl").write_bytes(b"damaged")
    assert source.count("G1") == 13


def test_a_file_that_is_no_frame_is_one_row(tmp_path: Path) -> None:
    target = tmp_path / "made"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {target}",)

    put(tmp_path, "G1/good.pkl")
    files = {
        "code": pickle.dumps({"feature": Payload()}),
        "list": pickle.dumps([1.0]),
        "cut": FRAME.read_bytes()[:900],
        "text": b"not a pickle",
        "other": FRAME.read_bytes().replace(b"feature", b"FEATURE"),
        "empty": b"",
    }
    for name, content in files.items():
        (tmp_path / f"G1/{name}.pkl").write_bytes(content)
    batches = read(opened(tmp_path))
    assert by_medium(batches) == {("G1", "G1/good"): ROWS}
    found = {one.medium: one for one in rejects(batches)}
    assert {one.reason for one in found.values()} == {Reason.UNDECODABLE}
    details = {medium.removeprefix("G1/"): one.detail for medium, one in found.items()}
    assert details["code"] == f"the pickle asks for '{os.system.__module__}.system'"
    assert details["list"] == "the pickle is a list instead of a pandas DataFrame"
    assert details["other"].startswith("the pickle has no column 'feature'; it has 'frame', 'FEATURE'")
    assert details.keys() == files.keys()
    assert not target.exists()


def test_values_that_are_no_feature_are_rejected_one_by_one(tmp_path: Path) -> None:
    # The column of notes takes the name of the features'.
    frame = FRAME.read_bytes().replace(b"feature", b"features").replace(b"\x8c\x07features", b"\x8c\x08features")
    frame = frame.replace(b"\x8c\x04note", b"\x8c\x07feature")
    put(tmp_path, "G1/a.pkl")
    (tmp_path / "G1/a.pkl").write_bytes(unframed(frame))
    found = {(one.row, one.reason, one.detail) for one in rejects(read(opened(tmp_path)))}
    assert found == {
        ("G1/a.pkl[0]", Reason.EMPTY, "None"),
        ("G1/a.pkl[1]", Reason.UNDECODABLE, "a pickled str instead of numbers"),
        ("G1/a.pkl[2]", Reason.UNDECODABLE, "a pickled int instead of numbers"),
    }


def unframed(data: bytes) -> bytes:
    """Return a pickle of protocol 5 without the length of its only frame, which changed."""
    assert data[2] == 0x95
    return data[:2] + data[11:]


def test_one_value_many_times_is_not_unpacked(tmp_path: Path) -> None:
    # 16,000 numbers once, and a column that holds them 100,000 times: 6 GB of features.
    listed = b"](" + b"".join(b"M" + bytes([1, i % 256]) for i in range(16_000)) + b"eq\x01"
    made, objects = b"cnumpy._core.multiarray\n_reconstruct\n)R(K\x01", b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R\x89"
    column = made + b"K\x01J\xa0\x86\x01\x00\x86" + objects + b"](" + listed + b"h\x01" * 99_999 + b"etb"
    labels = made + b"K\x01\x85" + objects + b"]X\x07\x00\x00\x00featureatb"
    block = b"cpandas._libs.internals\n_unpickle_block\n(" + column + b"cbuiltins\nslice\nK\x00K\x01K\x01\x87RtR"
    manager = b"cpandas\nBlockManager\n" + block + b"\x85](" + labels + b"e\x86R"
    (tmp_path / "G1").mkdir()
    (tmp_path / "G1/a.pkl").write_bytes(b"cpandas\nDataFrame\n)R}X\x04\x00\x00\x00_mgr" + manager + b"sb.")
    with at_most(32):
        (one,) = rejects(read(opened(tmp_path), dimension=16_000))
    assert one.detail.startswith("the pickle has 248,")


def test_links_to_files_are_read_and_links_to_folders_are_not(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "b.pkl")
    (tmp_path / "frames/G1").mkdir(parents=True)
    (tmp_path / "frames/G1/a.pkl").symlink_to(tmp_path / "elsewhere/b.pkl")
    (tmp_path / "frames/G2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "frames/G3").symlink_to(tmp_path / "frames")
    assert by_medium(read(opened(tmp_path / "frames"))) == {("G1", "G1/a"): ROWS}


def test_a_link_to_nothing_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "G1/a.pkl")
    for name, target in (("b.pkl", tmp_path / "none"), ("c.pkl", tmp_path / "G1/c.pkl")):
        (tmp_path / "G1" / name).symlink_to(target)
        with pytest.raises(SourceError, match=rf"{name}: (no such file|cannot be read)"):
            read(opened(tmp_path))
        (tmp_path / "G1" / name).unlink()


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "G1/a.pkl")
    folder = os.open(tmp_path / "G1", os.O_RDONLY)
    for _ in range(20):  # to a path that is longer than any may be
        os.mkdir("x" * 250, dir_fd=folder)
        inner = os.open("x" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    with pytest.raises(SourceError, match="cannot be read: .* too long"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "x\0"])
def test_a_path_that_cannot_be_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        opened(tmp_path / name)


def test_folders_without_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no \*\.pkl or \*\.pickle, at any depth"):
        opened(tmp_path)
    with pytest.raises(SourceError, match="no such folder"):
        opened(tmp_path / "none")
    put(tmp_path, "G1/a.pkl")
    with pytest.raises(ConfigError, match="set extractor"):
        FramesSource(tmp_path, extractor=None, name="legacy")
    with pytest.raises(ConfigError, match="has no group"):
        opened(tmp_path, r"G\d+")
    source = opened(tmp_path)
    (tmp_path / "G1/a.pkl").unlink()
    with pytest.raises(SourceError, match="no such file"):
        read(source)
