"""ProxyFusion for one set at a time, in plain torch of any precision: what the batched engine must agree with."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear, normalize

Weights = Mapping[str, Tensor]


def wide(network: nn.Module) -> Weights:
    """The weights of a network in float64."""
    return {name: weight.double() for name, weight in network.state_dict().items()}


def experts_of(weights: Weights, features: Tensor, proxies: Tensor, selected: int) -> list[int]:
    """The experts chosen for one set, best first."""
    project = (weights["transform.weight"], weights["transform.bias"])
    cosines = normalize(linear(features, *project), dim=1) @ normalize(linear(proxies, *project), dim=1).T
    return cosines.sum(dim=0).sort(descending=True, stable=True).indices[:selected].tolist()


def context_of(weights: Weights, features: Tensor, proxy: Tensor, expert: int) -> Tensor:
    """What one expert makes of one set."""
    mean = features.mean(dim=0)
    hidden = torch.cat([mean, (features - mean).square().mean(dim=0), proxy])
    for layer in (0, 3, 6):
        key = f"pooler.{expert}.{layer}"
        hidden = leaky_relu(linear(hidden, weights[f"{key}.weight"], weights[f"{key}.bias"]), 0.01)
    return hidden


def fuse_set(weights: Weights, features: Tensor, selected: int, role: str) -> Tensor:
    """[selected, D] for one set ([N, D])."""
    proxies = weights["proxies_p" if role == "probe" else "proxies_g"]
    chosen = experts_of(weights, features, proxies, selected)
    contexts = torch.stack([context_of(weights, features, proxies[k], k) for k in chosen])
    queries = features
    if role == "probe":
        queries = linear(features, weights["probe_linear.weight"], weights["probe_linear.bias"])
    return (queries @ contexts.T).softmax(dim=0).T @ normalize(features, dim=1)


def fuse_sets(
    weights: Weights, features: Tensor, offsets: NDArray[np.int64], selected: int, role: str
) -> NDArray[np.float64]:
    """[S, selected, D], set by set."""
    bounds = pairwise(offsets.tolist())
    fused = [fuse_set(weights, features[first:last], selected, role) for first, last in bounds]
    return torch.stack(fused).numpy()
