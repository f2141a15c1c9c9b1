"""What the compact form of a model costs stands beside the model's own figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pfstore.errors import ContractError
from pfstore.evaluation.evaluating import evaluate
from pfstore.evaluation.methods import Method, check, fitting, load_methods
from pfstore.evaluation.protocols.experiment import Gallery
from pfstore.evaluation.protocols.split import split_experiment
from pfstore.evaluation.scoring import Targets
from pfstore.fusion import Compact, ProxyFusionModel, compacted, random_model, to_bytes
from pfstore.sources.files import FileSource
from tests.conftest import REALDATA
from tests.evaluation.samples import Counting, D, experiment, made_up


def saved(path: Path, selected: int = 2, seed: int = 0) -> str:
    path.write_bytes(to_bytes(random_model(D, experts=3, selected=selected, seed=seed)))
    return str(path)


def test_it_stands_after_each_model_of_several_blocks(tmp_path: Path) -> None:
    names = [saved(tmp_path / "m.safetensors"), "average", saved(tmp_path / "single.safetensors", selected=1)]
    methods = load_methods(names, compact=True)
    assert [one.label for one in methods] == [
        "m (media)", "m (set)", "m, compact (media)", "m, compact (set)",
        "average (media)", "average (set)", "single (media)", "single (set)",
    ]  # fmt: skip
    assert [one.fuser.blocks for one in methods] == [2, 2, 1, 1, 1, 1, 1, 1]
    assert methods[2].fuser.digest == methods[0].fuser.digest
    assert [one.label for one in load_methods(names[:1], ["set"], compact=True)] == ["m", "m, compact"]
    assert not any(isinstance(one.fuser, Compact) for one in load_methods(names))


def test_a_file_of_that_name_is_told_apart(tmp_path: Path) -> None:
    names = [saved(tmp_path / "m.safetensors"), saved(tmp_path / "m, compact.safetensors", seed=1)]
    labels = [one.label for one in load_methods(names, ["set"], compact=True)]
    assert labels == ["m", "m, compact", names[1], f"{names[1]}, compact"]


def test_it_is_refused_where_no_model_has_several_blocks() -> None:
    with pytest.raises(ContractError, match="average: none has several blocks"):
        load_methods(["average"], compact=True)


def test_one_strategy_is_left_where_references_have_one_medium(tmp_path: Path) -> None:
    facts = {"media": {"references": 2}, "references": 2, "failures": {"references": 0}}
    samples = Counting(made_up(2, "x", 0))
    methods = load_methods([saved(tmp_path / "m.safetensors")], compact=True)
    kept = fitting(methods, experiment(Gallery("one", samples, samples), facts=facts))
    assert [(one.label, one.strategy) for one in kept] == [("m", "set"), ("m, compact", "set")]


def test_a_model_is_warned_of_once_in_both_forms() -> None:
    card = {"contract": {"extractor": "net", "dimension": D}}
    full = ProxyFusionModel(random_model(D, experts=3, selected=2).network, card=card)
    samples = Counting(made_up(2, "x", 0))
    given = experiment(Gallery("one", samples, samples))
    methods = [Method("m (set)", full, "set"), Method("m, compact (set)", compacted(full), "set")]
    assert [said.split(" was")[0] for said in check(methods, given)] == ["m"]
    assert [said.split(" was")[0] for said in check(methods[1:], given)] == ["m"]
    other = experiment(Gallery("one", samples, samples), extractor="another")
    with pytest.raises(ContractError, match="m, compact .* was trained on features of 'net'"):
        check(methods[1:], other)


def test_an_evaluation_shows_both(tmp_path: Path) -> None:
    gallery = Gallery("one", Counting(made_up(12, "r", 1)), Counting(made_up(12, "p", 2)))
    methods = load_methods([saved(tmp_path / "m.safetensors")], ["media"], compact=True)
    full, compact = evaluate(experiment(gallery), methods, Targets((0.1,), (), (1,)), bootstrap=10).methods
    assert (full.label, full.values, compact.label, compact.values) == ("m", 2 * D, "m, compact", D)
    assert (full.model.get("compact"), compact.model["compact"]) == (None, True)
    assert full.model["digest"] == compact.model["digest"]
    one, other = (found.scored[0].verification for found in (full, compact))
    assert (one.mated, one.non_mated) == (other.mated, other.non_mated) == (12, 132)
    assert one.at[0].threshold != other.at[0].threshold


def test_on_real_photographs_the_sum_is_no_worse(tmp_path: Path) -> None:
    path = REALDATA / "lfw_mobileface.npz"
    if not path.exists():
        pytest.skip(f"the real features ({path.name}) are not beside this checkout")
    content = np.load(path)
    degraded = content["view"] > 0
    np.savez(tmp_path / "x.npz", **{name: content[name][degraded] for name in ("features", "subject", "medium")})
    with FileSource(tmp_path / "x.npz", extractor="net", name="x") as source:
        split = split_experiment(source, draws=1, media=(1, 1))
    network = random_model(256, experts=6, selected=4)
    methods = [Method("m", network, "set"), Method("m, compact", compacted(network), "set")]
    full, compact = evaluate(split, methods, Targets((0.01,), (), (1,)), kinds=("raw",), bootstrap=100).methods
    of_full, of_compact = (found.scored[0].verification.at[0].fnmr for found in (full, compact))
    assert (full.values, compact.values) == (1024, 256)
    assert of_full.trials == of_compact.trials > 1000
    assert 0 < of_compact.value <= of_full.high < 1
