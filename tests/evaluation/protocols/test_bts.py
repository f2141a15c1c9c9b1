"""BTS3.1: two galleries that share distractors, and rows that name what is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.errors import InputError
from pfstore.evaluation.protocols.bts import bts_experiment
from pfstore.evaluation.protocols.experiment import Experiment
from tests.evaluation.protocols.reading import bad, collected, frames

PROBES = """entry_id,subjectId,media_path,face_incl_trt,face_incl_ctrl
e1,G00001,BGC1/G00001/field/100m/a.mp4,True,False
e2,G00002,BGC1/G00002/field/200m/b.mp4,True,False
e3,G00003,BGC1/G00003/field/200m/c.mp4,TRUE,False
e4,G00001,BGC1/G00001/field/close/d.mp4,False,True
e5,G00002,BGC1/G00002/field/500m/e.mp4,True,False
"""
GALLERY1 = """subjectId,media_path
G00001,BGC1/G00001/controlled/1.jpg
G00001,BGC1/G00001/controlled/2.mp4
G00009,BGC1/G00009/controlled/1.jpg
"""
GALLERY2 = """subjectId,media_path
G00002,BGC1/G00002/controlled/1.jpg
"""
MEDIA = {
    "BGC1/G00001/field/100m/a.mp4": frames(5, 1), "BGC1/G00002/field/200m/b.mp4": frames(3, 2),
    "BGC1/G00003/field/200m/c.mp4": frames(2, 3), "BGC1/G00001/field/close/d.mp4": frames(2, 4),
    "BGC1/G00002/field/500m/e.mp4": np.empty((0, 8), np.float32),
    "BGC1/G00001/controlled/1.jpg": frames(1, 5), "BGC1/G00001/controlled/2.mp4": frames(4, 6),
    "BGC1/G00009/controlled/1.jpg": frames(1, 7), "BGC1/G00002/controlled/1.jpg": frames(1, 8),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path)


def written(folder: Path, media: dict[str, Any] = MEDIA) -> Path:
    (folder / "protocol/analysis_main").mkdir(parents=True)
    texts = {"Probe_BTS_briar-rd_ALL.csv": PROBES, "Gallery1.csv": GALLERY1, "Gallery2.csv": GALLERY2}
    for name, text in texts.items():
        (folder / "protocol/analysis_main" / name).write_text(text)
    (folder / "protocol/bts3_distractors.txt").write_text("G00009\n\n")
    for name, features in media.items():
        put(folder, name, features)
    return folder


def put(folder: Path, name: str, features: Any) -> None:
    path = folder / f"features/{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, features)


def rewrite(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / "protocol/analysis_main" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def experiment(folder: Path, **given: Any) -> Experiment:
    return bts_experiment(folder / "features", folder=folder / "protocol", **given)


def test_each_gallery_is_searched_by_all_probes_of_the_condition(folder: Path) -> None:
    found = experiment(folder, extractor="net")
    first, second = found.galleries
    assert (found.name, found.extractor, found.identification) == ("BTS3.1 face_incl_trt", "net", True)
    assert (first.name, second.name) == ("Gallery1", "Gallery2")
    assert first.probes is second.probes
    probes = collected(first.probes)
    assert probes.subjects == {"e1-a": "G00001", "e2-b": "G00002", "e3-c": "G00003"}
    assert probes.media["e1-a"] == {"BGC1/G00001/field/100m/a.mp4": frames(5, 1).tolist()}
    assert probes.failures == {"e5-e": ("G00002", "empty (no feature)")}
    assert collected(first.references).media == {
        "G00001": {
            "BGC1/G00001/controlled/1.jpg": frames(1, 5).tolist(),
            "BGC1/G00001/controlled/2.mp4": frames(4, 6).tolist(),
        },
        "G00009": {"BGC1/G00009/controlled/1.jpg": frames(1, 7).tolist()},
    }
    assert set(collected(second.references).subjects) == {"G00002", "G00009"}
    assert found.facts["distractors"] == 1
    assert found.facts["probes"] == 4
    assert found.facts["failures"] == {"references": 0, "probes": 1}
    assert found.facts["searches"] == [
        {"gallery": "Gallery1", "enrolled": 2, "mated": 1, "non_mated": 2, "failed": 1},
        {"gallery": "Gallery2", "enrolled": 2, "mated": 1, "non_mated": 2, "failed": 1},
    ]


def test_another_condition_takes_other_probes(folder: Path) -> None:
    found = experiment(folder, condition="face_incl_ctrl")
    assert collected(found.galleries[0].probes).subjects == {"e4-d": "G00001"}
    everything = experiment(folder, condition="")
    assert len(collected(everything.galleries[0].probes).subjects) == 4


def test_rows_that_name_missing_files_are_said_before_anything_is_read(folder: Path) -> None:
    for name in ("BGC1/G00002/field/200m/b.mp4", "BGC1/G00009/controlled/1.jpg"):
        (folder / f"features/{name}.npy").unlink()
    (folder / "features/BGC1/G00001/field/100m/a.mp4.npy").write_bytes(b"no npy")
    with pytest.raises(InputError, match="2 of 8 rows name a medium without a file") as raised:
        experiment(folder)
    assert "ALL.csv:3 'BGC1/G00002/field/200m/b.mp4'" in str(raised.value)
    assert "Gallery1.csv:4 'BGC1/G00009/controlled/1.jpg'" in str(raised.value)
    assert "set allow_missing" in str(raised.value)


def test_missing_files_may_be_allowed_and_then_count_as_failures(folder: Path) -> None:
    for name in ("BGC1/G00003/field/200m/c.mp4", "BGC1/G00009/controlled/1.jpg", "BGC1/G00001/controlled/1.jpg"):
        (folder / f"features/{name}.npy").unlink()
    found = experiment(folder, allow_missing=True)
    assert collected(found.galleries[0].probes).failures == {
        "e3-c": ("G00003", "empty (no file of features)"),
        "e5-e": ("G00002", "empty (no feature)"),
    }
    references = collected(found.galleries[0].references)
    assert references.failures == {"G00009": ("G00009", "empty (no file of features)")}
    assert list(references.media["G00001"]) == ["BGC1/G00001/controlled/2.mp4"]
    assert found.warnings[0].startswith("3 of 8 rows name a medium without a file of features: ")


def test_the_reference_s_own_names_are_found(tmp_path: Path) -> None:
    """Flat folders of files called <entry>-<name> and "…_<subject>_…", and galleries without a column of media."""
    folder = written(tmp_path, {})
    rewrite(folder, "Probe_BTS_briar-rd_ALL.csv", ",subjectId", "")
    for number in range(1, 4):
        rewrite(folder, "Probe_BTS_briar-rd_ALL.csv", f",G0000{number},", ",")
    for name, text in (("1", "subjectId\n['G00001']\n['G00009']\n"), ("2", "subjectId\n['G00002']\n['G00009']\n")):
        (folder / f"protocol/analysis_main/Gallery{name}.csv").write_text(text)
    (folder / "protocol/bts3_distractors.txt").write_text("/data/gallery1/BGC_G00009_x.pickle\n")
    for name, seed in (("e1-a", 1), ("e2-b", 2), ("e3-c", 3), ("e5-e", 4)):
        put(folder, f"probe/{name}", frames(2, seed))
    for number, name in enumerate(("gallery1/BGC_G00001_y", "gallery1/BGC_G00009_x", "gallery2/BGC_G00002_z")):
        put(folder, name, frames(2, 10 + number))
    first, second = experiment(folder).galleries
    assert collected(first.probes).subjects == {"e1-a": "G00001", "e2-b": "G00002", "e3-c": "G00003", "e5-e": "G00002"}
    assert list(collected(first.references).media["G00001"]) == ["gallery1/BGC_G00001_y"]
    assert collected(second.references).media == {
        "G00002": {"gallery2/BGC_G00002_z": frames(2, 12).tolist()},
        "G00009": {"gallery1/BGC_G00009_x": frames(2, 11).tolist()},
    }


def test_a_thinned_probe_is_warned_of(folder: Path) -> None:
    put(folder, "BGC1/G00001/field/100m/a.mp4", bad(5, 2, seed=1))
    found = experiment(folder)
    rejects = [one for one in found.warnings if "features of probes were left out" in one]
    assert rejects == [
        "2 of the 11 features of probes were left out: 1 non-finite, first 'e1-a' row BGC1/G00001/field/100m/a.mp4[2]: "
        "8 of 8 values; 1 empty, first 'e5-e' row BGC1/G00002/field/500m/e.mp4: no feature"
    ]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("Probe_BTS_briar-rd_ALL.csv", "face_incl_trt", "face_incl", r"has no column face_incl_trt.*did you mean"),
        ("Probe_BTS_briar-rd_ALL.csv", "media_path", "mediapath", r"no column media_path \(or filepath, media, path\)"),
        ("Probe_BTS_briar-rd_ALL.csv", "entry_id", "id", "has no column entry_id"),
        ("Probe_BTS_briar-rd_ALL.csv", "TRUE", "perhaps", r"ALL.csv:4: face_incl_trt is 'perhaps', neither true nor"),
        ("Probe_BTS_briar-rd_ALL.csv", "e2,G00002", "e2,x,G00002", r"ALL.csv:3: has 6 columns, the header 5"),
        ("Gallery1.csv", "subjectId", "person", r"Gallery1.csv: has no column subjectId"),
        ("Gallery1.csv", GALLERY1, "subjectId,media_path\n", "has no row below its header"),
        ("Gallery1.csv", GALLERY1, "", "has no row below its header"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_said_by_name(folder: Path, name: str, old: str, new: str, message: str) -> None:
    rewrite(folder, name, old, new)
    with pytest.raises(InputError, match=message):
        experiment(folder)


def test_a_missing_file_of_the_protocol_is_said_by_name(folder: Path) -> None:
    (folder / "protocol/analysis_main/Gallery2.csv").unlink()
    with pytest.raises(InputError, match=r"protocol: has no Gallery2.csv, neither itself nor in analysis_main"):
        experiment(folder)
    with pytest.raises(InputError, match="needs either the folder"):
        bts_experiment(folder / "features")
    with pytest.raises(InputError, match=r"x.csv: no such file"):
        experiment(folder, galleries=[folder / "x.csv"])


def test_conditions_and_patterns_that_find_nothing_are_refused(folder: Path) -> None:
    rewrite(folder, "Probe_BTS_briar-rd_ALL.csv", "False,True", "False,False")
    with pytest.raises(InputError, match="no probe is of face_incl_ctrl"):
        experiment(folder, condition="face_incl_ctrl")
    with pytest.raises(InputError, match=r"subject_pattern: 'G' has no group"):
        experiment(folder, subject_pattern="G")
    rewrite(folder, "Probe_BTS_briar-rd_ALL.csv", "subjectId", "x")
    with pytest.raises(InputError, match=r"ALL.csv:2: .* tells no subject"):
        experiment(folder, subject_pattern="(S[0-9]{9})")


def test_a_distractor_of_no_gallery_is_refused(folder: Path) -> None:
    (folder / "protocol/bts3_distractors.txt").write_text("G00009\nG00077\n")
    with pytest.raises(InputError, match=r"distractor 'G00077' is in none of the galleries \(Gallery1, Gallery2\)"):
        experiment(folder)


def test_galleries_without_a_mate_are_refused(folder: Path) -> None:
    for name in ("Gallery1.csv", "Gallery2.csv"):
        text = (folder / "protocol/analysis_main" / name).read_text()
        for number in (1, 2):
            text = text.replace(f"G0000{number},", f"G0010{number},")
        (folder / "protocol/analysis_main" / name).write_text(text)
    with pytest.raises(InputError, match="no probe is mated"):
        experiment(folder)
