"""DroneSURF: both scenarios, each video or each frame a probe, in folders and in the reference's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.errors import InputError
from pfstore.evaluation.protocols.dronesurf import Scenario, Wise, dronesurf_experiment
from pfstore.evaluation.protocols.experiment import Experiment
from tests.evaluation.protocols.reading import D, bad, collected, frames, store

SUBJECTS = ("s1", "s2", "s3")
GALLERY = {f"{one}/{image}": frames(1, 10 * n + image) for n, one in enumerate(SUBJECTS) for image in range(4)}
VIDEOS = {
    "active/s1/v1": frames(3, 100), "active/s1/v2": frames(2, 101), "active/s2/v1": bad(3, 1, seed=102),
    "active/s3/v1": np.empty((0, D), np.float32), "passive/s1/w": frames(2, 103), "passive/s2/w": frames(1, 104),
}  # fmt: skip


def in_folders(path: Path) -> Path:
    content = {f"gallery/{name}": value for name, value in GALLERY.items()} | VIDEOS
    for name, value in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(path / f"{name}.npy", value)
    return path


def in_files(path: Path) -> Path:
    content: dict[str, Any] = {}
    for name, value in GALLERY.items():
        subject, image = name.split("/")
        content[f"{subject}/gallery/images/{image}"] = value
    for name, value in VIDEOS.items():
        scenario, subject, video = name.split("/")
        content[f"{subject}/{scenario}/{video}"] = value
    for subject in SUBJECTS:
        own = {name: value for name, value in content.items() if name.startswith(f"{subject}/")}
        store(path / f"features_{subject}.hdf5", own)
    return path


@pytest.fixture(params=[in_folders, in_files])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made: Path = request.param(tmp_path / "features")
    return made


def experiment(path: Path, scenario: Scenario = "active", wise: Wise = "video", **given: Any) -> Experiment:
    return dronesurf_experiment(path, scenario=scenario, wise=wise, **given)


def test_each_video_is_a_probe(path: Path) -> None:
    found = experiment(path, extractor="net")
    assert (found.name, found.extractor) == ("DroneSURF active, video-wise", "net")
    (gallery,) = found.galleries
    references, probes = collected(gallery.references), collected(gallery.probes)
    assert [len(media) for media in references.media.values()] == [4, 4, 4]
    assert references.subjects == {one: one for one in SUBJECTS}
    assert probes.subjects == {"s1/active/v1": "s1", "s1/active/v2": "s1", "s2/active/v1": "s2"}
    assert list(probes.media["s2/active/v1"].values()) == [frames(3, 102)[[0, 2]].tolist()]
    assert probes.failures == {"s3/active/v1": ("s3", "empty (no feature)")}
    assert found.facts["features"] == {"read": 21, "used": 19, "rejected": {"non-finite": 1, "empty": 1}}


def test_each_frame_is_a_probe(path: Path) -> None:
    found = experiment(path, wise="frame")
    probes = collected(found.galleries[0].probes, 2)
    assert probes.subjects == {
        "s1/active/v1[0]": "s1", "s1/active/v1[1]": "s1", "s1/active/v1[2]": "s1", "s1/active/v2[0]": "s1",
        "s1/active/v2[1]": "s1", "s2/active/v1[0]": "s2", "s2/active/v1[2]": "s2",
    }  # fmt: skip
    assert [list(media.values()) for media in probes.media.values()][:3] == [[[row]] for row in frames(3, 100).tolist()]
    assert probes.failures == {
        "s2/active/v1[1]": ("s2", "non-finite (8 of 8 values)"),
        "s3/active/v1": ("s3", "empty (no feature)"),
    }
    assert found.facts["probes"] == 9


def test_the_other_scenario_has_other_videos(path: Path) -> None:
    assert set(collected(experiment(path, "passive").galleries[0].probes).subjects) == {"s1/passive/w", "s2/passive/w"}


def test_only_the_listed_subjects_are_tested(path: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("s2\ns1\n")
    found = experiment(path, subjects=tmp_path / "test.txt")
    (gallery,) = found.galleries
    assert set(collected(gallery.references).subjects) == {"s1", "s2"}
    assert set(collected(gallery.probes).subjects.values()) == {"s1", "s2"}
    assert not any("58 subjects" in one for one in found.warnings)
    (tmp_path / "test.txt").write_text("s2\ns9\n")
    with pytest.raises(InputError, match=r"test.txt: 1 of the subjects to test have no gallery: 's9'"):
        experiment(path, subjects=tmp_path / "test.txt")


def test_what_is_unusual_is_said(tmp_path: Path) -> None:
    path = in_folders(tmp_path)
    (path / "gallery/s2/3.npy").unlink()
    assert experiment(path).warnings[:2] == [
        "DroneSURF tests 24 of its 58 subjects, these are 3; name those in subjects",
        "subjects with more or fewer than 4 gallery images: 's2'",
    ]


def test_files_that_are_not_so_laid_out_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        experiment(tmp_path / "x")
    path = in_folders(tmp_path / "features")
    for video in (path / "passive").rglob("*.npy"):
        video.unlink()
    with pytest.raises(InputError, match="has no video <passive/subject/video> of a subject to test"):
        experiment(path, "passive")
