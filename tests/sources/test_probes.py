"""Probes in every form, and that none is searched with other than what its file holds."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pfstore import synthetic
from pfstore.errors import InputError
from pfstore.sources.base import Reason, Reject
from pfstore.sources.probes import ProbeSets, probe_batches, read_probes, subject_batches
from tests.memory import MemorySource, people

D = 4
FEATURES = np.arange(1, 5 * D + 1, dtype=np.float32).reshape(5, D)
OFFSETS = np.array([0, 2, 5])
LINES = '{"id": "a", "features": [[1, 2, 3, 4], [5, 6, 7, 8]]}\n\n{"features": [9, 10, 11, 12.5], "extractor": null}\n'


def check(probes: ProbeSets, ids: list[str], offsets: list[int], extractor: str | None = None) -> None:
    assert (list(probes.ids), probes.offsets.tolist(), probes.extractor) == (ids, offsets, extractor)
    assert (str(probes.features.dtype), str(probes.offsets.dtype)) == ("float32", "int64")
    assert len(probes.features) == offsets[-1]


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=FEATURES, offsets=OFFSETS, ids=np.array(["a", "b"]), extractor="r/a")
    probes = read_probes(tmp_path / "x.npz")
    check(probes, ["a", "b"], [0, 2, 5], "r/a")
    np.testing.assert_array_equal(probes.features, FEATURES)
    np.savez_compressed(tmp_path / "y.npz", features=FEATURES.astype(np.float64), offsets=OFFSETS.astype(np.uint8))
    check(read_probes(str(tmp_path / "y.npz")), ["0", "1"], [0, 2, 5])


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "anna.npy", FEATURES)
    check(read_probes(tmp_path / "anna.npy"), ["anna"], [0, 5])
    np.save(tmp_path / "bert.npy", FEATURES[0])
    check(read_probes(tmp_path / "bert.npy"), ["bert"], [0, 1])


def test_hdf5_file_and_folder(tmp_path: Path) -> None:
    folder = tmp_path / "train/retina/ada"
    folder.mkdir(parents=True)
    for name in "ab":
        with h5py.File(folder / f"features_{name}.hdf5", "w") as file:
            file[f"{name}/probe_10"] = FEATURES[0]
            file[f"{name}/probe_2"] = FEATURES[:2]
            file[f"{name}/gallery/images/0"] = FEATURES[:1]
    check(read_probes(folder / "features_a.hdf5"), ["a/probe_2", "a/probe_10"], [0, 2, 3], "retina/ada")
    ids = ["a/probe_2", "a/probe_10", "b/probe_2", "b/probe_10"]
    check(read_probes(tmp_path), ids, [0, 2, 3, 5, 6], "retina/ada")


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LINES)
    check(read_probes(tmp_path / name), ["a", "3"], [0, 2, 3])


def test_json_lines_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(LINES.replace("null", '"r/a"').encode())))
    with pytest.raises(InputError, match=r"standard input: .*None \(line 1\), 'r/a' \(line 3\)"):
        read_probes("-")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(LINES.encode())))
    check(read_probes("-"), ["a", "3"], [0, 2, 3])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "there is no probe"),
        ("{", "line 1: not JSON"),
        ("[1, 2]", "line 1: a probe is"),
        ('{"id": "a"}', "line 1: a probe is"),
        ('{"id": [1], "features": [1]}', "id is text or a number, not list"),
        ('{"features": [[1, 2], [3]]}', "line 1: the features are lists of different lengths"),
        ('{"features": ["1", "2"]}', "line 1: features are numbers"),
        ('{"features": [true]}', "line 1: features are numbers"),
        ('{"features": [1, null]}', "line 1: features are numbers"),
        ('{"features": 1}', r"line 1: features are \[\[…\], …\]"),
        ('{"features": [[[1]]]}', "line 1: features are"),
        ('{"id": "x", "features": []}', "probe 'x' is empty"),
        ('{"id": "x", "features": [[]]}', "probe 'x' is empty"),
        ('{"id": "x", "features": [[1, 2], [0, 0]]}', "probe 'x': feature 1 has the norm 0"),
        ('{"id": "x", "features": [1e39]}', "probe 'x': feature 0 is not finite"),
        ('{"features": [1], "extractor": 3}', "line 1: extractor is text"),
        (
            '{"id": "x", "features": [1]}\n{"id": "y", "features": [1, 2]}',
            "'y' has features of 2 values, probe 'x' of 1",
        ),
    ],
)
def test_what_is_wrong_with_json_lines(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "x.jsonl").write_text(line)
    with pytest.raises(InputError, match=says) as caught:
        read_probes(tmp_path / "x.jsonl")
    assert "\n" not in str(caught.value)
    assert "x.jsonl" in str(caught.value)


BAD = FEATURES.copy()
BAD[3, 1] = np.nan


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"features": BAD}, "probe 'b': feature 1 is not finite"),
        ({"features": FEATURES.astype(int)}, "features are float"),
        ({"features": FEATURES[0]}, r"the shape is \[N, D\]"),
        ({"offsets": np.array([0, 2, 2, 5])}, "probe '1' is empty"),
        ({"offsets": np.array([0, 2])}, "offsets rise from 0 to 5"),
        ({"offsets": np.array([1, 5])}, "offsets rise from 0 to 5"),
        ({"offsets": np.array([5])}, "offsets rise from 0 to 5"),
        ({"offsets": np.array([0]), "features": FEATURES[:0]}, "there is no probe"),
        ({"ids": np.array(["a"])}, "ids: 2 entries are expected"),
        ({"extractor": np.array(["a", "b"])}, "extractor is one text"),
        ({"ids": np.array([{}, {}])}, "Python objects"),
        ({"offsets": None}, "has no array 'offsets'"),
    ],
)
def test_what_is_wrong_with_npz(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    ids = {} if "offsets" in change else {"ids": np.array(["a", "b"])}
    arrays = {"features": FEATURES, "offsets": OFFSETS} | ids | change
    np.savez(tmp_path / "x.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=says):
        read_probes(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.empty((0, D), np.float32), "probe a/probe_0 is empty"),
        (np.ones((1, D), int), "probe a/probe_0 is undecodable: int64"),
        (BAD, "probe 'a/probe_0': feature 3"),
        (None, "no dataset of features"),
    ],
)
def test_what_is_wrong_with_hdf5(tmp_path: Path, value: Any, says: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("a")
        if value is None:
            group.create_group("probe_0")
        else:
            group["probe_0"] = value
    with pytest.raises(InputError, match=says):
        read_probes(tmp_path / "x.h5")


def test_a_link_out_of_an_hdf5_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = FEATURES
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/probe_0"] = h5py.ExternalLink(tmp_path / "other.h5", "/x")
    with pytest.raises(InputError, match="a link to elsewhere"):
        read_probes(tmp_path / "x.h5")


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.h5"])
def test_damaged_and_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file of probes"):
        read_probes(tmp_path / name)
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="damaged"):
        read_probes(tmp_path / name)


def test_an_unknown_suffix_names_the_known(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(InputError, match=r"'\.csv'; known are \.npz, \.npy, \.hdf5"):
        read_probes(tmp_path / "x.csv")


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(0.5, 9, width=32)))
@settings(max_examples=30, deadline=None)
def test_every_form_gives_the_same(tmp_path_factory: pytest.TempPathFactory, features: Any) -> None:
    folder = tmp_path_factory.mktemp("forms")
    np.savez(folder / "x.npz", features=features, offsets=[0, len(features)], ids=["x"])
    np.save(folder / "x.npy", features)
    (folder / "x.jsonl").write_text(json.dumps({"id": "x", "features": features.tolist()}))
    for name in ("x.npz", "x.npy", "x.jsonl"):
        probes = read_probes(folder / name)
        np.testing.assert_array_equal(probes.features, features)
        assert list(probes.ids) == ["x"]


def test_synthetic_probes_are_read_back(tmp_path: Path) -> None:
    known = synthetic.known_probes(synthetic.Population(subjects=30, dimension=16), mated=20, non_mated=5)
    synthetic.write_probes(tmp_path / "p.npz", known)
    probes = read_probes(tmp_path / "p.npz")
    check(probes, list(known.sets.ids), known.sets.offsets.tolist(), "synthetic/sphere-16")
    np.testing.assert_array_equal(probes.features, known.sets.features)


def _line(name: str, *feature: float) -> bytes:
    return json.dumps({"id": name, "features": feature}).encode() + b"\n"


def test_json_lines_are_given_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as producer:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream))
        batches = probe_batches("-")
        producer.write(_line("a", 1, 2))
        check(next(batches), ["a"], [0, 1])
        producer.write(_line("b", 1, 2) + _line("c", 3, 4) + b'{"id": "d", "fea')
        check(next(batches), ["b", "c"], [0, 1, 2])
        producer.write(b'tures": [1, 2]}\n\n')
        check(next(batches), ["d"], [0, 1])
        producer.write(b"".join(_line(str(i), 1, 2) for i in range(100)))
        assert [len(next(batches).ids) for _ in range(4)] == [32, 32, 32, 4]
        producer.write(_line("last", 1, 2).rstrip())
        producer.close()
        check(next(batches), ["last"], [0, 1])
        assert next(batches, None) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{\n", "line 3: not JSON"),
        (_line("x", 0, 0), "line 3: probe 'x': feature 0 has the norm 0"),
        (_line("x", 1, 2, 3), "line 3: probe 'x' has features of 3 values, probe 'a' of 2"),
        (_line("x"), "line 3: probe 'x' is empty"),
        (b'{"features": [1, 2], "extractor": "r/a"}\n', r"several extractors: None \(line 1\), 'r/a' \(line 3\)"),
    ],
)
def test_what_stands_before_a_mistake_is_given(tmp_path: Path, line: bytes, says: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(_line("a", 1, 2) + _line("b", 1, 2) + line + _line("c", 1, 2))
    batches = probe_batches(tmp_path / "x.jsonl")
    check(next(batches), ["a", "b"], [0, 1, 2])
    with pytest.raises(InputError, match=says):
        next(batches)


def test_a_mistake_in_a_later_batch_knows_the_first_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"".join(_line(str(i), 1, 2) for i in range(40)) + _line("x", 1)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    batches = probe_batches("-")
    assert [len(next(batches).ids) for _ in range(2)] == [32, 8]
    with pytest.raises(InputError, match="line 41: probe 'x' has features of 1 values, probe '0' of 2"):
        next(batches)


def test_batches_of_arrays_are_bounded_and_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    counts = [5000, *random.integers(1, 40, size=300), *[1] * 300]
    features = random.normal(size=(sum(counts), D)).astype(np.float32)
    np.savez(tmp_path / "x.npz", features=features, offsets=np.cumsum([0, *counts]))
    batches = list(probe_batches(tmp_path / "x.npz"))
    assert len(batches[0].ids) == 1
    assert max(len(one.ids) for one in batches) == 256
    assert max(len(one.features) for one in batches[1:]) < 4096 + 40
    np.testing.assert_array_equal(np.concatenate([one.features for one in batches]), features)
    assert [name for one in batches for name in one.ids] == [str(i) for i in range(601)]
    np.testing.assert_array_equal(read_probes(tmp_path / "x.npz").offsets, np.cumsum([0, *counts]))


def test_the_subjects_of_a_source_are_probes() -> None:
    subjects = people(25)
    reject = Reject("gone", "m", "7", Reason.ZERO_NORM, "the norm is 0")
    rejected = Counter[str]()
    source = MemorySource(subjects, rejects=[reject], rejected_subjects=["gone"])
    batches = list(subject_batches(source, "source 'x'", dimension=8, rejected=rejected))
    assert [name for one in batches for name in one.ids] == list(subjects)
    assert {one.extractor for one in batches} == {"test-extractor"}
    for one in batches:
        for i, name in enumerate(one.ids):
            expected = np.concatenate(list(subjects[name].values()))
            np.testing.assert_array_equal(one.features[one.offsets[i] : one.offsets[i + 1]], expected)
    assert rejected == {"zero norm": 1}
    nobody = MemorySource({}, rejects=[reject], rejected_subjects=["gone"])
    with pytest.raises(InputError, match="source 'x': no subject has a feature"):
        list(subject_batches(nobody, "source 'x'", dimension=8, rejected=Counter()))
