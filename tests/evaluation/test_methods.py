"""What is compared has names that tell it apart, and fits the features or is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pfstore.errors import ContractError, ModelError
from pfstore.evaluation.methods import STRATEGIES, Method, check, fitting, load_methods
from pfstore.evaluation.protocols.experiment import Experiment, Gallery
from pfstore.fusion import BASELINES, ProxyFusionModel, random_model, to_bytes
from pfstore.parts import Parts
from tests.evaluation.samples import Counting, D, experiment, made_up

SEEN = "it may have seen them in training"


def model(card: Any = None, dimension: int = D, seed: int = 0) -> ProxyFusionModel:
    network = random_model(dimension, experts=2, selected=2, seed=seed).network
    return ProxyFusionModel(network, origin="trained", card=card)


def trained(extractor: str = "net", parts: Parts | None = None) -> dict[str, Any]:
    return {"contract": {"extractor": extractor, "dimension": D}, "parts": (parts or Parts()).as_dict()}


def given(**more: Any) -> Experiment:
    samples = Counting(made_up(2, "x", 0))
    return experiment(Gallery("one", samples, samples), **more)


def checked(card: Any, **more: Any) -> list[str]:
    fuser = model(card)
    return check([Method("it (media)", fuser, "media"), Method("it (set)", fuser, "set")], given(**more))


def test_baselines() -> None:
    assert [one.label for one in load_methods(["baselines"], ["set"])] == list(BASELINES)
    both = load_methods(["average", "baselines", "average"])
    assert [one.label for one in both] == [f"{name} ({one})" for name in BASELINES for one in ("media", "set")]
    assert [one.strategy for one in both] == ["media", "set"] * 3


def test_files_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/m.safetensors", "b/m.safetensors", "n.safetensors", "average.safetensors")]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(to_bytes(model(seed=number)))
    names = [str(path) for path in paths]
    methods = load_methods([*names, "average", names[2]], ["media"])
    assert [one.label for one in methods] == [names[0], names[1], "n", names[3], "average"]
    assert len({one.fuser.digest for one in methods}) == 5


def test_a_checkpoints_settings_are_not_a_baselines(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(to_bytes(model()))
    methods = load_methods(["average", str(path)], ["set"], experts_selected=2, normalisation="raw")
    assert [one.fuser.blocks for one in methods] == [1, 2]


def test_what_is_no_model() -> None:
    with pytest.raises(ModelError, match="there is no file averages, and no baseline of that name"):
        load_methods(["averages"])


def test_another_extractor_is_refused_with_both_named() -> None:
    message = "it (media) was trained on features of 'other', made up has 'net': its scores would mean nothing"
    with pytest.raises(ContractError, match=re.escape(message)):
        checked(trained("other"))
    # Where one of them is not told, nothing is known.
    assert checked(trained("other"), extractor="") == []
    assert checked(None) == []


def test_another_dimension_is_refused_with_both_named() -> None:
    message = f"it takes features of {D + 2} values, made up has {D}: another extractor made them"
    with pytest.raises(ContractError, match=message):
        check([Method("it", model(dimension=D + 2), "set")], given())


def test_the_test_part_of_the_models_own_split_is_new_to_it() -> None:
    facts = {"part": "test", "parts": Parts().as_dict()}
    assert checked(trained(), facts=facts) == []


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"part": "train", "parts": Parts().as_dict()},
        {"part": "validation", "parts": Parts().as_dict()},
        {"part": "test", "parts": Parts(seed=1).as_dict()},
        {"part": "test", "parts": Parts(0.6, 0.2, 0.2).as_dict()},
    ],
)
def test_other_subjects_may_have_been_trained_on(facts: dict[str, Any]) -> None:
    (said,) = checked(trained(), facts=facts)
    assert said.startswith("it was trained on features of the same extractor, ")
    assert said.endswith(SEEN)


def test_each_model_is_warned_of_by_its_name() -> None:
    methods = [Method(f"net ({number}) (set)", model(trained(), seed=number), "set") for number in (1, 2)]
    said = check(methods, given())
    assert [one.split(" was")[0] for one in said] == ["net (1)", "net (2)"]


@pytest.mark.parametrize("card", [{}, {"contract": "none"}, {"contract": {"extractor": 3}}, {"parts": "all"}])
def test_a_card_may_say_anything(card: dict[str, Any]) -> None:
    assert checked(card) == []


def test_another_extractor_is_evaluated_only_when_asked_for() -> None:
    methods = [Method(f"it ({one})", model(trained("other")), one) for one in STRATEGIES]
    (said,) = check(methods, given(), ignore_extractor=True)
    assert said.startswith("it was trained on features of 'other'")


def test_a_strategy_that_tells_nothing_apart_is_left_out() -> None:
    methods = load_methods(["average", "norm-weighted"])
    single = {"media": {"references": 5}, "references": 7, "failures": {"references": 2}}
    left = fitting(methods, given(facts=single))
    assert [(one.label, one.strategy) for one in left] == [("average", "set"), ("norm-weighted", "set")]
    for facts in (single | {"media": {"references": 6}}, {}):
        assert fitting(methods, given(facts=facts)) == methods
    for strategy in STRATEGIES:
        asked = load_methods(["average"], [strategy])
        assert fitting(asked, given(facts=single)) == asked


def test_a_published_checkpoint_has_a_short_name(tmp_path: Path) -> None:
    path = tmp_path / "ada.face.pth.tar"
    path.write_bytes((Path(__file__).parents[1] / "golden" / "reference_d32_e11_k4.pth.tar").read_bytes())
    assert [one.label for one in load_methods([str(path)], ["set"])] == ["ada.face"]
