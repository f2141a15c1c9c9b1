from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pfstore.errors import BusyError, ConfigError, ConflictError, InputError
from pfstore.fusion import NanModel, NetworkModel, ProxyFusionModel, load_model
from pfstore.parts import Parts
from pfstore.training.loop import Progress
from pfstore.training.options import Options
from pfstore.training.state import SUFFIX
from pfstore.training.training import Trained, train
from tests.training.samples import DIMENSION, half_bad, joined, people

QUICK = Options(
    experts=2, selected=2, domain=3, subjects_per_batch=20, epochs=8, validations=4, parts=Parts(0.6, 0.2, 0.2)
)


def run(out: Path, options: Options = QUICK, **more: Any) -> Trained:
    data = more.pop("data", None) or people()
    return train(data, options, out, extractor="made-up/sphere", label="people", **more)


def test_the_same_training_gives_the_same_file(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a.safetensors"), run(tmp_path / "b.safetensors", replace(QUICK, workers=0))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert first.model.digest == second.model.digest
    assert run(tmp_path / "c.safetensors", replace(QUICK, seed=1)).model.digest != first.model.digest


@pytest.mark.parametrize("method", ["proxyfusion", "nan"])
@pytest.mark.parametrize("after", [1, 5, 13])
def test_an_interrupted_training_ends_in_the_same_file(tmp_path: Path, after: int, method: Any) -> None:
    options = replace(QUICK, method=method)
    whole = run(tmp_path / "whole.safetensors", options)

    def interrupt(now: Progress) -> None:
        if now.step == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut.safetensors", options, observe=interrupt)
    assert not (tmp_path / "cut.safetensors").exists()
    seen: list[int] = []
    resumed = run(tmp_path / "cut.safetensors", options, observe=lambda now: seen.append(now.step))
    assert resumed.model.digest == whole.model.digest
    every = whole.outcome.steps // 4
    assert seen[0] == after // every * every + 1
    assert [path.name for path in tmp_path.glob(f"*{SUFFIX}*")] == []


def test_an_unfinished_training_is_not_mixed_with_another(tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"

    def interrupt(now: Progress) -> None:
        if now.point is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out, observe=interrupt)
    with pytest.raises(ConflictError, match="other data or options"):
        run(out, replace(QUICK, learning_rate=2e-3))
    state = out.with_name(out.name + SUFFIX)
    state.write_bytes(state.read_bytes()[:50])
    with pytest.raises(InputError, match="damaged"):
        run(out)
    assert run(out, restart=True).outcome.steps > 0


def test_the_file_is_a_model_with_its_card_and_contract(tmp_path: Path) -> None:
    trained = run(tmp_path / "model.safetensors")
    model = load_model(tmp_path / "model.safetensors")
    assert isinstance(model, ProxyFusionModel)
    assert model.digest == trained.model.digest
    card = model.card
    assert card is not None
    assert card["contract"] == {
        "extractor": "made-up/sphere",
        "dimension": DIMENSION,
        "normalisation": model.normalisation,
    }
    assert card["data"]["digest"] == people().digest()
    assert sum(card["part_subjects"].values()) == len(people().subjects)
    assert card["parts"] == Parts(0.6, 0.2, 0.2).as_dict()
    assert len(card["curve"]) == 4
    assert [one["method"] for one in card["validation"]] == ["proxyfusion", "average", "norm-weighted", "trimmed-mean"]
    kind, factor = model.normalisation.split(":")
    norms = np.linalg.norm(people().batch.features, axis=1)
    assert kind == "scale"
    assert float(factor) * np.median(norms) == pytest.approx(QUICK.scale, rel=0.05)


def test_the_input_scale_makes_up_for_the_extractors(tmp_path: Path) -> None:
    # A power of two, so that not one bit of the normalised features differs.
    larger = people().prepared(lambda features: features * np.float32(64))
    first, second = run(tmp_path / "a.safetensors"), run(tmp_path / "b.safetensors", data=larger)
    for one, other in zip(first.model.network.parameters(), second.model.network.parameters(), strict=True):
        assert torch.equal(one, other)
    offsets = np.array([0, 5])
    np.testing.assert_allclose(
        first.model.templates(people().batch.features[:5], offsets),
        second.model.templates(larger.batch.features[:5], offsets),
        atol=1e-6,
    )


def test_training_finds_which_frames_to_trust(tmp_path: Path) -> None:
    options = replace(QUICK, subjects_per_batch=60, epochs=60, validations=6, parts=Parts(0.5, 0.5, 0))
    trained = run(tmp_path / "model.safetensors", options, data=half_bad(240))
    own, *baselines = trained.outcome.standings
    assert own.fnmr.value < 0.5 * min(one.fnmr.value for one in baselines)
    assert own.fnmr.high < baselines[0].fnmr.low
    assert trained.outcome.warnings == []


def test_nan_is_trained_alike(tmp_path: Path) -> None:
    trained = run(tmp_path / "nan.safetensors", replace(QUICK, method="nan"))
    assert isinstance(load_model(tmp_path / "nan.safetensors"), NanModel)
    assert trained.outcome.redundancy is None
    assert trained.outcome.standings[0].label == "nan"


def test_bfloat16_trains_too(tmp_path: Path) -> None:
    coarse = run(tmp_path / "coarse.safetensors", replace(QUICK, precision="bfloat16"))
    fine = run(tmp_path / "fine.safetensors")
    assert coarse.model.digest != fine.model.digest
    assert coarse.outcome.curve[-1].loss == pytest.approx(fine.outcome.curve[-1].loss, rel=0.2)


def test_it_ends_early_where_nothing_gets_better(tmp_path: Path) -> None:
    still = replace(QUICK, learning_rate=1e-12, weight_decay=0, patience=2, validations=10, epochs=10)
    trained = run(tmp_path / "model.safetensors", still)
    assert trained.outcome.ended_early
    assert trained.outcome.steps < still.steps_of(1)[1] * 2
    assert trained.outcome.best == trained.outcome.curve[0]


def test_redundant_experts_are_told_and_fewer_recommended(tmp_path: Path) -> None:
    trained = run(tmp_path / "model.safetensors", replace(QUICK, experts=3, selected=3))
    found = trained.outcome.redundancy
    assert found is not None
    assert [one.experts for one in found.settings] == [1, 2, 3]
    assert [one.values for one in found.settings] == [DIMENSION, 2 * DIMENSION, 3 * DIMENSION]
    best = min(found.settings, key=lambda one: one.fnmr.value)
    assert found.recommended is not None
    assert found.settings[found.recommended - 1].fnmr.value <= best.fnmr.high
    assert all(one.fnmr.value > best.fnmr.high for one in found.settings[: found.recommended - 1])
    assert -1 <= found.cosine <= 1


def test_too_few_data_to_beat_a_baseline_are_said(tmp_path: Path) -> None:
    trained = run(tmp_path / "model.safetensors", replace(QUICK, learning_rate=0.3, epochs=2))
    assert any("too few" in one or "too little" in one for one in trained.outcome.warnings)


def only(count: int) -> Any:
    wanted = set(people().subjects[:count])
    return people().select(wanted.__contains__)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"experts": 5, "domain": 3}, ConfigError, "experts must be at most 4 in a domain of 3"),
        ({"experts": 2, "selected": 3}, ConfigError, "selected must be from 1 to the 2 experts"),
        ({"media": (0, 2)}, ConfigError, "media must be from at least 1"),
        ({"dropout": 1.0}, ConfigError, "dropout must be from 0 to below 1"),
        ({"learning_rate": float("nan")}, ConfigError, "learning rate must be above 0"),
        ({"device": "quantum"}, ConfigError, "no device 'quantum'"),
        ({"device": "meta"}, ConfigError, "no device 'meta'"),
        ({"device": "cuda:99"}, ConfigError, "no device 'cuda:99' here"),
        ({"learning_rate": 1e30}, InputError, "the learning rate 1e\\+30 is too high"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, change: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        run(tmp_path / "model.safetensors", replace(QUICK, **change))
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_subjects_are_named_with_what_they_lack(tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match=r"subjects of the (train|validation) part have two media"):
        run(tmp_path / "model.safetensors", data=only(count))


def test_a_feature_out_of_proportion_is_named_with_its_subject(tmp_path: Path) -> None:
    odd = people().prepared(np.copy)
    row = next(one for one in range(len(odd.batch.features)) if QUICK.parts.of(subject_of(odd, one)) == "train")
    odd.batch.features[row] *= 1e9
    with pytest.raises(InputError, match=f"subject '{subject_of(odd, row)}' has a feature of norm .*e\\+1[01]"):
        run(tmp_path / "model.safetensors", data=odd)


def test_held_out_features_that_cancel_are_named_before_training(tmp_path: Path) -> None:
    data = half_bad(40)
    held_out = next(one for one in data.subjects if QUICK.parts.of(one) == "validation")
    first = data.subjects.index(held_out) * 12
    # Three unit vectors at 120 degrees to each other cancel in every medium, and so in every set of them.
    turn = 2 * np.pi / 3 * np.arange(12)
    data.batch.features[first : first + 12] = 0
    data.batch.features[first : first + 12, 0] = np.cos(turn)
    data.batch.features[first : first + 12, 1] = np.sin(turn)
    steps: list[int] = []
    with pytest.raises(InputError, match=f"held-out features of '{held_out}' cancel to zero or are too large by"):
        run(tmp_path / "model.safetensors", data=data, observe=lambda now: steps.append(now.step))
    assert steps == []


def subject_of(data: Any, row: int) -> str:
    return str(data.subjects[int(np.searchsorted(data.batch.set_offsets, row, side="right")) - 1])


def test_two_trainings_of_one_file_are_kept_apart(tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"

    def meanwhile(now: Progress) -> None:
        if now.step == 2:
            with pytest.raises(BusyError, match="another training is writing"):
                run(out)

    run(out, observe=meanwhile)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_order_of_subjects_decides_nothing(tmp_path: Path) -> None:
    made = people()
    half = set(made.subjects[30:])
    parts = [made.select(half.__contains__), made.select(lambda one: one not in half)]
    turned = joined([one.batch for one in parts])
    first, second = run(tmp_path / "a.safetensors"), run(tmp_path / "b.safetensors", data=turned)
    assert first.model.digest == second.model.digest


def test_files_are_looked_at_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there or cannot be written"):
        run(tmp_path / "nowhere" / "model.safetensors")
    with pytest.raises(ConfigError, match="ends in .safetensors"):
        run(tmp_path / "model.pth")
    run(tmp_path / "model.safetensors")
    with pytest.raises(ConflictError, match="--overwrite"):
        run(tmp_path / "model.safetensors")
    assert isinstance(run(tmp_path / "model.safetensors", overwrite=True).model, NetworkModel)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_trains_alike(tmp_path: Path, precision: Any) -> None:
    on_gpu = run(tmp_path / "gpu.safetensors", replace(QUICK, device="cuda", precision=precision))
    on_cpu = run(tmp_path / "cpu.safetensors")
    assert on_gpu.outcome.curve[-1].loss == pytest.approx(on_cpu.outcome.curve[-1].loss, rel=0.2)
