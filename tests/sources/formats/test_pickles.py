"""DeepFace's pickles and those of the tutorials for face_recognition."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.errors import ConfigError, SourceError
from pfstore.sources.base import Reason
from pfstore.sources.formats.pickles import DeepFaceSource, EncodingsSource
from tests.sources.formats.reading import DATA, at_most, by_medium, numbers, read, rejects

NAME = "ds_model_arcface_detector_retinaface_aligned_normalization_base_expand_0.pkl"
ROWS = numbers(4).tolist()


def record(identity: Any, embedding: Any) -> dict[str, Any]:
    box = {"target_x": 1, "target_y": 2, "target_w": 3, "target_h": 4}
    return {"identity": identity, "hash": "ab" * 20, "embedding": embedding} | box


RECORDS = [
    record("db/anna/1.jpg", ROWS[0]),
    record("db/bert/1.jpg", ROWS[1]),
    record("db/anna/2.jpg", None),
    record("db/anna/1.jpg", ROWS[2]),
]


def written(folder: Path, document: Any, name: str = NAME, protocol: int = 5) -> Path:
    (folder / name).write_bytes(pickle.dumps(document, protocol))
    return folder / name


def deepface(path: Path, pattern: str | None = None, extractor: str | None = None) -> DeepFaceSource:
    return DeepFaceSource(path, extractor=extractor, name="legacy", subject_pattern=pattern)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_folder_is_the_subject_and_the_image_the_medium(tmp_path: Path, protocol: int) -> None:
    source = deepface(written(tmp_path, RECORDS, protocol=protocol))
    assert source.has_media
    assert source.subjects == ["anna", "bert"]
    for shard in (1, 10**6):
        batches = read(source, shard=shard)
        assert by_medium(batches) == {
            ("anna", "db/anna/1.jpg"): [ROWS[0], ROWS[2]], ("bert", "db/bert/1.jpg"): [ROWS[1]],
        }  # fmt: skip
        (one,) = rejects(batches)
        assert (one.subject, one.medium, one.row, one.reason) == ("anna", "db/anna/2.jpg", "2", Reason.EMPTY)


@pytest.mark.parametrize("older", [list, tuple])
def test_the_lists_of_older_versions_are_read(tmp_path: Path, older: Any) -> None:
    path = written(tmp_path, [older([one["identity"], one["embedding"], 1, 2, 3, 4]) for one in RECORDS])
    assert len(by_medium(read(deepface(path)))) == 2


def test_a_pattern_finds_the_subject_and_the_others_are_nobody_s(tmp_path: Path) -> None:
    path = written(tmp_path, [record("db/anna_1.jpg", ROWS[0]), record("db/group.jpg", ROWS[1])])
    batches = read(deepface(path, r"/([a-z]+)_\d"))
    assert by_medium(batches) == {("anna", "db/anna_1.jpg"): [ROWS[0]]}
    assert [(one.subject, one.medium, one.reason) for one in rejects(batches)] == [
        (None, "db/group.jpg", Reason.NO_SUBJECT)
    ]


def test_paths_of_windows_have_folders_too(tmp_path: Path) -> None:
    assert deepface(written(tmp_path, [record("db\\anna\\1.jpg", ROWS[0])])).subjects == ["anna"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        (NAME, "retinaface/deepface-arcface"),
        ("ds_model_buffalo_l_detector_yolov8n_aligned_normalization_base_expand_0.pkl", "yolov8n/deepface-buffalo_l"),
        (
            "ds_model_vggface_detector_opencv_unaligned_normalization_vggface2_expand_10.pkl",
            "opencv/deepface-vggface-unaligned-normalization-vggface2-expand-10",
        ),
    ],
)
def test_the_name_of_the_file_tells_the_extractor(tmp_path: Path, name: str, label: str) -> None:
    path = written(tmp_path, RECORDS, name)
    assert deepface(path).extractor == label
    assert deepface(path, extractor="mine").extractor == "mine"


@pytest.mark.parametrize("name", ["representations_vgg_face.pkl", "ds_vggface_opencv_v2.pkl", "x.pkl"])
def test_a_name_that_does_not_tell_all_needs_an_extractor(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, RECORDS, name)
    with pytest.raises(ConfigError, match=r"is not named ds_model_.*set extractor"):
        deepface(path)
    assert deepface(path, extractor="x").subjects == ["anna", "bert"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"a": 1}, "the pickle is a dict, not DeepFace's list"),
        ([1], "record 0: has no 'identity' and 'embedding'"),
        ([RECORDS[0], {"identity": "x"}], "record 1: has no"),
        ([["x"]], "record 0: has no"),
        ([[1, ROWS[0]]], "record 0: the identity is a int, not the path"),
        ([np.ones(3)], "record 0: has no"),
    ],
)
def test_another_document_is_an_error_in_one_line(tmp_path: Path, document: Any, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        deepface(written(tmp_path, document))


def test_embeddings_that_are_none_are_rejected_one_by_one(tmp_path: Path) -> None:
    odd = [[], [1.0], "text", [1.0, None], np.ones((2, 2)), [[1.0, 2.0]], 5, [float("nan")] * 4]
    batches = read(deepface(written(tmp_path, [record("a/x.jpg", one) for one in [*odd, ROWS[0]]])))
    assert [(one.row, one.reason) for one in rejects(batches)] == [
        ("0", Reason.EMPTY), ("1", Reason.WRONG_DIMENSION), ("2", Reason.UNDECODABLE), ("3", Reason.UNDECODABLE),
        ("4", Reason.UNDECODABLE), ("5", Reason.UNDECODABLE), ("6", Reason.UNDECODABLE), ("7", Reason.NON_FINITE),
    ]  # fmt: skip
    assert by_medium(batches) == {("a", "a/x.jpg"): [ROWS[0]]}


def encodings(path: Path) -> EncodingsSource:
    return EncodingsSource(path, extractor="test", name="legacy")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_names_are_subjects(tmp_path: Path, protocol: int) -> None:
    document = {"encodings": list(numbers(4).astype(np.float64)), "names": ["b", "a", "", "b"]}
    source = encodings(written(tmp_path, document, protocol=protocol))
    assert not source.has_media
    batches = read(source)
    assert by_medium(batches) == {("a", ""): [ROWS[1]], ("b", ""): [ROWS[0], ROWS[3]]}
    assert [(one.subject, one.row, one.reason) for one in rejects(batches)] == [(None, "2", Reason.NO_SUBJECT)]


def test_encodings_may_be_arrays_and_names_numbers(tmp_path: Path) -> None:
    document = {"encodings": numbers(2), "names": np.array([7, 8])}
    assert by_medium(read(encodings(written(tmp_path, document)))) == {("7", ""): [ROWS[0]], ("8", ""): [ROWS[1]]}


def test_encodings_of_python_2_are_read() -> None:
    source = encodings(DATA / "python2-protocol2.pkl")
    assert by_medium(read(source)) == {("anna", ""): [ROWS[0]], ("bért", ""): [ROWS[1]]}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([1], "the pickle is no dict of 'encodings' and 'names'"),
        ({"encodings": []}, "the pickle is no dict"),
        ({"encodings": [ROWS[0]], "names": []}, "1 encodings for 0 names"),
        ({"encodings": 5, "names": []}, "'encodings' is a int, not a list"),
        ({"encodings": np.array(5), "names": []}, "'encodings' is a ndarray, not a list"),
        ({"encodings": np.empty((2, 0)), "names": ["a", "b"]}, "'encodings' is a ndarray, not a list"),
        ({"encodings": [ROWS[0]], "names": [2**3000]}, "a whole number of more than 255 bytes"),
    ],
)
def test_another_dict_is_an_error_in_one_line(tmp_path: Path, document: Any, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        encodings(written(tmp_path, document))


def test_missing_files_and_extractors_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        encodings(tmp_path / "x.pkl")
    with pytest.raises(SourceError, match="cannot be read"):
        encodings(tmp_path / "x\0")
    with pytest.raises(ConfigError, match="set extractor"):
        EncodingsSource(tmp_path / "x.pkl", extractor=None, name="legacy")


@pytest.mark.parametrize("source", [deepface, encodings])
def test_no_document_is_run(tmp_path: Path, source: Any) -> None:
    target = tmp_path / "made"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {target}",)

    path = written(tmp_path, [record("a/x.jpg", Payload())])
    with pytest.raises(SourceError, match=r"the pickle asks for '\w+\.system'"):
        source(path)
    assert not target.exists()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match="the pickle"):
        source(path)


@pytest.mark.parametrize("pattern", [None, "(.*)/"])
def test_one_text_many_times_is_not_unpacked(tmp_path: Path, pattern: str | None) -> None:
    long = "a\0/" * 100_000
    path = written(tmp_path, [(long, ROWS[0])] * 100 + [("x" * 100, ROWS[0])] * 100)
    with at_most(16), pytest.raises(SourceError, match="claims to hold more than 8 times as many"):
        deepface(path, pattern)
    path = written(tmp_path, {"encodings": [None] * 100, "names": [long] * 100})
    with at_most(16), pytest.raises(SourceError, match="claims to hold more than 8 times as many"):
        encodings(path)


def test_rows_of_nothing_are_not_unpacked(tmp_path: Path) -> None:
    path = written(tmp_path, {"encodings": [None] * 10**5, "names": [None] * 10**5})
    with at_most(16), pytest.raises(SourceError, match="claims to hold more than 8 times as many"):
        encodings(path)


@pytest.mark.parametrize("embedding", [[1] * 16_000, [None] * 16_000])
def test_one_value_many_times_is_not_unpacked(tmp_path: Path, embedding: list[Any]) -> None:
    path = written(tmp_path, [("a/x.jpg", embedding) for _ in range(20_000)])
    with at_most(32), pytest.raises(SourceError, match="claims to hold more than 8 times as many"):
        deepface(path)
