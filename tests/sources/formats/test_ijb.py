"""IJB-style features: an npy file in the order of a text, and the subjects of its templates."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.errors import ConfigError, SourceError
from pfstore.sources.base import Reason
from pfstore.sources.formats.ijb import IjbSource
from tests.sources.formats.reading import by_medium, numbers, read, rejects

LINES = "1.jpg 10 7\n2.jpg 11 7\n3.jpg 10 8\n4.jpg 10 7\n5.jpg 12 7\n"


def written(folder: Path, lines: str = LINES, rows: int = 5) -> Path:
    np.save(folder / "x.npy", numbers(rows))
    (folder / "ijbx_face_tid_mid.txt").write_text(lines)
    return folder / "x.npy"


def opened(path: Path, **given: Any) -> IjbSource:
    return IjbSource(path, extractor="test", name="legacy", **given)


def test_a_subject_is_a_template_and_its_media_are_put_together(tmp_path: Path) -> None:
    source, rows = opened(written(tmp_path)), numbers(5).tolist()
    assert source.has_media
    assert source.subjects == ["10", "11", "12"]
    assert [source.count(subject) for subject in source.subjects] == [3, 1, 1]
    expected = {
        ("10", "7"): [rows[0], rows[3]], ("10", "8"): [rows[2]], ("11", "7"): [rows[1]], ("12", "7"): [rows[4]],
    }  # fmt: skip
    for shard in (1, 10**6):
        batches = read(source, shard=shard)
        assert by_medium(batches) == expected
        assert not any(batch.excluded for batch in batches)


@pytest.mark.parametrize("header", ["", "TEMPLATE_ID,SUBJECT_ID,FILENAME\n"])
def test_a_csv_gives_the_subjects_and_leaves_out_the_others(tmp_path: Path, header: str) -> None:
    path, csv = written(tmp_path), tmp_path / "gallery.csv"
    csv.write_text(header + '10,anna,"img/1,2.png"\n10,anna,img/3.png\n11,anna,img/2.png\n99,bert,img/9.png\n\n')
    source, rows = opened(path, subjects=csv), numbers(5).tolist()
    # Two templates of a subject may show the same medium.
    assert by_medium(read(source)) == {("anna", "7"): [rows[0], rows[1], rows[3]], ("anna", "8"): [rows[2]]}
    assert source.excluded == {"template not in gallery.csv": 1}
    for shard in (1, 10**6):
        counted = [dict(batch.excluded) for batch in read(source, shard=shard) if batch.excluded]
        assert counted == [source.excluded]
    assert source.sample().excluded == source.excluded


def test_a_row_is_named_by_its_image(tmp_path: Path) -> None:
    path = written(tmp_path)
    features = numbers(5)
    features[3], features[1, 2] = 0, np.nan
    np.save(path, features)
    found = {(one.subject, one.medium, one.row, one.reason) for one in rejects(read(opened(path)))}
    assert found == {("10", "7", "4.jpg", Reason.ZERO_NORM), ("11", "7", "2.jpg", Reason.NON_FINITE)}


def test_a_template_without_subject_in_the_csv_is_rejected(tmp_path: Path) -> None:
    path, csv = written(tmp_path), tmp_path / "gallery.csv"
    csv.write_text("10,anna\n11,\n")
    batches = read(opened(path, subjects=csv))
    assert [(one.subject, one.row, one.reason) for one in rejects(batches)] == [(None, "2.jpg", Reason.NO_SUBJECT)]


def test_the_text_is_looked_for_beside_the_features(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "second_face_tid_mid.txt").write_text(LINES)
    with pytest.raises(ConfigError, match=r"2 files \*_face_tid_mid.txt; set index"):
        opened(path)
    assert opened(path, index=tmp_path / "second_face_tid_mid.txt").count("10") == 3
    for text in tmp_path.glob("*.txt"):
        text.unlink()
    with pytest.raises(ConfigError, match=r"no \*_face_tid_mid.txt; set index"):
        opened(path)
    with pytest.raises(ConfigError, match="set extractor"):
        IjbSource(path, extractor=None, name="legacy")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("1.jpg 10\n" * 5, r"mid\.txt:1: '1\.jpg 10' is not of the form"),
        (LINES.replace("3.jpg", "3 .jpg"), r"mid\.txt:3: '3 \.jpg 10 8' is not"),
        (LINES.replace("2.jpg 11 7", ""), r"mid\.txt:2: '' is not of the form"),
        (LINES + "6.jpg 1 1\n", r"x\.npy: the shape is \[5, 4\], but .*mid\.txt has 6 lines"),
        ("", r"but .*mid\.txt has 0 lines"),
    ],
)
def test_what_does_not_fit_is_an_error_in_one_line(tmp_path: Path, lines: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        opened(written(tmp_path, lines))


@pytest.mark.parametrize(
    ("csv", "says"),
    [
        ("10,anna\n10,bert\n", r"s\.csv:2: template '10' is of two subjects, 'anna' and 'bert'"),
        ("10\n", r"s\.csv:1: '10' is not of the form"),
        ("100,anna\n", r"s\.csv: names none of the templates, not even '10'"),
        (f"10,{'x' * 200_000}\n", r"s\.csv:1: '10,x+' is not of the form"),
        ("\ud800", r"s\.csv: not a text"),
    ],
)
def test_a_csv_that_does_not_fit_is_an_error_in_one_line(tmp_path: Path, csv: str, says: str) -> None:
    (tmp_path / "s.csv").write_text(csv, errors="surrogatepass")
    with pytest.raises(SourceError, match=says):
        opened(written(tmp_path), subjects=tmp_path / "s.csv")
    with pytest.raises(SourceError, match="no such file"):
        opened(written(tmp_path), subjects=tmp_path / "t.csv")
    with pytest.raises(SourceError, match="not a text"):
        opened(written(tmp_path), subjects=tmp_path / "t\0")


def test_a_benchmark_of_the_size_of_ijb_c_opens_at_once(tmp_path: Path) -> None:
    rows = 469_375
    np.save(tmp_path / "x.npy", np.ones((rows, 1), np.float16))
    lines = "".join(f"{row}.jpg {row % 23_124} {row % 11_779}\n" for row in range(rows))
    (tmp_path / "ijbc_face_tid_mid.txt").write_text(lines)
    started = time.process_time()
    source = opened(tmp_path / "x.npy")
    assert time.process_time() - started < 8, "about one second is usual"
    assert sum(map(source.count, source.subjects)) == rows
