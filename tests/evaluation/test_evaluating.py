"""An evaluation is what scoring says of templates that were fused by hand, each sample read once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args

import numpy as np
import pytest

from pfstore.errors import ContractError, InputError
from pfstore.evaluation.evaluating import Progress, evaluate
from pfstore.evaluation.methods import Method, Strategy
from pfstore.evaluation.protocols.experiment import Failure, Gallery
from pfstore.evaluation.results import Evaluation, MethodResult
from pfstore.evaluation.scoring import Targets, scored
from pfstore.evaluation.templates import FusedGallery, Templates
from pfstore.fusion import Fuser, Role, load_model, random_model
from tests.evaluation.samples import Counting, D, batch_of, experiment, made_up

TARGETS = Targets((0.1, 0.01), (0.1,), (1, 3))
NETWORK = random_model(D, experts=3, selected=2)
AVERAGE = load_model("average")


def both(fuser: Fuser, name: str) -> list[Method]:
    return [Method(f"{name} ({one})", fuser, one) for one in get_args(Strategy)]


def by_hand(samples: Counting, fuser: Fuser, strategy: Strategy, role: Role) -> Templates:
    batch = batch_of(samples.samples)
    if role == "gallery" and strategy == "media":
        values = fuser.templates_media(batch.features, batch.media_offsets, batch.subject_offsets, role)
    else:
        values = fuser.templates(batch.features, batch.set_offsets, role)
    subjects = [one[1] for one in samples.samples]
    return Templates(values, batch.subject_ids, subjects, np.diff(batch.set_offsets), samples.failures)


def run(*galleries: Gallery, methods: list[Method], **more: Any) -> Evaluation:
    return evaluate(experiment(*galleries), methods, TARGETS, bootstrap=20, seed=3, **more)


def plain(scores: Any) -> Any:
    """Figures with NaN and arrays as what can be compared."""
    return Evaluation("", "", 0, {}, [], None, [MethodResult("", {}, "", 0, 0, 0, scores)]).as_dict()  # type: ignore[arg-type]


def near(one: Any, other: Any) -> bool:
    """Whether figures are the same but for what a batch's company leaves in a network's float32."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(near, one, other))
    return (
        bool(one == pytest.approx(other, rel=1e-4, abs=1e-5, nan_ok=True)) if isinstance(one, float) else one == other
    )


@pytest.mark.parametrize("strategy", get_args(Strategy))
@pytest.mark.parametrize("fuser", [NETWORK, AVERAGE], ids=["network", "average"])
def test_the_figures_are_those_of_templates_fused_by_hand(fuser: Fuser, strategy: Strategy) -> None:
    references = Counting(made_up(14, "r", 1), [Failure("r-", "s99", "empty")])
    probes = Counting(made_up(18, "p", 2), [Failure("p-", "s3", "empty"), Failure("p--", "s98", "empty")])
    found = run(Gallery("one", references, probes), methods=[Method("it", fuser, strategy)])
    fused = [by_hand(references, fuser, strategy, "gallery"), by_hand(probes, fuser, strategy, "probe")]
    expected = scored([FusedGallery("one", *fused)], TARGETS, bootstrap=20, seed=3)
    (method,) = found.methods
    assert near(plain(method.scored), plain(expected))
    assert (method.label, method.strategy, method.values) == ("it", strategy, fused[0].values.shape[1])
    assert method.features == 32 * 5
    assert method.model["digest"] == fuser.digest
    assert asdict(found.acquisition) == {
        "probes": 20, "probe_failures": 2, "references": 15, "reference_failures": 1,
    }  # fmt: skip


def test_strategies_differ_where_there_are_media_and_nowhere_else() -> None:
    def thresholds(sizes: tuple[int, ...]) -> list[Any]:
        gallery = Gallery("one", Counting(made_up(12, "r", 1, sizes)), Counting(made_up(12, "p", 2, sizes)))
        found = run(gallery, methods=both(AVERAGE, "average"))
        return [method.scored[0].verification.curve.thresholds.tolist() for method in found.methods]

    media, sets = thresholds((4, 1))
    assert media != sets
    media, sets = thresholds((5,))
    assert media == pytest.approx(sets, abs=1e-6)


def test_samples_that_galleries_share_are_read_and_counted_once() -> None:
    probes = Counting(made_up(9, "p", 2), [Failure("p-", "s2", "empty")])
    galleries = [Gallery(str(number), Counting(made_up(9, "r", number)), probes) for number in range(3)]
    seen: list[Progress] = []
    found = run(*galleries, methods=[*both(AVERAGE, "average"), *both(NETWORK, "net")], observe=seen.append)
    assert probes.reads == 1
    assert [gallery.references.reads for gallery in galleries] == [1, 1, 1]  # type: ignore[attr-defined]
    assert (found.acquisition.probes, found.acquisition.probe_failures) == (10, 1)
    assert (found.acquisition.references, found.acquisition.reference_failures) == (27, 0)
    assert [method.features for method in found.methods] == [4 * 45] * 4
    assert [one.method for one in seen if one.method] == [method.label for method in found.methods]
    assert [one.gallery for one in found.methods[0].scored[0].identifications] == ["0", "1", "2"]


def test_samples_on_both_sides_are_fused_in_each_role() -> None:
    same = Counting(made_up(8, "x", 1))
    found = run(Gallery("one", same, same), methods=[Method("net", NETWORK, "set")])
    fused = FusedGallery("one", by_hand(same, NETWORK, "set", "gallery"), by_hand(same, NETWORK, "set", "probe"))
    assert near(plain(found.methods[0].scored), plain(scored([fused], TARGETS, bootstrap=20, seed=3)))
    assert same.reads == 2


def test_what_cancels_is_a_failure_of_that_method_alone() -> None:
    up = np.eye(D, dtype=np.float32)[:1]
    whole, zero = made_up(6, "r", 1), np.concatenate([up, -up])
    # As a set this one has a direction; its first medium has none.
    medium = ("r6", "s6", [zero, np.eye(D, dtype=np.float32)[1:2]])
    references = Counting([*whole[:2], medium, *whole[2:]])
    probes = Counting([*made_up(5, "p", 2), ("p6", "s6", [zero]), ("p7", "s0", [up, -up])])
    found = run(Gallery("one", references, probes), methods=[*both(AVERAGE, "average"), *both(NETWORK, "net")])
    media, sets, *networks = (method.scored[0] for method in found.methods)
    assert (media.identifications[0].enrolled, sets.identifications[0].enrolled) == (6, 7)
    assert (media.verification.mated, media.verification.non_mated) == (5, 5 * 6 - 5)
    assert (sets.verification.mated, sets.verification.non_mated) == (5, 5 * 7 - 5)
    # The probes p6 and p7 are mated searches that fail, that of s6 also where its reference does.
    assert (media.identifications[0].failures, sets.identifications[0].failures) == (2, 2)
    # Something was acquired of each, whatever a method makes of it.
    assert asdict(found.acquisition) == {"probes": 7, "probe_failures": 0, "references": 7, "reference_failures": 0}
    said = "no template, as their features cancel to zero; they count as its failures"
    assert found.warnings == [
        f"average (media) gives 1 reference {said}: 'r6'",
        f"average (media) gives 2 probes {said}: 'p6', 'p7'",
        f"average (set) gives 2 probes {said}: 'p6', 'p7'",
    ]
    for network in networks:
        assert network.identifications[0].enrolled == 7
        assert (network.verification.mated, network.identifications[0].failures) == (7, 0)
    left = Counting([one for one in references.samples if one[0] != "r6"], [Failure("r6", "s6", "")])
    searched = Counting(probes.samples[:5], [Failure("p6", "s6", ""), Failure("p7", "s0", "")])
    fused = FusedGallery(
        "one", by_hand(left, AVERAGE, "media", "gallery"), by_hand(searched, AVERAGE, "media", "probe")
    )
    assert near(plain(found.methods[0].scored), plain(scored([fused], TARGETS, bootstrap=20, seed=3)))


def test_nothing_left_to_compare() -> None:
    up = np.eye(D, dtype=np.float32)[:1]
    void = Counting([(f"p{number}", f"s{number}", [up, -up]) for number in range(4)])
    with pytest.raises(InputError, match="average gives no probe of one a template: all cancel to zero"):
        run(Gallery("one", Counting(made_up(4, "r", 1)), void), methods=[Method("average", AVERAGE, "media")])


def test_a_model_that_does_not_fit_is_refused_before_anything_is_read() -> None:
    samples = Counting(made_up(4, "r", 1))
    methods = [Method("average", AVERAGE, "set"), Method("other", random_model(D + 1, 2, 2), "set")]
    with pytest.raises(ContractError, match=f"other takes features of {D + 1} values, made up has {D}"):
        run(Gallery("one", samples, samples), methods=methods)
    assert samples.reads == 0


def test_the_same_evaluation_twice() -> None:
    def once(per_batch: int) -> Any:
        references = Counting(made_up(9, "r", 1), per_batch=per_batch)
        gallery = Gallery("one", references, Counting(made_up(9, "p", 2), per_batch=per_batch))
        found = run(gallery, methods=both(NETWORK, "net")).as_dict()
        del found["settings"]["date"]
        return [{**method, "seconds": 0} for method in found.pop("methods")], found

    first = once(3)
    assert first == once(3)
    assert near(first, once(2))
    settings = first[1]["settings"]
    assert (settings["replicates"], settings["seed"]) == (20, 3)
    assert settings["targets"] == {"fmr": [0.1, 0.01], "fpir": [0.1], "ranks": [1, 3]}
