"""A split of any source: disjoint media on the two sides, the same each time, and enough of everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore.errors import InputError
from pfstore.evaluation.protocols.experiment import Experiment
from pfstore.evaluation.protocols.split import split_experiment
from pfstore.parts import Parts
from pfstore.sources.files import FileSource
from tests.conftest import REALDATA
from tests.evaluation.protocols.reading import Collected, D, collected


def saved(path: Path, media: list[int], *, views: int = 2, named: bool = True) -> Path:
    """Write a source in which subject i has media[i] media of so many features; all features differ."""
    subject = np.repeat(np.arange(len(media)), np.array(media) * views)
    medium = np.concatenate([np.repeat(np.arange(count), views) for count in media])
    features = np.random.default_rng(0).normal(size=(len(subject), D)).astype(np.float32)
    arrays: dict[str, Any] = {"features": features, "subject": subject.astype(str)}
    if named:
        arrays["medium"] = medium
    np.savez(path, **arrays)
    return path


def split(path: Path, **given: Any) -> Experiment:
    with FileSource(path, extractor="net", name="x") as source:
        return split_experiment(source, **given)


def sides(found: Experiment) -> list[tuple[Collected, Collected]]:
    return [(collected(one.references), collected(one.probes)) for one in found.galleries]


@given(st.lists(st.integers(1, 8), min_size=2, max_size=12).filter(lambda media: sum(m > 1 for m in media) > 1),
       st.integers(0, 5), st.integers(1, 3))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_medium_is_on_both_sides(
    tmp_path_factory: pytest.TempPathFactory, media: list[int], seed: int, most: int
) -> None:
    path = saved(tmp_path_factory.mktemp("split") / "x.npz", media)
    found = split(path, seed=seed, media=(1, most), draws=2, unenrolled=0)
    assert [one.name for one in found.galleries] == ["draw 1", "draw 2"]
    for references, probes in sides(found):
        able = {str(number) for number, count in enumerate(media) if count > 1}
        assert set(references.media) & set(probes.media) == able
        strangers = set(references.media) ^ set(probes.media)
        assert strangers == {str(number) for number, count in enumerate(media) if count == 1}
        for subject in able:
            assert not set(references.media[subject]) & set(probes.media[subject])
        for side in (references, probes):
            assert side.subjects == {one: one for one in side.media}
            assert all(1 <= len(one) <= most for one in side.media.values())
            assert all(len(rows) == 2 for one in side.media.values() for rows in one.values())


def test_strangers_are_searched_and_fill_the_galleries(tmp_path: Path) -> None:
    found = split(saved(tmp_path / "x.npz", [3, 3, 1, 1, 1, 1, 1]), draws=2)
    assert found.facts["roles"] == {"both": 2, "searched": 3, "distractors": 2}
    assert found.facts["searches"] == [
        {"gallery": f"draw {draw}", "enrolled": 4, "mated": 2, "non_mated": 3, "failed": 0} for draw in (1, 2)
    ]
    assert found.warnings == []


def test_without_strangers_some_subjects_are_kept_out_of_the_gallery(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npz", [3] * 30)
    found = split(path, draws=1)
    assert found.facts["roles"] == {"both": 27, "searched": 3, "distractors": 0}
    assert found.facts["searches"][0]["non_mated"] == 3
    ((references, probes),) = sides(found)
    assert set(references.media) < set(probes.media)
    everybody = split(path, draws=1, unenrolled=0)
    assert everybody.facts["roles"] == {"both": 30, "searched": 0, "distractors": 0}
    assert "no search is non-mated" in everybody.warnings[0]


def test_two_subjects_stay_on_both_sides_however_few_there_are(tmp_path: Path) -> None:
    for count, searched in ((2, 0), (3, 1), (4, 1)):
        roles = split(saved(tmp_path / "x.npz", [2] * count)).facts["roles"]
        assert roles == {"both": count - searched, "searched": searched, "distractors": 0}


def test_the_same_seed_draws_the_same_and_another_one_others(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npz", [6] * 12)
    first, again, other = (sides(split(path, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len({str(draw) for draw in first}) == 3


def test_a_subject_is_drawn_the_same_whoever_else_is_there(tmp_path: Path) -> None:
    many = saved(tmp_path / "many.npz", [5] * 20)
    content = dict(np.load(many))
    few = np.isin(content["subject"], ["3", "7", "8"])
    np.savez(tmp_path / "few.npz", **{name: value[few] for name, value in content.items()})
    whole, part = (sides(split(path, unenrolled=0)) for path in (many, tmp_path / "few.npz"))
    for (references, probes), (fewer_references, fewer_probes) in zip(whole, part, strict=True):
        for subject in ("3", "7", "8"):
            assert references.media[subject] == fewer_references.media[subject]
            assert probes.media[subject] == fewer_probes.media[subject]


def test_sides_are_of_equal_sizes_on_average(tmp_path: Path) -> None:
    found = split(saved(tmp_path / "x.npz", [3] * 400, views=1), draws=3, unenrolled=0)
    counts = np.array([[len(side.media[one]) for side in draw] for draw in sides(found) for one in draw[0].media])
    # One medium against two, or two against one, or one against one: each side has 4/3 on average.
    assert np.abs(counts.mean(0) - counts.mean()).max() < 0.06
    assert set(map(tuple, counts.tolist())) == {(1, 1), (1, 2), (2, 1)}


def test_only_the_subjects_of_the_part_are_taken(tmp_path: Path) -> None:
    path, parts = saved(tmp_path / "x.npz", [2] * 60), Parts(0.4, 0.2, 0.4, seed=5)
    subjects: dict[Any, set[str]] = {}
    for part in ("train", "validation", "test"):
        found = split(path, parts=parts, part=part, draws=1)
        subjects[part] = set(sides(found)[0][1].media)
        assert subjects[part] == {str(one) for one in range(60) if parts.of(str(one)) == part}
        assert (found.facts["part"], found.facts["parts"]) == (part, parts.as_dict())
        assert found.facts["features"]["read"] == 4 * len(subjects[part])
    assert len(set.union(*subjects.values())) == 60


def test_a_source_without_media_is_split_by_its_features(tmp_path: Path) -> None:
    found = split(saved(tmp_path / "x.npz", [2] * 6, views=2, named=False), draws=1, media=(2, 2), unenrolled=0)
    ((references, probes),) = sides(found)
    for subject in references.media:
        both = references.media[subject] | probes.media[subject]
        assert set(both) == {"0", "1", "2", "3"}
        assert len({tuple(row) for rows in both.values() for row in rows}) == 4


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npz", [2] * 10)
    content = dict(np.load(path))
    content["features"][[3, 4]] = np.nan
    content["features"][9] = 0
    np.savez(path, **content)
    found = split(path)
    assert found.facts["features"] == {"read": 40, "used": 37, "rejected": {"non-finite": 2, "zero norm": 1}}
    assert found.warnings == [
        "3 of the 40 features of the source were left out: 2 non-finite, first '0' row 3: 8 of 8 values; "
        "1 zero norm, first '2' row 9: norm 0"
    ]


@pytest.mark.parametrize(
    ("media", "given", "message"),
    [
        ([5, 1, 1], {}, "split: 1 of 3 subjects have 2 media or more, as a reference and a probe need; at least 2"),
        ([5, 3, 3], {"media": (2, 3)}, "split: 1 of 3 subjects have 4 media or more"),
        ([5, 5], {"parts": Parts(1, 0, 0)}, "split, test part: 0 of 0 subjects have 2 media"),
        ([5, 5], {"draws": 0}, "draws: at least one, not 0"),
        ([5, 5], {"media": (0, 3)}, "media: from at least 1 to at least as many, not 0 to 3"),
        ([5, 5], {"media": (3, 2)}, "media: from at least 1 to at least as many, not 3 to 2"),
        ([5, 5], {"unenrolled": 1}, "unenrolled: a fraction of the subjects, 0 to less than 1, not 1"),
    ],
)
def test_what_cannot_be_split_is_said_by_name(
    tmp_path: Path, media: list[int], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        split(saved(tmp_path / "x.npz", media), **given)


def test_a_source_without_any_feature_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=np.empty((0, D)), subject=np.empty(0, dtype="U1"))
    with pytest.raises(InputError, match="no feature of the source can be decoded"):
        split(tmp_path / "x.npz")


def test_real_photographs_are_split_by_photo(tmp_path: Path) -> None:
    path = REALDATA / "lfw_mobileface.npz"
    if not path.exists():
        pytest.skip(f"there is no {path.name} beside this checkout")
    content = dict(np.load(path))
    degraded = content["view"] > 0
    kept = {name: content[name][degraded] for name in ("features", "subject", "medium")}
    np.savez(tmp_path / "x.npz", **kept)
    parts = Parts()
    found = split(tmp_path / "x.npz", parts=parts)
    media = {str(one): np.unique(kept["medium"][kept["subject"] == one]) for one in np.unique(kept["subject"])}
    tested = {one for one in media if parts.of(one) == "test"}
    able = {one for one in tested if len(media[one]) > 1}
    assert found.facts["roles"]["both"] == len(able)
    assert found.facts["roles"]["searched"] + found.facts["roles"]["distractors"] == len(tested) - len(able)
    assert found.facts["features"] == {"read": 3 * sum(len(media[one]) for one in tested), "rejected": {},
                                       "used": 3 * sum(len(media[one]) for one in tested)}  # fmt: skip
    for references, probes in sides(found):
        assert set(references.media) & set(probes.media) == able
        for subject in able:
            photos = [set(side.media[subject]) for side in (references, probes)]
            assert not photos[0] & photos[1]
            assert photos[0] | photos[1] <= set(map(str, media[subject].tolist()))
            assert all(len(views) == 3 for side in (references, probes) for views in side.media[subject].values())
