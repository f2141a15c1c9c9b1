from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore.errors import ConfigError, InputError
from pfstore.evaluation import collecting, comparing, distributions, ladders, tails
from pfstore.evaluation.scoring import KINDS, Targets, scored
from pfstore.evaluation.templates import FusedGallery, Templates
from tests.evaluation.scores import by_target, counts_at, gallery_of, pooled, random_gallery, side

MEBIBYTE = 2**20
TARGETS = Targets(fmr=(0.3, 0.1, 0.01), fpir=(0.5, 0.1), ranks=(1, 2, 5))


@st.composite
def coarse_galleries(draw: st.DrawFn) -> list[FusedGallery]:
    """One or two galleries of few distinct scores, so that ties are everywhere, with failures here and there."""
    made = []
    for number in range(draw(st.integers(1, 2))):
        names = draw(st.permutations("abcdef"))[: draw(st.integers(1, 5))]
        probes = draw(st.lists(st.sampled_from("abcdefgh"), min_size=0, max_size=8))
        level = st.sampled_from([-0.25, 0.0, 0.125, 0.25, 0.375])
        scores = [[draw(level) for _ in names] for _ in probes]
        failed = draw(st.lists(st.sampled_from("agh"), max_size=2))
        made.append(gallery_of(scores, names, probes, failed_probes=failed, name=f"gallery {number}"))
    return made


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(coarse_galleries())
def test_pooled_galleries_against_all_scores_at_once(kind: str, galleries: list[FusedGallery]) -> None:
    mated, non_mated = pooled(galleries, kind)
    [one] = scored(galleries, TARGETS, kinds=[kind], bootstrap=0)
    verification = one.verification
    assert (verification.mated, verification.non_mated) == (len(mated), len(non_mated))
    for target, row in by_target(one).items() if len(non_mated) else ():
        most = int(Fraction(repr(target)) * len(non_mated))
        assert (row.fmr.errors, row.fnmr.errors) == counts_at(mated, non_mated, most)
        assert (row.fmr.trials, row.fnmr.trials, row.supported) == (len(non_mated), len(mated), most >= 1)


def shuffled(templates: Templates, seed: int) -> Templates:
    order = np.random.default_rng(seed).permutation(len(templates.ids))
    return replace(
        templates,
        values=templates.values[order],
        ids=[templates.ids[place] for place in order],
        subjects=[templates.subjects[place] for place in order],
        features=templates.features[order],
    )


def figures(galleries: Sequence[FusedGallery], *, backwards: bool = False) -> str:
    """Everything that is scored, to the last digit; backwards: the galleries' own figures in reverse."""
    found = [asdict(one) for one in scored(galleries, TARGETS, bootstrap=20, seed=1)]
    for one in found:
        one["identifications"] = one["identifications"][:: -1 if backwards else 1]
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        return repr(found)


SMALL: Any = {
    comparing: ["BLOCK", "MOST_ROWS", "LEAST_ROWS", "TILE"],
    collecting: ["CHUNK"],
    distributions: ["SORTED", "MARGIN"],
}


@pytest.mark.parametrize("capacity", [tails.CAPACITY, 16])
@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40))
def test_neither_order_nor_blocks_matter(capacity: int, seed: int, block: int, rows: int) -> None:
    """Templates are as they come, so scores would differ in their last bits if sums were rounded."""
    first = random_gallery(11, 23, others=3, noise=2, seed=seed)
    second = replace(first, name="another", references=random_gallery(7, 1, others=9, seed=seed).references)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tails, "CAPACITY", capacity)
        patch.setattr(ladders, "CAPACITY", capacity)
        expected = figures([first, second])
        for module, names in SMALL.items():
            for name in names:
                patch.setattr(module, name, rows if "ROWS" in name else block)
        mixed = [
            replace(one, references=shuffled(one.references, seed), probes=shuffled(one.probes, seed))
            for one in (second, first)
        ]
        assert figures(mixed, backwards=True) == expected


def test_the_same_template_has_the_same_score_anywhere() -> None:
    """Sums in float32 differ with the place in the matrix; a subject enrolled as another's copy must tie with it."""
    gallery = random_gallery(37, 37)
    values = np.repeat(gallery.references.values[:1], 37, axis=0)
    copies = replace(gallery, references=replace(gallery.references, values=values))
    [one] = scored([copies], kinds=["raw"], bootstrap=0)
    assert one.identifications[0].ranks[20].errors == 0
    assert one.verification.eer == 0.5


def test_cohort_scores_are_probabilities_within_one_gallery() -> None:
    gallery = gallery_of([[0.5, 0.25], [0.125, 0.0]], "ab", "ab")
    [one] = scored([gallery], Targets(fmr=[0.5]), kinds=["cohort"], bootstrap=0)
    # Probe a: e^.5 against e^.25. Probe b: its mate's 1 against e^.125, the highest non-mated.
    non_mated = sorted([1 / (1 + np.exp(0.25)), 1 / (1 + np.exp(-0.125))])
    assert one.verification.at[0].threshold == pytest.approx(non_mated[0], rel=1e-6)
    assert one.verification.at[0].fnmr.errors == 0
    raw = scored([gallery], Targets(fmr=[0.5]), kinds=["raw"], bootstrap=0)[0]
    assert raw.verification.at[0].fnmr.errors == 1


def test_a_softmax_changes_no_rank() -> None:
    raw, cohort = (one.identifications[0] for one in scored([random_gallery(50, 100, noise=3)], bootstrap=0))
    assert [one.errors for one in raw.ranks.values()] == [one.errors for one in cohort.ranks.values()]
    assert np.array_equal(raw.cmc, cohort.cmc)
    assert 0 < raw.ranks[1].errors < raw.ranks[20].errors < 100


def test_kinds_come_in_the_order_that_is_asked_for() -> None:
    gallery = random_gallery(5, 5)
    assert [one.scores for one in scored([gallery], bootstrap=0)] == ["raw", "cohort"]
    assert [one.scores for one in scored([gallery], kinds=["cohort", "raw"], bootstrap=0)] == ["cohort", "raw"]
    with pytest.raises(ValueError, match="kinds must be of"):
        scored([gallery], kinds=["cooked"])


def both(gallery: FusedGallery) -> list[Templates]:
    return [gallery.references, gallery.probes]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5])
@pytest.mark.parametrize("role", ["reference", "probe"])
def test_a_template_that_is_no_unit_vector_is_named(value: float, role: str) -> None:
    gallery = random_gallery(5, 9)
    side = gallery.references if role == "reference" else gallery.probes
    values = side.values.copy()
    values[3, 2] = value
    spoilt = FusedGallery("spoilt", *(replace(one, values=values) if one is side else one for one in both(gallery)))
    with pytest.raises(InputError, match=f"template of {role} '{role[0]}3'"):
        scored([spoilt])


def test_templates_of_two_sizes_are_refused() -> None:
    gallery = FusedGallery("g", side(np.eye(2, 3), "ab", "r"), side(np.eye(1, 4), "a", "p"))
    with pytest.raises(InputError, match="templates of 3 and of 4 values"):
        scored([gallery])


@pytest.mark.parametrize("wrong", [{"fmr": [0.1, 0]}, {"fpir": [1.0]}, {"ranks": [0]}, {"fmr": [float("nan")]}])
def test_impossible_targets_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        Targets(**wrong)


PROGRAM = """
import resource
import numpy as np
from pfstore.evaluation.scoring import scored
from pfstore.evaluation.templates import FusedGallery
from tests.evaluation.scores import side, unit

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def gallery(count):
    random = np.random.default_rng(0)
    sides = [unit(random.standard_normal((count, 64))) for _ in range(2)]
    names = [str(number) for number in range(count)]
    return FusedGallery("g", side(sides[0], names, "r"), side(sides[1], names, "p"))

scored([gallery(50)])
large = gallery(8_000)
before = peak()
[one] = scored([large], kinds=["raw"], bootstrap=100)
assert one.verification.non_mated == 8_000 * 7_999
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in KiB on Linux only")
def test_memory_is_bounded() -> None:
    """The scores of 8,000 by 8,000 would be 244 MiB in float32, and sorting them takes that once more."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 320 * MEBIBYTE
