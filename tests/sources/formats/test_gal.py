"""OpenBR's binary galleries."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.errors import ConfigError, SourceError
from pfstore.sources.base import Reason
from pfstore.sources.formats.gal import GalSource
from tests.sources.formats.reading import DATA, at_most, by_medium, numbers, read, rejects

FEATURES = numbers(9)
DEPTHS = {"uint8": 0, "float32": 5, "float64": 6}


def opened(path: Path, pattern: str | None = None) -> GalSource:
    return GalSource(path, extractor="test", name="legacy", subject_pattern=pattern)


def qstring(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return struct.pack(">I", len(data)) + data


def qvariant(value: Any) -> bytes:
    if value is None:
        return struct.pack(">IB", 0, 1)
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return struct.pack(">IB", 10, 0) + qstring(value)
    kind, layout = {bool: (1, ">?"), int: (2, ">i"), float: (6, ">d")}[type(value)]
    return struct.pack(">IB", kind, 0) + struct.pack(layout, value)


def user(kind: int, name: str, data: bytes = b"") -> bytes:
    return struct.pack(">IBI", kind, 0, len(name) + 1) + name.encode() + b"\0" + data


def matrix(array: np.ndarray[Any, Any], channels: int = 1) -> bytes:
    rows, columns = array.shape[0], array.shape[1] // channels
    kind = DEPTHS[str(array.dtype)] + 8 * (channels - 1)
    return struct.pack(">iiii", rows, columns, kind, array.nbytes) + array.tobytes()


def template(*arrays: Any, name: str = "x/1.jpg", **metadata: Any) -> bytes:
    matrices = [one if isinstance(one, bytes) else matrix(np.atleast_2d(one)) for one in arrays]
    return struct.pack(">I", len(matrices)) + b"".join(matrices) + qstring(name) + qmap({"FTE": False} | metadata)


def qmap(metadata: Mapping[str, Any]) -> bytes:
    parts = [qstring(key) + qvariant(value) for key, value in metadata.items()]
    return struct.pack(">I", len(parts)) + b"".join(parts)


def written(folder: Path, *templates: bytes) -> Path:
    (folder / "x.gal").write_bytes(b"".join(templates))
    return folder / "x.gal"


@pytest.mark.parametrize("name", ["qt5.gal", "qt6.gal"])
def test_what_qt_wrote_is_read(name: str) -> None:
    source = opened(DATA / name)
    assert source.has_media
    assert source.subjects == ["7", "anna"]
    batches = read(source)
    assert by_medium(batches) == {("anna", "anna/1.jpg"): FEATURES[:2].tolist()}
    (reject,) = rejects(batches)
    assert (reject.subject, reject.medium, reject.row) == ("7", "bert/1.jpg", "1[0]")
    assert (reject.reason, reject.detail) == (Reason.EMPTY, "failure to enrol (FTE)")
    assert opened(DATA / name, r"(\w+)/").subjects == ["anna", "bert"]


def test_a_template_may_have_several_matrices_and_a_file_several_templates(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        template(FEATURES[0], FEATURES[1].astype(np.float64), name="b.jpg", Label="anna"),
        template(FEATURES[2], name="a.jpg", Label="anna"),
        template(FEATURES[3], name="c.jpg", Label=3),
        template(FEATURES[4][:, np.newaxis], name="b.jpg", Label="anna"),
    )
    rows = FEATURES.tolist()
    assert by_medium(read(opened(path), shard=1)) == {
        ("anna", "a.jpg"): [rows[2]], ("anna", "b.jpg"): [rows[0], rows[1], rows[4]], ("3", "c.jpg"): [rows[3]],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "subject"),
    [
        ({"Label": "a", "Subject": "b", "Name": "c"}, "a"),
        ({"Subject": "b", "Name": "c"}, "b"),
        ({"Label": None, "Name": "c"}, "c"),
        ({"Label": 5.0}, "5"),
        ({"Label": 5.5}, "5.5"),
        ({"Label": -1}, None),
        ({"Label": ""}, None),
        ({}, None),
    ],
)
def test_the_metadata_tell_the_subject(tmp_path: Path, metadata: dict[str, Any], subject: str | None) -> None:
    source = opened(written(tmp_path, template(FEATURES[0], **metadata)))
    assert source.subjects == ([subject] if subject else [])
    batches = read(source)
    assert [one.read for one in batches] == [1]
    assert [(one.reason, one.row) for one in rejects(batches)] == ([] if subject else [(Reason.NO_SUBJECT, "0[0]")])


def test_a_pattern_that_finds_nothing_leaves_rows_of_nobody(tmp_path: Path) -> None:
    path = written(
        tmp_path, template(FEATURES[0], name="anna_1.jpg"), *[template(FEATURES[1], name="x.jpg", Label="x")] * 2
    )
    source = opened(path, r"^([a-z]+)_")
    assert source.subjects == ["anna"]
    assert [shard.features for shard in source.shards(1)] == [3]
    batches = read(source)
    assert sum(one.read for one in batches) == 3
    assert [(one.subject, one.medium, one.reason) for one in rejects(batches)] == [
        (None, "x.jpg", Reason.NO_SUBJECT)
    ] * 2
    assert source.sample().read == 3
    with pytest.raises(ConfigError, match="has no group"):
        opened(path, "anna")
    with pytest.raises(ConfigError, match="no regular expression"):
        opened(path, "(")


@pytest.mark.parametrize(
    ("array", "reason", "detail"),
    [
        (matrix(np.ones((1, 4), np.uint8)), Reason.UNDECODABLE, "a matrix of CV_8U instead of CV_32F or CV_64F"),
        (matrix(np.ones((1, 6), np.float32), 3), Reason.UNDECODABLE, "a matrix of CV_32FC3 instead of"),
        (np.ones((2, 4), np.float32), Reason.UNDECODABLE, "a matrix of 2×4 values instead of one feature"),
        (np.ones((1, 16_001), np.float32), Reason.UNDECODABLE, "16001 values, more than 16000"),
        (np.ones((1, 0), np.float32), Reason.EMPTY, "a matrix without values"),
        (struct.pack(">iiii", 1, 4, 7, 8) + bytes(8), Reason.UNDECODABLE, "a matrix of CV_16F"),
    ],
)
def test_another_matrix_is_rejected(tmp_path: Path, array: Any, reason: Reason, detail: str) -> None:
    batches = read(opened(written(tmp_path, template(FEATURES[0], array, FEATURES[1], Label="a"))))
    (one,) = rejects(batches)
    assert (one.row, one.reason) == ("0[1]", reason)
    assert one.detail.startswith(detail)
    assert by_medium(batches) == {("a", "x/1.jpg"): FEATURES[:2].tolist()}


@pytest.mark.parametrize("flag", [True, 1, "true", None])
def test_a_failure_to_enrol_is_empty(tmp_path: Path, flag: Any) -> None:
    path = written(tmp_path, template(Label="a", FTE=flag), template(*FEATURES[:2], Label="b", FTE=flag))
    found = rejects(read(opened(path)))
    assert [(one.subject, one.row) for one in found] == [("a", "0[0]"), ("b", "1[0]"), ("b", "1[1]")]
    assert {(one.reason, one.detail) for one in found} == {(Reason.EMPTY, "failure to enrol (FTE)")}


def test_a_template_without_a_matrix_is_empty(tmp_path: Path) -> None:
    (one,) = rejects(read(opened(written(tmp_path, template(Label="a", FTE="false")))))
    assert (one.reason, one.detail) == (Reason.EMPTY, "a template without a matrix")


@pytest.mark.parametrize(
    "value",
    [
        user(1024, "cv::RotatedRect"),
        user(127, "cv::Mat"),
        user(1024, "cv::Mat"),
        user(65536, "cv::Mat", matrix(FEATURES)),
        user(65536, "QList<float>", struct.pack(">Idd", 2, 1, 2)),
        user(65536, "QList<int>", struct.pack(">Iii", 2, 1, 2)),
        struct.pack(">IBI", 0, 1, 0xFFFFFFFF),  # an invalid value of Qt 4
        struct.pack(">IBI", 10, 1, 0xFFFFFFFF),  # a null text
        struct.pack(">IBII", 9, 0, 1, 0) + b"\x01",  # a list of an invalid value
        struct.pack(">IBI", 12, 0, 3) + b"xyz",
        struct.pack(">IBiiii", 19, 0, 1, 2, 3, 4),
    ],
)
def test_values_of_every_type_are_passed_over(tmp_path: Path, value: bytes) -> None:
    path = written(tmp_path, template(FEATURES[0], Before=value, Label="a", Zzz=value), template(Label="b"))
    assert opened(path).subjects == ["a", "b"]


LIST = struct.pack(">IBI", 9, 0, 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (template(FEATURES[0], Label="a")[:-3], "a text of|a value of|a number of"),
        (b"no gallery at all", r"1,852,776,551 matrices at byte 0"),
        (struct.pack(">I", 1) + struct.pack(">iiii", 1, 4, 5, 17), r"a matrix of 1×4 of type 5 in 17 bytes at byte 4"),
        (struct.pack(">I", 1) + struct.pack(">iiii", -1, -4, 5, 16), r"a matrix of -1×-4"),
        (struct.pack(">I", 1) + struct.pack(">iiii", 1, 4, 5, 16) + b"x", r"a matrix of 16 bytes at byte 20, where 1 "),
        (struct.pack(">II", 0, 3) + b"abc", "a text of 3 bytes at byte 4, which UTF-16 cannot have"),
        (template(Label=struct.pack(">IB", 99, 0)), r"a value of Qt's type 99 at byte \d+, which is not read"),
        (template(Label=user(65536, "Some::Type")), r"a value of type 'Some::Type' at byte \d+, which is not read"),
        (template(Label=LIST * 99), "values within values"),
        (template(Label=struct.pack(">IBI", 9, 0, 2**31)), r"2,147,483,648 values at byte"),
        (template(Label=user(65536, "QList<int>", struct.pack(">I", 2**31))), r"2,147,483,648 numbers at byte"),
    ],
)
def test_what_is_no_gallery_is_an_error_with_the_place(tmp_path: Path, content: bytes, says: str) -> None:
    with at_most(1), pytest.raises(SourceError, match=rf"x\.gal: no OpenBR gallery, or cut off: it has ({says})"):
        opened(written(tmp_path, content))


def test_every_cut_and_any_damage_is_a_source_error_or_none(tmp_path: Path) -> None:
    whole = (DATA / "qt6.gal").read_bytes()
    end_of_first = whole.index(struct.pack(">II", 0, len("bert/1.jpg") * 2))
    for cut in set(range(1, len(whole), 5)) - {end_of_first}:
        with pytest.raises(SourceError, match="cut off"):
            opened(written(tmp_path, whole[:cut]))
    generator, read_well = random.Random(5), 0
    for _ in range(500):
        data = bytearray(whole)
        data[generator.randrange(len(data))] = generator.randrange(256)
        with contextlib.suppress(SourceError):
            batches = read(opened(written(tmp_path, bytes(data))))
            read_well += sum(one.read for one in batches) == 3
    assert read_well > 50


def test_an_empty_gallery_and_a_missing_one(tmp_path: Path) -> None:
    assert opened(written(tmp_path)).subjects == []
    assert read(opened(written(tmp_path))) == []
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path / "y.gal")
    with pytest.raises(ConfigError, match="set extractor"):
        GalSource(tmp_path / "x.gal", extractor=None, name="legacy")
