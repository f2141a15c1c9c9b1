"""Checkpoints of others are read whole or refused in one clear line, and never run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pfstore.errors import ContractError, ModelError
from pfstore.fusion import BASELINES, load_model
from tests.fusion.samples import REFERENCES, Reference

Weights = dict[str, Tensor]
REFERENCE = Reference.read(REFERENCES[1])


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.trace,)


def refused(path: Path, **settings: Any) -> str:
    """The one line with which the file is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def saved(path: Path, weights: Weights) -> Path:
    torch.save({"state_dict": {"model_weights": weights, "criterion_parameters": {}}, "epoch": 1}, path)
    return path


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda weights: {"state_dict": {"model_weights": weights, "criterion_parameters": {}}},
        lambda weights: {"state_dict": weights},
        lambda weights: weights,
        lambda weights: {f"module.{key}": tensor for key, tensor in weights.items()},
    ],
    ids=["published", "state_dict", "bare", "data-parallel"],
)
def test_every_layout_gives_the_same_model(tmp_path: Path, wrapped: Callable[[Weights], dict[str, Any]]) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(wrapped(REFERENCE.weights), path)
    assert load_model(path).digest == load_model(REFERENCE.checkpoint).digest


def test_safetensors_give_the_same_model(tmp_path: Path) -> None:
    save_file(REFERENCE.weights, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").digest == load_model(REFERENCE.checkpoint).digest


def test_sizes_are_inferred() -> None:
    described = load_model(Reference.read(REFERENCES[0]).checkpoint, experts_selected=3).describe()
    expected = {"kind": "proxyfusion", "dimension": 32, "experts": 11, "selected": 3, "domain": 10}
    assert expected.items() <= described.items()
    assert described["parameters"] == sum(tensor.numel() for tensor in Reference.read(REFERENCES[0]).weights.values())


def test_fewer_experts_than_usual_are_all_selected(tmp_path: Path) -> None:
    weights = {key: tensor for key, tensor in REFERENCE.weights.items() if not key.startswith(("pooler.2", "pooler.3"))}
    weights |= {key: weights[key][:2].clone() for key in ("proxies_g", "proxies_p")}
    assert load_model(saved(tmp_path / "two.pth.tar", weights)).blocks == 2


def test_missing_and_unexpected_keys_are_named(tmp_path: Path) -> None:
    weights = REFERENCE.weights
    del weights["pooler.1.3.bias"]
    weights["quality.weight"] = torch.zeros(2)
    message = refused(saved(tmp_path / "a.pth.tar", weights))
    assert "missing pooler.1.3.bias" in message
    assert "unexpected quality.weight" in message


def test_many_missing_keys_are_counted(tmp_path: Path) -> None:
    weights = {key: tensor for key, tensor in REFERENCE.weights.items() if not key.startswith("pooler")}
    assert "and 19 more" in refused(saved(tmp_path / "a.pth.tar", weights))


@pytest.mark.parametrize("key", ["proxies_p", "transform.weight"])
def test_a_checkpoint_without_sizes_is_refused(tmp_path: Path, key: str) -> None:
    weights = REFERENCE.weights
    del weights[key]
    assert key in refused(saved(tmp_path / "a.pth.tar", weights))


@pytest.mark.parametrize(
    ("key", "changed", "said"),
    [
        (
            "pooler.0.3.weight",
            lambda tensor: tensor[:-1].clone(),
            r"pooler.0.3.weight is [127, 128], must be [128, 128]",
        ),
        ("proxies_g", lambda tensor: tensor.half(), "of one type"),
        ("proxies_g", lambda tensor: tensor * torch.nan, "not finite numbers: proxies_g"),
        ("proxies_p", lambda tensor: tensor[0], "proxies_p"),
        ("proxies_p", lambda tensor: tensor[:0], "empty"),
    ],
)
def test_wrong_weights_are_named(tmp_path: Path, key: str, changed: Callable[[Tensor], Tensor], said: str) -> None:
    weights = REFERENCE.weights
    weights[key] = changed(weights[key])
    assert said in refused(saved(tmp_path / "a.pth.tar", weights))


def test_integers_are_no_weights(tmp_path: Path) -> None:
    weights = {key: tensor.int() for key, tensor in REFERENCE.weights.items()}
    assert "floating-point" in refused(saved(tmp_path / "a.pth.tar", weights))


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    weights = {key: tensor.half() for key, tensor in REFERENCE.weights.items()}
    wide = {key: tensor.float() for key, tensor in weights.items()}
    paths = saved(tmp_path / "half.pth.tar", weights), saved(tmp_path / "wide.pth.tar", wide)
    assert load_model(paths[0]).digest == load_model(paths[1]).digest


@pytest.mark.parametrize("selected", [0, -1, 5])
def test_experts_selected_must_exist(selected: int) -> None:
    assert "use 1 to 4" in refused(REFERENCE.checkpoint, experts_selected=selected)


@pytest.mark.parametrize("normalisation", ["l2", "scale", "scale:", "scale:0", "scale:-1", "scale:nan", "unit:2", ""])
def test_unknown_normalisations_are_refused(normalisation: str) -> None:
    assert "raw, unit or scale" in refused(REFERENCE.checkpoint, normalisation=normalisation)


def test_code_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"state_dict": REFERENCE.weights, "extra": Malicious(trace)}, tmp_path / "evil.pth.tar")
    assert "could run code" in refused(tmp_path / "evil.pth.tar")
    assert not trace.exists()


def test_a_bare_pickle_is_not_opened(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pth.tar"
    path.write_bytes(pickle.dumps(Malicious(trace)))
    assert "never opened" in refused(path)
    assert not trace.exists()


def test_the_malicious_file_would_run_if_it_were_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["model.pth.tar", "model.safetensors"])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    save_file(REFERENCE.weights, path) if name.endswith("safetensors") else saved(path, REFERENCE.weights)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "damaged" in refused(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04 no archive", b"GIF89a", b"\x08" + bytes(7) + b"{}      "])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    assert str(path) in refused(path)


@pytest.mark.parametrize("content", [{}, [1, 2], {"state_dict": {"model_weights": {"a": 1}}}, torch.zeros(2)])
def test_archives_without_weights_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth.tar")
    assert str(tmp_path / "a.pth.tar") in refused(tmp_path / "a.pth.tar")


def test_a_missing_file_names_the_baselines(tmp_path: Path) -> None:
    message = refused(tmp_path / "none.safetensors")
    assert all(name in message for name in BASELINES)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path) in refused(tmp_path)


def test_another_dimension_is_refused() -> None:
    with pytest.raises(ContractError, match="64 values, not 512"):
        load_model(REFERENCE.checkpoint, dimension=512)


def test_metadata_of_other_writers_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(REFERENCE.weights, path, {"format": "pt", "experts_selected": "2"})
    assert load_model(path).blocks == 2
    assert "made with experts_selected 2, not 3" in refused(path, experts_selected=3)
    save_file(load_file(path), path, {"experts_selected": "two"})
    assert "no whole number" in refused(path)
    save_file(load_file(path), path, {"format_version": "2"})
    assert "format 2" in refused(path)


def test_the_file_is_not_changed() -> None:
    before = REFERENCE.checkpoint.read_bytes()
    model = load_model(REFERENCE.checkpoint)
    model.fuse(REFERENCE.features, REFERENCE.offsets)
    assert REFERENCE.checkpoint.read_bytes() == before
    assert np.isfinite(model.templates(REFERENCE.features, REFERENCE.offsets)).all()
