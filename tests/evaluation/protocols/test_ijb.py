"""IJB-B and IJB-C: pairs of templates whose subjects follow from the labels, and galleries that are kept apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore.errors import InputError, SourceError
from pfstore.evaluation.protocols.experiment import Experiment
from pfstore.evaluation.protocols.ijb import ijb_1n, ijb_11
from pfstore.evaluation.protocols.pairs import owners_of
from tests.evaluation.protocols.reading import D, bad, collected, frames

# Templates 1 and 3 are of one subject, 2 and 4 of another, 5 of a third.
INDEX = "a.jpg 1 7\nb.jpg 2 7\nc.jpg 1 8\nd.jpg 3 9\ne.jpg 1 7\nf.jpg 4 9\ng.jpg 5 9\n"
PAIRS = "1 3 1\n1 4 0\n2 4 1\n2 3 0\n1 5 0\n"
GALLERY1 = "TEMPLATE_ID,SUBJECT_ID,FILENAME\n1,100,img/1.jpg\n1,100,img/2.jpg\n"
GALLERY2 = "TEMPLATE_ID,SUBJECT_ID,FILENAME\n2,200,img/3.jpg\n"
PROBES = "TEMPLATE_ID,SUBJECT_ID,FILENAME\n3,100,img/4.jpg\n4,200,frames/5.png\n5,300,frames/6.png\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "net.npy", frames(7))
    texts = {
        "face_tid_mid.txt": INDEX, "template_pair_label.txt": PAIRS, "1N_gallery_G1.csv": GALLERY1,
        "1N_gallery_G2.csv": GALLERY2, "1N_probe_mixed.csv": PROBES,
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"ijbc_{name}").write_text(text)
    return tmp_path


def test_pairs_are_compared_as_listed(folder: Path) -> None:
    found = ijb_11(folder / "net.npy", extractor="net")
    assert (found.name, found.dimension, found.extractor, found.identification) == ("IJB-C 1:1", D, "net", False)
    assert scored(found) == [(1, 3, True), (1, 4, False), (2, 4, True), (2, 3, False), (1, 5, False)]
    (gallery,) = found.galleries
    rows = frames(7)
    assert collected(gallery.references).media == {
        "1": {"7": rows[[0, 4]].tolist(), "8": rows[[2]].tolist()},
        "2": {"7": rows[[1]].tolist()},
    }
    assert set(collected(gallery.probes).media) == {"3", "4", "5"}
    assert found.facts["comparisons"] == {"mated": 2, "non_mated": 3}
    assert "searches" not in found.facts


def scored(found: Experiment) -> list[tuple[int, int, bool]]:
    """Return the pairs, mated where the subjects are equal: the rule of scoring."""
    assert found.pairs is not None
    (gallery,) = found.galleries
    sides = [collected(gallery.references), collected(gallery.probes)]
    subjects = [one.subjects | {name: failed[0] for name, failed in one.failures.items()} for one in sides]
    names = [
        [found.pairs.reference_ids[place] for place in found.pairs.references.tolist()],
        [found.pairs.probe_ids[place] for place in found.pairs.probes.tolist()],
    ]
    return [(int(a), int(b), subjects[0][a] == subjects[1][b]) for a, b in zip(*names, strict=True)]


def test_csvs_tell_the_subjects_and_are_checked_against_the_labels(folder: Path) -> None:
    csvs = [folder / f"ijbc_1N_{name}.csv" for name in ("gallery_G1", "gallery_G2", "probe_mixed")]
    found = ijb_11(folder / "net.npy", subjects=csvs)
    assert collected(found.galleries[0].probes).subjects == {"3": "100", "4": "200", "5": "300"}
    assert scored(found) == scored(ijb_11(folder / "net.npy", subjects=csvs[:1]))
    (folder / "ijbc_template_pair_label.txt").write_text(PAIRS + "1 5 1\n")
    with pytest.raises(InputError, match="a label is 1 for templates of the subjects '100' and '300'"):
        ijb_11(folder / "net.npy", subjects=csvs)
    (folder / "ijbc_template_pair_label.txt").write_text("1 3 0\n2 4 1\n1 4 0\n")
    with pytest.raises(InputError, match="1 labels are 0 for templates of one subject, as templates 1 and 3"):
        ijb_11(folder / "net.npy", subjects=csvs)
    csvs[2].write_text(PROBES + "1,101,img/x.jpg\n")
    with pytest.raises(InputError, match="template '1' is of '101', elsewhere of '100'"):
        ijb_11(folder / "net.npy", subjects=csvs)


@given(st.integers(2, 30), st.integers(1, 8), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_labels_of_true_subjects_are_always_reproduced(templates: int, subjects: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(subjects, size=templates)
    pairs = random.integers(templates, size=(40, 2))
    listed = np.c_[pairs, truth[pairs[:, 0]] == truth[pairs[:, 1]]].astype(np.int64)
    known = {str(one): f"s{truth[one]}" for one in range(templates) if random.random() < 0.3}
    owners = owners_of(listed, known, Path("pairs.txt"))
    assert [owners[a] == owners[b] for a, b, _ in listed.tolist()] == (listed[:, 2] == 1).tolist()
    assert {owners[int(one)] for one in known if int(one) in owners} <= set(known.values())


def test_labels_that_contradict_each_other_are_refused(folder: Path) -> None:
    (folder / "ijbc_template_pair_label.txt").write_text("1 3 1\n2 3 1\n2 4 1\n1 4 0\n")
    with pytest.raises(InputError, match="1 labels are 0 for templates of one subject, as templates 1 and 4"):
        ijb_11(folder / "net.npy")


def test_a_template_without_rows_is_a_failure_and_its_pairs_stay(folder: Path) -> None:
    (folder / "ijbc_template_pair_label.txt").write_text(PAIRS + "77 5 0\n1 88 1\n")
    np.save(folder / "net.npy", bad(7, 3))
    found = ijb_11(folder / "net.npy")
    assert collected(found.galleries[0].references).failures == {"77": ("template 77", "empty (no feature)")}
    probes = collected(found.galleries[0].probes)
    assert {name: reason for name, (_, reason) in probes.failures.items()} == {
        "3": "non-finite (NaN or infinite)",
        "88": "empty (no feature)",
    }
    assert scored(found)[-2:] == [(77, 5, False), (1, 88, True)]
    assert found.facts["failures"] == {"references": 1, "probes": 2}


def test_galleries_are_searched_apart_so_that_some_searches_have_no_mate(folder: Path) -> None:
    found = ijb_1n(folder / "net.npy")
    assert found.name == "IJB-C 1:N"
    assert [one.name for one in found.galleries] == ["G1", "G2"]
    assert found.galleries[0].probes is found.galleries[1].probes
    assert collected(found.galleries[0].references).media == {
        "100": {"7": frames(7)[[0, 4]].tolist(), "8": frames(7)[[2]].tolist()}
    }
    assert collected(found.galleries[0].probes, 1).subjects == {"3": "100", "4": "200", "5": "300"}
    assert found.facts["searches"] == [
        {"gallery": "G1", "enrolled": 1, "mated": 1, "non_mated": 2, "failed": 0},
        {"gallery": "G2", "enrolled": 1, "mated": 1, "non_mated": 2, "failed": 0},
    ]


def test_several_templates_of_a_subject_are_one_reference(folder: Path) -> None:
    (folder / "ijbc_1N_gallery_G1.csv").write_text("1,100\n2,100\n99,900\n")
    references = collected(ijb_1n(folder / "net.npy").galleries[0].references)
    assert references.media["100"]["7"] == frames(7)[[0, 1, 4]].tolist()
    assert references.failures == {"900": ("900", "empty (no feature)")}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("template_pair_label.txt", "1 3\n", r"\[1, 2\] numbers instead of lines"),
        ("template_pair_label.txt", "", r"numbers instead of lines"),
        ("template_pair_label.txt", "1 3 1\n1 x 0\n", "not lines of three whole numbers.*could not convert string 'x'"),
        ("template_pair_label.txt", "1 3 1\n1 4\n", "not lines of three whole numbers.*columns changed from 3 to 2"),
        ("template_pair_label.txt", "1 3 1\n1 4 2\n", r"label.txt:2: the label is 1 \(one subject\) or 0, not 2"),
        ("template_pair_label.txt", "10 30 1\n", "names none of the templates that have features"),
        ("template_pair_label.txt", "1 4 0\n", "no probe is mated"),
        ("face_tid_mid.txt", INDEX + "h.jpg 6 1\n", r"the shape is \[7, 8\], but .* has 8 lines"),
        ("face_tid_mid.txt", "a.jpg 1\n", "not of the form"),
    ],
)
def test_pairs_that_are_wrong_are_said_by_name(folder: Path, name: str, text: str, message: str) -> None:
    (folder / f"ijbc_{name}").write_text(text)
    with pytest.raises((InputError, SourceError), match=message):
        ijb_11(folder / "net.npy")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("1N_gallery_G1.csv", None, r"there is no \*_1N_gallery_\[GS\]1.csv; name the file"),
        ("1N_gallery_G1.csv", "71,1\n", "ijbc_1N_gallery_G1.csv: names none of the templates that have features"),
        ("1N_probe_mixed.csv", "3,100\n3,200\n", "template '3' is of two subjects"),
        ("1N_probe_mixed.csv", "5,300\n", r"no probe is mated: the subjects of the probes \('300'\)"),
        ("1N_probe_mixed.csv", "nothing\n", "not of the form"),
    ],
)
def test_searches_that_are_wrong_are_said_by_name(folder: Path, name: str, text: Any, message: str) -> None:
    if text is None:
        (folder / f"ijbc_{name}").unlink()
    else:
        (folder / f"ijbc_{name}").write_text(text)
    with pytest.raises((InputError, SourceError), match=message):
        ijb_1n(folder / "net.npy")


def test_files_may_be_named_one_by_one(folder: Path) -> None:
    (folder / "other_face_tid_mid.txt").write_text(INDEX)
    with pytest.raises(InputError, match=r"there is 2 files \*_face_tid_mid.txt"):
        ijb_1n(folder / "net.npy")
    found = ijb_1n(
        folder / "net.npy", index=folder / "other_face_tid_mid.txt", galleries=[folder / "ijbc_1N_gallery_G2.csv"]
    )
    assert [one.name for one in found.galleries] == ["G2"]
