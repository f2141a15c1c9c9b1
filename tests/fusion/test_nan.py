"""NAN agrees with the paper's formulas set by set, is learnt by gradients, and is kept like every model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load, save_file
from torch import Tensor
from torch.nn.functional import normalize

from pfstore.errors import ContractError, ModelError
from pfstore.features import Floats, Offsets, offsets_of
from pfstore.fusion import Nan, NanModel, from_bytes, load_model, random_model, to_bytes
from pfstore.fusion.fuser import Role
from pfstore.fusion.ragged import PIECE
from pfstore.gallery import models
from pfstore.gallery.database import Connection
from tests.fusion.samples import feature_sets, regrouped

Weights = dict[str, Tensor]
ROLES: tuple[Role, ...] = ("probe", "gallery")
SIZES = [1, 2, 3, 30, PIECE - 1, PIECE, PIECE + 1, 700]


def network(dimension: int, seed: int = 0) -> Nan:
    """A network whose kernels weigh features unevenly."""
    made, random = Nan(dimension), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.3, generator=random)
    return made


def fuse_set(weights: Weights, features: Tensor) -> Tensor:
    """[D] for one set ([N, D]), in plain torch."""
    first = (features @ weights["kernel"]).softmax(dim=0) @ features
    kernel = torch.tanh(weights["transfer.weight"] @ first + weights["transfer.bias"])
    return (features @ kernel).softmax(dim=0) @ normalize(features, dim=1)


def fuse_sets(model: NanModel, features: Floats, offsets: Offsets) -> NDArray[np.float64]:
    """[S, 1, D], set by set."""
    weights, values = model.network.state_dict(), torch.from_numpy(features).double()
    fused = [fuse_set(weights, values[first:last]) for first, last in pairwise(offsets.tolist())]
    return torch.stack(fused)[:, None].numpy()


def test_it_has_the_parameters_of_one_cascade() -> None:
    described = NanModel(Nan(512)).describe()
    expected = {"kind": "nan", "dimension": 512, "experts": None, "selected": 1, "domain": None, "parameters": 263_168}
    assert expected.items() <= described.items()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("sizes", [SIZES, [100_000]], ids=["mixed", "large"])
def test_float64_oracle_agrees(role: Role, sizes: list[int]) -> None:
    model = NanModel(network(24))
    features, offsets = feature_sets(sizes, 24)
    fused = model.fuse(features, offsets, role)
    assert fused.dtype == np.float32
    np.testing.assert_allclose(fused, fuse_sets(model, features, offsets), rtol=0, atol=1e-6)


def test_untrained_it_is_the_average() -> None:
    features, offsets = feature_sets(SIZES, 16)
    average = load_model("average").fuse(features, offsets)
    np.testing.assert_allclose(NanModel(Nan(16)).fuse(features, offsets), average, rtol=0, atol=1e-6)
    assert not np.allclose(NanModel(network(16)).fuse(features, offsets), average, atol=1e-2)


def test_peaked_attention_neither_overflows_nor_loses_the_peak() -> None:
    model = NanModel(network(8))
    features, offsets = feature_sets([40, 3], 8)
    features *= 1e6
    np.testing.assert_allclose(model.fuse(features, offsets), fuse_sets(model, features, offsets), rtol=0, atol=1e-6)


def test_a_set_is_fused_the_same_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NanModel(network(16))
    features, offsets = feature_sets(SIZES, 16)
    whole = model.fuse(features, offsets)
    for at in range(len(SIZES)):
        alone = model.fuse(*regrouped(features, offsets, [at]))
        np.testing.assert_allclose(alone[0], whole[at], rtol=0, atol=1e-6)
    monkeypatch.setattr("pfstore.fusion.chunked.CHUNK_VALUES", 16 * 40)
    monkeypatch.setattr("pfstore.fusion.ragged.CACHED_VALUES", 1)
    np.testing.assert_allclose(model.fuse(features, offsets), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("normalisation", "apply"),
    [
        ("unit", lambda values: values / np.linalg.norm(values, axis=1, keepdims=True)),
        ("scale:0.25", lambda values: values * np.float32(0.25)),
    ],
)
def test_the_input_normalisation_comes_first(normalisation: str, apply: Callable[[Floats], Floats]) -> None:
    model, raw = NanModel(network(12), normalisation), NanModel(network(12))
    features, offsets = feature_sets([4, 9, 2], 12)
    np.testing.assert_allclose(model.fuse(features, offsets), raw.fuse(apply(features), offsets), rtol=0, atol=1e-6)
    assert not np.allclose(model.fuse(features, offsets), raw.fuse(features, offsets), atol=1e-3)


def test_media_are_fused_twice() -> None:
    model = NanModel(network(12))
    features, media = feature_sets([4, 9, 2, 1], 12)
    once = model.fuse(features, media)[:, 0]
    subjects = offsets_of([3, 1])
    np.testing.assert_array_equal(model.fuse_media(features, media, subjects), model.fuse(once, subjects))


def test_its_weights_make_its_vectors() -> None:
    model = NanModel(network(12))
    features, offsets = feature_sets([4, 9, 2], 12)
    told = model.attend(features, offsets)
    assert told.experts is None
    weighed = told.weights[0][:, None] * features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(np.add.reduceat(weighed, offsets[:-1]), model.fuse(features, offsets)[:, 0], atol=1e-6)
    np.testing.assert_allclose(np.add.reduceat(told.weights[0], offsets[:-1]), 1, rtol=1e-12)


def test_gradients_are_right_to_the_second_order() -> None:
    made = network(3).double()
    offsets = np.array([0, 1, 4])
    features = (torch.from_numpy(feature_sets([1, 3], 3)[0]).double() / 5).requires_grad_(True)

    def fused(*inputs: Tensor) -> Tensor:
        result: Tensor = made(inputs[0], offsets, "probe")
        return result

    assert torch.autograd.gradcheck(fused, (features, *made.parameters()))
    assert torch.autograd.gradgradcheck(fused, (features, made.kernel))


def test_it_learns_from_zero_to_pass_over_bad_features() -> None:
    """Good features show their subject, bad ones noise, and one coordinate tells them apart."""
    random = np.random.default_rng(0)
    features, offsets = feature_sets([6] * 40, 16)
    subjects = random.standard_normal((40, 16)).repeat(6, axis=0)
    bad = np.tile([False, False, True], 80)
    features[:] = np.where(bad[:, None], 3 * random.standard_normal((240, 16)), subjects)
    features[:, 0] = np.where(bad, -2.0, 2.0)
    values, target = torch.from_numpy(features), torch.from_numpy(subjects[::6])
    made = Nan(16)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.04)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        fused = made(values, offsets, "probe")[:, 0]
        loss = (1 - torch.cosine_similarity(fused[:, 1:].double(), target[:, 1:])).mean()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.abs().max() > 0 for parameter in made.parameters())
    assert losses[-1] < 0.3 * losses[0]
    weights = NanModel(made).attend(features, offsets).weights[0]
    assert weights[bad].max() < 1 / 12


def test_it_trains_in_bfloat16() -> None:
    made = network(16)
    features, offsets = feature_sets([5, 1, 300], 16)
    values = torch.from_numpy(features)
    exact = made(values, offsets, "probe")
    with torch.autocast("cpu", torch.bfloat16):
        near = made(values, offsets, "probe")
        loss = near.square().sum()
    torch.autograd.backward(loss)
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, rtol=0, atol=0.05)
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in made.parameters())


def test_a_round_trip_keeps_everything() -> None:
    model = NanModel(network(8), "scale:16", "trained", {"seed": 3})
    again = from_bytes(to_bytes(model))
    assert isinstance(again, NanModel)
    assert again.describe() == model.describe()
    assert to_bytes(again) == to_bytes(model)
    features, offsets = feature_sets([3, 4], 8)
    np.testing.assert_array_equal(again.fuse(features, offsets), model.fuse(features, offsets))


def test_the_bytes_are_safetensors_that_name_the_kind(tmp_path: Path) -> None:
    made = network(8)
    path = tmp_path / "nan.safetensors"
    path.write_bytes(to_bytes(NanModel(made)))
    weights = load(path.read_bytes())
    assert {key: list(tensor.shape) for key, tensor in weights.items()} == {
        "kernel": [8],
        "transfer.bias": [8],
        "transfer.weight": [8, 8],
    }
    assert all((weights[key] == tensor).all() for key, tensor in made.state_dict().items())
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert metadata == {"format_version": "1", "kind": "nan", "normalisation": "raw", "origin": "imported weights"}
    assert load_model(path).digest == NanModel(made).digest


def test_the_digest_does_not_change_from_release_to_release() -> None:
    made = Nan(4)
    with torch.no_grad():
        made.kernel.copy_(torch.arange(4) / 8)
    assert NanModel(made, "unit").digest == "ba8301619bd126aec7ff74f8161f3ecf90026467cfb45618c94af844c910e960"


def test_a_database_gives_it_back(connection: Connection) -> None:
    model = NanModel(network(8), "scale:2", "trained", {"curve": [0.25, 0.125]})
    registered = models.register(connection, model, "paper")
    assert (registered.kind, registered.dimension, registered.blocks) == ("nan", 8, 1)
    assert registered.details == model.describe()
    features, offsets = feature_sets([3, 4], 8)
    for _ in ("from the database", "from the cache"):
        loaded = models.load(connection, registered.digest)
        assert loaded.describe() == model.describe()
        np.testing.assert_array_equal(loaded.templates(features, offsets), model.templates(features, offsets))


def test_settings_that_it_cannot_have_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    path.write_bytes(to_bytes(NanModel(network(8), "unit")))
    assert load_model(path, experts_selected=1, normalisation="unit").blocks == 1
    with pytest.raises(ModelError, match="has no experts: leave experts_selected out"):
        load_model(path, experts_selected=4)
    with pytest.raises(ModelError, match="made with normalisation unit, not raw"):
        load_model(path, normalisation="raw")
    with pytest.raises(ContractError, match="8 values, not 512"):
        load_model(path, dimension=512)


def refused(path: Path, weights: Weights, metadata: dict[str, str]) -> str:
    """The one line with which these weights are refused."""
    save_file(weights, path, metadata)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kernel": None}, "is no NAN checkpoint: missing or not a vector: kernel; it has transfer.bias"),
        ({"kernel": torch.zeros(0)}, "missing or not a vector: kernel"),
        ({"kernel": torch.zeros(8, 1)}, "missing or not a vector: kernel"),
        ({"kernel": torch.zeros(9)}, "transfer.weight is [8, 8], must be [9, 9]"),
        ({"transfer.bias": None}, "is no complete NAN checkpoint: missing transfer.bias"),
        ({"proxies_g": torch.zeros(2, 8)}, "is no complete NAN checkpoint: unexpected proxies_g"),
        ({"transfer.bias": torch.zeros(8).half()}, "of one type"),
        ({"transfer.bias": torch.full((8,), torch.nan)}, "not finite numbers: transfer.bias"),
    ],
)
def test_wrong_weights_are_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    weights = {key: value for key, value in (network(8).state_dict() | changes).items() if value is not None}
    assert said in refused(tmp_path / "a.safetensors", weights, {"kind": "nan"})


def test_the_kind_decides_what_weights_are_read_as(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    nan, proxyfusion = network(8).state_dict(), random_model(8, experts=3, selected=2).network.state_dict()
    assert "is no ProxyFusion checkpoint" in refused(path, nan, {})
    assert "is no NAN checkpoint" in refused(path, proxyfusion, {"kind": "nan"})
    assert "is of kind 'mcn', this version knows proxyfusion and nan: upgrade" in refused(path, nan, {"kind": "mcn"})
    save_file(proxyfusion, path, {"kind": "proxyfusion"})
    assert load_model(path).kind == "proxyfusion"
