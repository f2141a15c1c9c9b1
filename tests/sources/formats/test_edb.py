"""NIST FRTE's enrolment database and its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.errors import ConfigError, SourceError
from pfstore.sources.base import Reason
from pfstore.sources.encodings import parse_encoding
from pfstore.sources.formats.edb import EdbSource
from tests.sources.formats.reading import at_most, by_medium, numbers, read, rejects


def written(folder: Path, manifest: str, content: bytes | None = None) -> Path:
    """Write templates of 4 floats after 2 bytes each, 18 bytes in all."""
    whole = b"".join(b"v1" + row.tobytes() for row in numbers(4))
    (folder / "edb").write_bytes(whole if content is None else content)
    (folder / "manifest").write_text(manifest)
    return folder / "edb"


def opened(path: Path, encoding: str = "float32-le@2", **given: Any) -> EdbSource:
    return EdbSource(path, encoding=parse_encoding(encoding), extractor="test", name="legacy", **given)


def test_templates_are_found_by_the_manifest(tmp_path: Path) -> None:
    path = written(tmp_path, "a 18 0\nb 18 36\n\na 18 18\nc 18 54\n")
    source, rows = opened(path), numbers(4).tolist()
    assert not source.has_media
    assert source.subjects == ["a", "b", "c"]
    assert [source.count(subject) for subject in source.subjects] == [2, 1, 1]
    for shard in (1, 10**6):
        found = by_medium(read(source, shard=shard))
        assert found == {("a", ""): rows[:2], ("b", ""): [rows[2]], ("c", ""): [rows[3]]}


def test_a_template_of_no_bytes_is_a_row(tmp_path: Path) -> None:
    batches = read(opened(written(tmp_path, "a 18 0\nb 0 18\na 0 18\n")))
    assert {(one.subject, one.row, one.reason, one.detail) for one in rejects(batches)} == {
        ("b", "2", Reason.EMPTY, "a template of 0 bytes"), ("a", "3", Reason.EMPTY, "a template of 0 bytes"),
    }  # fmt: skip
    assert [one.rejected_subjects for one in batches] == [["b"]]
    assert sum(one.read for one in batches) == 3


def test_an_edb_of_empty_templates_alone_is_read(tmp_path: Path) -> None:
    batches = read(opened(written(tmp_path, "a 0 0\nb 0 0\n", b"")))
    assert [one.reason for one in rejects(batches)] == [Reason.EMPTY] * 2


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("x 18 55", "size 18, offset 55: not within the file's 72 bytes"),
        ("x 18 4000000000000000000", "size 18, offset 4000000000000000000: not within the file's 72 bytes"),
        ("x 18 -1", "size 18, offset -1: not within"),
        (f"x {2**62 - 1} {2**62 - 1}", "offset 4611686018427387903: not within"),
        ("x -18 36", "size -18, offset 36: not within"),
        ("x 17 36", "15 bytes are no multiple of 4"),
        ("x 1 36", "1 bytes, shorter than its offset of 2"),
        ("x 2 36", "no values"),
    ],
)
def test_a_template_that_is_not_there_is_rejected(tmp_path: Path, line: str, detail: str) -> None:
    batches = read(opened(written(tmp_path, f"a 18 0\n{line}\nb 18 18\n")))
    (one,) = rejects(batches)
    assert (one.subject, one.row) == ("x", "2")
    assert detail in one.detail
    assert list(by_medium(batches)) == [("a", ""), ("b", "")]


def test_of_two_templates_in_one_place_none_is_taken(tmp_path: Path) -> None:
    batches = read(opened(written(tmp_path, "a 18 0\nb 18 35\nc 18 18\nd 18 54\n")))
    assert {(one.subject, one.detail) for one in rejects(batches)} == {
        ("b", "size 18, offset 35: overlaps with another template"),
        ("c", "size 18, offset 18: overlaps with another template"),
    }
    assert list(by_medium(batches)) == [("a", ""), ("d", "")]


@pytest.mark.parametrize(
    "line", ["x 18", "x 18 0 0", "x 18 zero", "x 1.5 0", f"x 18 {10**30}", f"x 18 {2**62}", "18 0"]
)
def test_another_line_is_an_error_with_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(SourceError, match=r'manifest:2: ".*|manifest:2: .* is not of the form "id size offset"'):
        opened(written(tmp_path, f"a 18 0\n{line}\n"))


def test_the_manifest_is_looked_for_beside_the_edb(tmp_path: Path) -> None:
    path = written(tmp_path, "a 18 0\n")
    (tmp_path / "manifest").rename(tmp_path / "other")
    with pytest.raises(ConfigError, match="set index"):
        opened(path)
    assert opened(path, index=tmp_path / "other").subjects == ["a"]
    with pytest.raises(SourceError, match="no such file"):
        opened(path, index=tmp_path / "another")
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path / "none", index=tmp_path / "other")
    with pytest.raises(SourceError, match="cannot be read"):
        opened(path, index=tmp_path / "x\0")
    with pytest.raises(ConfigError, match="set extractor"):
        EdbSource(path, encoding=parse_encoding("float32-le"), extractor=None, name="legacy")


def test_a_mark_of_the_encoding_is_no_part_of_an_id(tmp_path: Path) -> None:
    assert opened(written(tmp_path, "\ufeffa 18 0\n")).subjects == ["a"]


def test_a_large_file_is_never_read_whole(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    with path.open("r+b") as file:
        file.truncate(2**33)
    (tmp_path / "manifest").write_text(f"a 18 0\nhuge {2**32} 100\nb 18 {2**33 - 18}\n")
    with at_most(1):
        batches = read(opened(path))
    assert [(one.subject, one.reason) for one in rejects(batches)] == [
        ("b", Reason.ZERO_NORM), ("huge", Reason.UNDECODABLE),
    ]  # fmt: skip


def test_many_templates_are_read_in_slices(tmp_path: Path) -> None:
    count = 3000
    manifest = "".join(f"{i % 2} 4096 {4096 * i}\n" for i in range(count))
    content = np.arange(count, dtype=np.float32).repeat(1024) + 1
    path = written(tmp_path, manifest, content.tobytes())
    source = opened(path, "float32-le")
    chunks = [chunk for subject in source.subjects for chunk in source.chunks(subject)]
    assert max(len(chunk.rows) for chunk in chunks) == 1024
    assert sum(len(chunk.rows) for chunk in chunks) == count
    batches = read(source, dimension=1024)
    firsts = [row[0] for rows in by_medium(batches).values() for row in rows]
    assert firsts == [*range(1, count, 2), *range(2, count + 1, 2)]
