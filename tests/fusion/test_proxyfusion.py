"""ProxyFusion gives the reference's values, whatever batch a set is in, and its gradients are right."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore.features import offsets_of
from pfstore.fusion import ProxyFusion, ProxyFusionModel, load_model, random_model
from pfstore.fusion.fuser import Role
from pfstore.fusion.proxyfusion import Dropout
from pfstore.fusion.ragged import PIECE, Sets
from tests.fusion import oracle
from tests.fusion.samples import REFERENCES, SELECTED, Reference, feature_sets, regrouped

ROLES: tuple[Role, ...] = ("probe", "gallery")
SIZES = [1, 2, 3, 30, PIECE - 1, PIECE, PIECE + 1, 700]


@pytest.fixture(params=REFERENCES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference.read(request.param)


@pytest.mark.parametrize("role", ROLES)
def test_one_batch_gives_the_reference_values(reference: Reference, role: Role) -> None:
    fused = load_model(reference.checkpoint).fuse(reference.features, reference.offsets, role)
    assert fused.dtype == np.float32
    np.testing.assert_allclose(fused, reference.fused[role], rtol=0, atol=1e-5)


@pytest.mark.parametrize("role", ROLES)
def test_each_set_by_itself_gives_the_reference_values(reference: Reference, role: Role) -> None:
    model = load_model(reference.checkpoint)
    for at, expected in enumerate(reference.fused[role]):
        features, offsets = regrouped(reference.features, reference.offsets, [at])
        np.testing.assert_allclose(model.fuse(features, offsets, role)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("role", ROLES)
def test_shuffled_and_split_sets_give_the_reference_values(reference: Reference, role: Role) -> None:
    model = load_model(reference.checkpoint)
    order = np.random.default_rng(3).permutation(len(reference.offsets) - 1)
    for part in np.array_split(order, 7):
        features, offsets = regrouped(reference.features, reference.offsets, part.tolist())
        expected = reference.fused[role][part]
        np.testing.assert_allclose(model.fuse(features, offsets, role), expected, rtol=0, atol=1e-5)


def test_two_stages_give_the_reference_values(reference: Reference) -> None:
    fused = load_model(reference.checkpoint).fuse_media(
        reference.features, reference.offsets, reference.subject_offsets
    )
    np.testing.assert_allclose(fused, reference.two_stage, rtol=0, atol=1e-5)


def test_torch_in_gives_torch_out(reference: Reference) -> None:
    features, offsets = torch.from_numpy(reference.features), torch.from_numpy(reference.offsets)
    fused = load_model(reference.checkpoint).fuse(features, offsets, "gallery")
    assert isinstance(fused, torch.Tensor)
    np.testing.assert_allclose(fused.numpy(), reference.fused["gallery"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("sizes", [SIZES, [100_000]], ids=["mixed", "large"])
def test_float64_oracle_agrees(role: Role, sizes: list[int]) -> None:
    model = random_model(24, experts=7, selected=3, seed=5)
    features, offsets = feature_sets(sizes, 24)
    weights = oracle.wide(model.network)
    expected = oracle.fuse_sets(weights, torch.from_numpy(features).double(), offsets, 3, role)
    np.testing.assert_allclose(model.fuse(features, offsets, role), expected, rtol=0, atol=1e-5)


def test_peaked_attention_neither_overflows_nor_loses_the_peak() -> None:
    model = random_model(8, experts=3, selected=2)
    features, offsets = feature_sets([40], 8)
    features *= 1e6
    weights = oracle.wide(model.network)
    expected = oracle.fuse_sets(weights, torch.from_numpy(features).double(), offsets, 2, "probe")
    np.testing.assert_allclose(model.fuse(features, offsets), expected, rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([*range(1, 12), PIECE + 3]), min_size=1, max_size=12), st.randoms(use_true_random=False)
)
def test_a_set_is_fused_the_same_in_any_company(sizes: list[int], random: Random) -> None:
    model = random_model(16, experts=5, selected=4, seed=1)
    features, offsets = feature_sets(sizes, 16, seed=len(sizes))
    fused = model.fuse(features, offsets)
    order = list(range(len(sizes)))
    random.shuffle(order)
    company = order[: max(1, len(order) // 2)]
    again = model.fuse(*regrouped(features, offsets, company))
    np.testing.assert_allclose(again, fused[company], rtol=0, atol=1e-5)


def test_the_order_within_a_set_does_not_matter() -> None:
    model = random_model(16, experts=5, selected=4)
    features, offsets = feature_sets([600], 16)
    shuffled = np.random.default_rng(0).permutation(features)
    np.testing.assert_allclose(model.fuse(shuffled, offsets), model.fuse(features, offsets), rtol=0, atol=1e-5)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(16, experts=5, selected=4)
    features, offsets = feature_sets(SIZES, 16)
    whole = model.fuse(features, offsets)
    media = model.fuse_media(features, offsets, offsets_of([3, 1, 4]))
    monkeypatch.setattr("pfstore.fusion.chunked.CHUNK_VALUES", 16 * 40)
    monkeypatch.setattr("pfstore.fusion.ragged.CACHED_VALUES", 1)
    np.testing.assert_allclose(model.fuse(features, offsets), whole, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.fuse_media(features, offsets, offsets_of([3, 1, 4])), media, rtol=0, atol=1e-5)


@pytest.mark.parametrize("selected", [1, 3])
def test_both_roles_in_one_pass_are_as_each_by_itself(selected: int) -> None:
    network = ProxyFusion(12, experts=4, domain=3, selected=selected, dropout=0.0).double()
    features, offsets = feature_sets([3, 1, 5, 2, 4, 7], 12)
    values = torch.from_numpy(features).double()
    apart = [network(values, offsets, role) for role in ("probe", "gallery")]
    together = network.both(values, offsets, 2)
    torch.testing.assert_close(together, torch.cat([apart[0][:2], apart[1][2:]]))
    wanted = torch.randn(together.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = [network.proxies_p, network.proxies_g, network.probe_linear.weight, *network.pooler.parameters()]
    gradients = [
        torch.autograd.grad((fused * wanted).sum(), parameters, allow_unused=True, materialize_grads=True)
        for fused in (together, torch.cat([apart[0][:2], apart[1][2:]]))
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_leaves_the_mean_as_it_is_and_nothing_while_fusing() -> None:
    dropout = Dropout(0.3)
    values = torch.ones(1000, 333)
    torch.manual_seed(0)
    thinned = dropout(values)
    assert thinned.unique().tolist() == [0, pytest.approx(1 / 0.7)]
    assert float((thinned == 0).float().mean()) == pytest.approx(0.3, abs=0.005)
    torch.manual_seed(0)
    assert torch.equal(dropout(values), thinned)
    assert dropout.eval()(values) is values


def test_ties_go_to_the_lower_expert_number() -> None:
    network = ProxyFusion(8, experts=6, domain=3, selected=4)
    with torch.no_grad():
        network.proxies_p[:] = network.proxies_p[0]
    direction = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=1)
    chosen = network._choose(network._scores(direction, len(direction)))
    assert (chosen == torch.arange(4)).all()


def test_experts_come_best_first() -> None:
    model = random_model(16, experts=9, selected=9, seed=2)
    features, offsets = feature_sets([20] * 10, 16)
    network = model.network.double()
    values = torch.from_numpy(features).double()
    for first, last in pairwise(offsets):
        direction = network._directions(values[first:last]).mean(dim=0, keepdim=True)
        expected = oracle.experts_of(network.state_dict(), values[first:last], network.proxies_p, 9)
        assert network._choose(network._scores(direction, 1))[0].tolist() == expected


def test_experts_are_chosen_right_where_the_projection_cancels() -> None:
    network = ProxyFusion(64, experts=9, domain=8, selected=4)
    random = np.random.default_rng(0)
    shift = 10_000 * np.ones(64, dtype=np.float32)
    features = (shift + random.standard_normal((2000, 64))).astype(np.float32)
    offsets = np.arange(2001)
    with torch.no_grad():
        network.transform.bias[:] = -(network.transform.weight.double() @ torch.from_numpy(shift).double())
        network.proxies_p.add_(torch.from_numpy(shift))
    weights, values = oracle.wide(network), torch.from_numpy(features).double()
    expected = [
        oracle.experts_of(weights, values[first:last], weights["proxies_p"], 4) for first, last in pairwise(offsets)
    ]
    told = network.attend(torch.from_numpy(features), offsets, "probe")
    assert told.experts is not None
    assert told.experts.tolist() == expected


def test_the_variance_of_what_hardly_varies() -> None:
    network = ProxyFusion(64, experts=2, domain=1, selected=1)
    random = np.random.default_rng(0)
    features = (100 + 0.01 * random.standard_normal((300, 64))).astype(np.float32)
    offsets = np.array([0, 1, 3, 100, 300])
    sets, values = Sets(offsets, torch.device("cpu")), torch.from_numpy(features)
    mean, square, _ = sets.means(values, network._measures)
    found = network._variance(sets, values, mean, square).numpy()
    wide = features.astype(np.float64)
    expected = np.stack([wide[first:last].var(axis=0) for first, last in pairwise(offsets)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("normalisation", ["unit", "scale:3.5"])
def test_a_normalisation_is_the_same_as_normalised_features(normalisation: str) -> None:
    network = random_model(16, experts=5, selected=4).network
    features, offsets = feature_sets([4, 2, 5, 1], 16)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    beforehand = features / norms if normalisation == "unit" else features * np.float32(3.5)
    model, raw = ProxyFusionModel(network, normalisation), ProxyFusionModel(network)
    subjects = offsets_of([3, 1])
    np.testing.assert_allclose(model.fuse(features, offsets), raw.fuse(beforehand, offsets), rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        model.fuse_media(features, offsets, subjects), raw.fuse_media(beforehand, offsets, subjects), rtol=0, atol=1e-5
    )
    assert not np.allclose(model.fuse(features, offsets), raw.fuse(features, offsets), atol=1e-3)


@pytest.mark.parametrize("role", ROLES)
def test_gradients_are_right_to_the_second_order(role: Role) -> None:
    network = random_model(4, experts=3, selected=2).network.double().requires_grad_(True)
    offsets = np.array([0, 1, 4, 9])
    features = torch.from_numpy(feature_sets([1, 3, 5], 4)[0]).double().requires_grad_(True)
    parameters = [network.get_parameter(name) for name in ("probe_linear.weight", "proxies_p", "pooler.0.0.weight")]

    def fused(*inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = network(inputs[0], offsets, role)
        return result

    assert torch.autograd.gradcheck(fused, (features, *parameters))
    assert torch.autograd.gradgradcheck(fused, (features,))


def test_training_drops_out_and_reaches_the_experts() -> None:
    network = ProxyFusion(8, experts=3, domain=2, selected=3).train()
    features, offsets = feature_sets([5, 9], 8)
    one, other = (network(torch.from_numpy(features), offsets, "gallery") for _ in range(2))
    assert not torch.equal(one, other)
    one.square().sum().backward()
    assert all(network.get_parameter(f"pooler.{expert}.0.weight").grad is not None for expert in range(3))
    assert network.proxies_g.grad is not None


@pytest.mark.parametrize("role", ROLES)
def test_it_trains_in_bfloat16(role: Role) -> None:
    network = random_model(16, experts=3, selected=3).network.float().requires_grad_(True)
    features, offsets = feature_sets([5, 1, 300], 16)
    values = torch.from_numpy(features)
    exact = network(values, offsets, role)
    with torch.autocast("cpu", torch.bfloat16):
        near = network(values, offsets, role)
        loss = near.square().sum()
    torch.autograd.backward(loss)
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, rtol=0, atol=0.05)
    assert all(network.get_parameter(f"pooler.{expert}.0.weight").grad is not None for expert in range(3))


def test_a_network_in_training_is_left_as_it_is() -> None:
    network = ProxyFusion(8, experts=3, domain=2, selected=2).train()
    ProxyFusionModel(network).fuse(*feature_sets([3], 8))
    assert network.training
    assert all(each.requires_grad and each.dtype == torch.float32 for each in network.parameters())


def test_the_number_of_blocks_is_the_number_of_experts_selected() -> None:
    assert load_model(Reference.read(REFERENCES[0]).checkpoint).blocks == SELECTED
