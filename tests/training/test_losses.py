from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from pfstore.errors import ConfigError
from pfstore.training.losses import SupervisedContrastive, proxy_loss, simplex


@pytest.mark.parametrize(("vertices", "dimension"), [(2, 1), (4, 3), (4, 10), (11, 10)])
def test_vertices_are_equally_far_apart(vertices: int, dimension: int) -> None:
    made = simplex(vertices, dimension)
    cosines = made @ made.T
    expected = torch.full((vertices, vertices), -1 / (vertices - 1)).fill_diagonal_(1)
    torch.testing.assert_close(cosines, expected, atol=1e-6, rtol=0)


def test_more_vertices_than_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="12 experts need a domain of at least 11 dimensions, not 10"):
        simplex(12, 10)


def test_the_proxy_loss_is_as_its_formula_says() -> None:
    projected, vertices = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), simplex(3, 4)
    expected = 0.0
    for own in range(3):
        cosines = [float(functional.cosine_similarity(projected[own], one, dim=0)) for one in vertices]
        others = sum(math.exp(40 * (cosines[one] + 0.1)) for one in range(3) if one != own)
        expected += math.log(1 + math.exp(-5 * (cosines[own] - 0.1))) / 5 + math.log(1 + others) / 40
    assert float(proxy_loss(projected, vertices)) == pytest.approx(expected, rel=1e-5)


def test_the_proxy_loss_moves_proxies_to_their_vertices() -> None:
    projected = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    vertices = simplex(4, 6)
    optimiser = torch.optim.Adam([projected], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        proxy_loss(projected, vertices).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    cosines = functional.normalize(projected, dim=1) @ vertices.T
    assert cosines.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert cosines.diagonal().min() > 0.8


def test_one_proxy_has_a_finite_gradient() -> None:
    projected = torch.randn(1, 3).requires_grad_()
    proxy_loss(projected, simplex(1, 3)).backward()  # type: ignore[no-untyped-call]
    assert projected.grad is not None
    assert projected.grad.isfinite().all()


def test_strangers_weigh_in_as_non_mated_alone() -> None:
    units = functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(2)), dim=1)
    labels = torch.tensor([0, 1, 2, 0, 1])  # subject 2 has no mate
    similar = (units @ units.T / 0.05).fill_diagonal_(-torch.inf)
    logs = similar - similar.logsumexp(dim=1, keepdim=True)
    expected = -(logs[0, 3] + logs[3, 0] + logs[1, 4] + logs[4, 1]) / 4
    torch.testing.assert_close(SupervisedContrastive()(units, labels), expected)
