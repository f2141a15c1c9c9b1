"""The reference's protocol on its own files: every probe against every gallery, and whatever is odd said by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pfstore import synthetic
from pfstore.errors import InputError, SourceError
from pfstore.evaluation.protocols.hdf5 import hdf5_experiment
from pfstore.features import FeatureBatch
from pfstore.sources.hdf5 import Hdf5Source
from pfstore.sources.probes import read_probes
from tests.evaluation.protocols.reading import D, bad, collected, frames, store

CONTENT: dict[str, Any] = {
    "anna/gallery/images/0": frames(1, 1), "anna/gallery/images/10": frames(1, 2),
    "anna/gallery/images/2": frames(1, 3), "anna/gallery/video/0": frames(4, 4),
    "anna/probe_0": frames(3, 5), "anna/probe_1": frames(2, 6),
    "bert/gallery/video/0": frames(2, 7), "bert/probe_0": frames(5, 8),
}  # fmt: skip


def experiment(path: Path, content: dict[str, Any], **given: Any) -> Any:
    return hdf5_experiment(store(path / "features_all.hdf5", content), **given)


def test_galleries_are_references_and_probes_are_probes(tmp_path: Path) -> None:
    found = experiment(tmp_path, CONTENT, extractor="net")
    (gallery,) = found.galleries
    references, probes = collected(gallery.references), collected(gallery.probes)
    assert list(references.media["anna"]) == ["images/0", "images/2", "images/10", "video/0"]
    assert references.media["anna"]["video/0"] == frames(4, 4).tolist()
    assert references.subjects == {"anna": "anna", "bert": "bert"}
    assert probes.subjects == {"anna/probe_0": "anna", "anna/probe_1": "anna", "bert/probe_0": "bert"}
    assert probes.media["bert/probe_0"] == {"probe_0": frames(5, 8).tolist()}
    assert (found.dimension, found.extractor, found.identification, found.pairs) == (D, "net", True, None)


@pytest.mark.parametrize("features", [1, 4, 10**6])
def test_any_batch_size_gives_the_same_samples_again_and_again(tmp_path: Path, features: int) -> None:
    (gallery,) = experiment(tmp_path, CONTENT).galleries
    whole = collected(gallery.references)
    for _ in range(2):
        cut = collected(gallery.references, features)
        assert (cut.media, cut.subjects) == (whole.media, whole.subjects)


def test_facts_tell_what_there_is(tmp_path: Path) -> None:
    found = experiment(tmp_path, CONTENT)
    norms = np.linalg.norm(np.concatenate([*CONTENT.values()]).astype(np.float64), axis=1)
    assert found.facts == {
        "subjects": 2,
        "references": 2,
        "probes": 3,
        "media": {"references": 5, "probes": 3},
        "features": {"read": 19, "used": 19, "rejected": {}},
        "failures": {"references": 0, "probes": 0},
        "searches": [{"gallery": "gallery", "enrolled": 2, "mated": 3, "non_mated": 0, "failed": 0}],
        "norms": pytest.approx({"min": norms.min(), "median": np.median(norms), "max": norms.max()}, rel=1e-6),
    }
    assert found.warnings == [
        "no search is non-mated, so there is no FPIR and no FNIR at one: leave some subjects out of the gallery"
    ]


def test_a_subject_without_a_gallery_is_searched_and_named(tmp_path: Path) -> None:
    strangers = {f"stranger {i}/probe_0": frames(1, 20 + i) for i in range(7)}
    found = experiment(tmp_path, CONTENT | strangers)
    assert found.facts["searches"] == [{"gallery": "gallery", "enrolled": 2, "mated": 3, "non_mated": 7, "failed": 0}]
    assert found.warnings == [
        "7 subjects have no gallery, so all of their probes are non-mated searches: 'stranger 0', 'stranger 1', "
        "'stranger 2', 'stranger 3', 'stranger 4' and 2 more"
    ]


def test_a_probe_without_a_usable_feature_failed_to_acquire(tmp_path: Path) -> None:
    odd = {
        "carl/gallery/images/0": frames(1, 30),
        "carl/probe_empty": np.empty((0, D), np.float32),
        "carl/probe_nan": bad(2, 0, 1),
        "carl/probe_zero": bad(1, 0, value=0),
        "carl/probe_whole": np.ones((2, D), np.int32),
        "dora/gallery/images/0": bad(1, 0),
    }
    found = experiment(tmp_path, CONTENT | odd)
    probes = collected(found.galleries[0].probes)
    assert probes.failures == {
        "carl/probe_empty": ("carl", "empty (no feature)"),
        "carl/probe_nan": ("carl", "2 non-finite"),
        "carl/probe_whole": ("carl", "undecodable (int32 instead of float16, float32 or float64)"),
        "carl/probe_zero": ("carl", "zero norm (norm 0)"),
    }
    assert collected(found.galleries[0].references).failures == {"dora": ("dora", f"non-finite ({D} of {D} values)")}
    assert found.facts["failures"] == {"references": 1, "probes": 4}
    assert found.facts["searches"][0] == {"gallery": "gallery", "enrolled": 3, "mated": 3, "non_mated": 0, "failed": 4}
    assert any(
        one.startswith("4 of 7 probes failed to acquire, as no feature is usable: 'carl/probe_empty'")
        for one in found.warnings
    )
    assert any(one.startswith("1 of 4 references failed to enrol") for one in found.warnings)


def test_a_probe_is_not_thinned_without_a_word(tmp_path: Path) -> None:
    found = experiment(tmp_path, CONTENT | {"bert/probe_7": bad(5, 1, 3), "bert/probe_8": bad(2, 0, value=np.inf)})
    probes = collected(found.galleries[0].probes)
    assert probes.media["bert/probe_7"]["probe_7"] == frames(5)[[0, 2, 4]].tolist()
    assert found.facts["features"] == {"read": 26, "used": 23, "rejected": {"non-finite": 3}}
    assert found.warnings[0] == (
        f"3 of the 17 features of probes were left out: 3 non-finite, first 'bert/probe_7' row probe_7[1]: "
        f"{D} of {D} values"
    )


def test_features_of_another_dimension_are_left_out_and_counted(tmp_path: Path) -> None:
    found = experiment(tmp_path, CONTENT | {"bert/probe_9": np.ones((2, D + 1), np.float32)})
    assert found.dimension == D
    assert found.facts["features"]["rejected"] == {"wrong dimension": 2}
    assert collected(found.galleries[0].probes).failures == {"bert/probe_9": ("bert", "2 wrong dimension")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"anna/gallery/images/0": frames(1), "anna/probe_0": frames(1, 2)}, "only one subject, 'anna', has a usable"),
        ({"anna/gallery/images/0": frames(1), "bert/probe_0": frames(1, 2)},
         r"no probe is mated: the subjects of the probes \('bert'\) are none of the references' \('anna'\)"),
        ({"anna/gallery/images/0": frames(1), "anna/probe_0": bad(1, 0), "bert/gallery/images/0": frames(1, 3)},
         r"no probe is mated: the subjects of the probes \(none usable\)"),
        ({"anna/probe_0": frames(1), "bert/probe_0": frames(1, 2)}, "no subject has a gallery"),
        ({"anna/gallery/images/0": frames(1), "bert/gallery/images/0": frames(1, 2)}, "has no probe; a probe is a"),
        ({"anna/gallery/images/0": bad(1, 0), "anna/probe_0": frames(1), "bert/probe_0": frames(1, 2)},
         "no reference has a usable feature"),
        ({"anna/gallery/images/0": np.empty((0, D)), "bert/probe_0": np.empty((0, D))}, "no sample has a feature"),
        ({"anna/gallery/images/0": frames(1), "anna/probe_0/video/0": frames(2)}, "/anna/probe_0 is no dataset"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_said_by_name(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        experiment(tmp_path, content)


def test_a_subject_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        store(tmp_path / f"features_{name}.hdf5", CONTENT)
    with pytest.raises(InputError, match=r"subject 'anna' is in .*features_a.hdf5 and in .*features_b.hdf5"):
        hdf5_experiment(tmp_path)


def test_a_folder_without_feature_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no features_\*.hdf5"):
        hdf5_experiment(tmp_path)


def test_the_folders_tell_the_extractor(tmp_path: Path) -> None:
    store(tmp_path / "test/retinaface/adaface/features_all.hdf5", CONTENT)
    assert hdf5_experiment(tmp_path / "test").extractor == "retinaface/adaface"
    assert hdf5_experiment(tmp_path / "test", extractor="mine").extractor == "mine"


def test_keys_of_any_kind_come_as_a_gallery_stores_them(tmp_path: Path) -> None:
    path = store(tmp_path / "features_all.hdf5", CONTENT)
    with h5py.File(path, "a") as file:
        file[b"\xff/gallery/images/0"] = frames(1, 50)
        file[b"\xff/probe_\xfe"] = frames(1, 51)
    probes = collected(hdf5_experiment(path).galleries[0].probes)
    assert probes.subjects["0xff/0x70726f62655ffe"] == "0xff"


def test_made_up_files_are_read_as_sources_and_searches_read_them(tmp_path: Path) -> None:
    population = synthetic.Population(subjects=40, dimension=16, seed=3)
    folder = synthetic.write_hdf5(tmp_path, population, probes=2, damage=4, split="test")
    (gallery,) = hdf5_experiment(tmp_path).galleries
    references, probes = collected(gallery.references, 100), collected(gallery.probes, 100)
    with Hdf5Source(folder, extractor=None, name="x") as source:
        (shard,) = source.shards(10**6)
        (batch,) = source.read(shard.range, dimension=16, features=10**6)
    assert references.media == by_medium(batch.features)
    searched = read_probes(folder)
    assert sorted(probes.media) == sorted(searched.ids)
    for number, probe in enumerate(searched.ids):
        (features,) = probes.media[probe].values()
        assert features == searched.features[searched.offsets[number] : searched.offsets[number + 1]].tolist()


def by_medium(batch: FeatureBatch) -> dict[str, dict[str, list[list[float]]]]:
    found: dict[str, dict[str, list[list[float]]]] = {}
    for number, subject in enumerate(batch.subject_ids):
        for medium in range(batch.subject_offsets[number], batch.subject_offsets[number + 1]):
            rows = batch.features[batch.media_offsets[medium] : batch.media_offsets[medium + 1]]
            found.setdefault(subject, {})[batch.media_ids[medium]] = rows.tolist()
    return found
