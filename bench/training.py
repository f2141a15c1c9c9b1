"""A step of training against the same step with a loop over sets, and against the products it cannot do without."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from bench.harness import Result, medians
from pfstore.features import Floats, Offsets, offsets_of
from pfstore.fusion import ProxyFusion, Role
from pfstore.training.losses import SupervisedContrastive, proxy_loss, simplex

DIMENSION, EXPERTS, SELECTED, MEAN = 512, 11, 4, 9

Fuse = Callable[[ProxyFusion, dict[Role, tuple[Floats, Offsets]]], Tensor]


def run(*, big: bool) -> list[Result]:
    """Fuse a probe and a reference of each subject, and go one step down the gradient."""
    subjects = 340 if big else 170
    random = np.random.default_rng(0)
    sides: dict[Role, tuple[Floats, Offsets]] = {"probe": _sets(random, subjects), "gallery": _sets(random, subjects)}
    torch.manual_seed(0)
    network = ProxyFusion(DIMENSION, EXPERTS, EXPERTS - 1, SELECTED, dropout=0.1)
    contestants = {
        "a loop over sets": lambda: _step(network, sides, _looped),
        "pfstore": lambda: _step(network, sides, _batched),
        "the experts' sgemm": lambda: _products(2 * subjects),
    }
    return [Result("a step of training", "sets", 2 * subjects, medians(contestants), "a loop over sets")]


def _sets(random: np.random.Generator, count: int) -> tuple[Floats, Offsets]:
    counts = 1 + random.poisson(MEAN - 1, count)
    features = 8 * random.normal(size=(counts.sum(), DIMENSION)) / DIMENSION**0.5
    return features.astype(np.float32), offsets_of(counts)


def _step(network: ProxyFusion, sides: dict[Role, tuple[Floats, Offsets]], fuse: Fuse) -> None:
    network.train()
    network.zero_grad()
    fused = fuse(network, sides)
    templates = normalize(fused.flatten(1), dim=1)
    labels = torch.arange(len(fused) // 2).repeat(2)
    vertices = simplex(EXPERTS, EXPERTS - 1)
    loss: Tensor = SupervisedContrastive()(templates, labels)
    for proxies in (network.proxies_p, network.proxies_g):
        loss = loss + 0.01 * proxy_loss(network.transform(proxies), vertices)
    loss.backward()  # type: ignore[no-untyped-call]


def _batched(network: ProxyFusion, sides: dict[Role, tuple[Floats, Offsets]]) -> Tensor:
    (probes, cuts), (references, others) = sides["probe"], sides["gallery"]
    features = torch.from_numpy(np.concatenate([probes, references]))
    return network.both(features, np.concatenate([cuts, cuts[-1] + others[1:]]), len(cuts) - 1)


def _looped(network: ProxyFusion, sides: dict[Role, tuple[Floats, Offsets]]) -> Tensor:
    return torch.cat([_set_by_set(network, torch.from_numpy(rows), cuts, role) for role, (rows, cuts) in sides.items()])


def _set_by_set(network: ProxyFusion, features: Tensor, offsets: Offsets, role: Role) -> Tensor:
    """Fuse set by set, the straightforward way."""
    proxies = network.proxies_p if role == "probe" else network.proxies_g
    targets = normalize(network.transform(proxies), dim=1)
    fused = []
    for first, last in pairwise(offsets.tolist()):
        rows = features[first:last]
        scores = (normalize(network.transform(rows), dim=1) @ targets.T).sum(dim=0)
        mean, variance = rows.mean(dim=0), rows.var(dim=0, unbiased=False)
        queries = linear(rows, network.probe_linear.weight, network.probe_linear.bias) if role == "probe" else rows
        chosen = scores.topk(network.selected).indices.tolist()
        contexts = [network.pooler[expert](torch.cat([mean, variance, proxies[expert]])) for expert in chosen]
        fused.append((queries @ torch.stack(contexts).T).softmax(dim=0).T @ normalize(rows, dim=1))
    return torch.stack(fused)


def _products(sets: int) -> None:
    """Multiply, forward and backward, matrices of the sizes that every batched engine sends through the experts."""
    rows = max(1, sets * SELECTED // EXPERTS)
    widths = (2 * DIMENSION, 2 * DIMENSION, 2 * DIMENSION, DIMENSION)
    for _ in range(EXPERTS):
        for inner, outer in pairwise(widths):
            weight, inputs, grads = torch.zeros(outer, inner), torch.zeros(rows, inner), torch.zeros(rows, outer)
            nn.functional.linear(inputs, weight)
            grads @ weight
            grads.T @ inputs
