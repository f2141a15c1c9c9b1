"""The engine against a loop over sets, and against the matrix products that it cannot do without."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.harness import Result, medians
from pfstore.features import offsets_of
from pfstore.fusion import ProxyFusion, random_model

DIMENSION, EXPERTS, SELECTED, MEAN = 512, 11, 4, 30


def run(*, big: bool) -> list[Result]:
    """Fuse sets of about 30 features each by a network of the published one's sizes."""
    sets = 4000 if big else 600
    random = np.random.default_rng(0)
    counts = np.clip(random.lognormal(np.log(MEAN) - 0.5, 1.0, sets).astype(int), 1, 2000)
    features = (20 * random.normal(size=(counts.sum(), DIMENSION)) / DIMENSION**0.5).astype(np.float32)
    offsets = offsets_of(counts)
    model = random_model(DIMENSION, experts=EXPERTS, selected=SELECTED, seed=0)
    looped = random_model(DIMENSION, experts=EXPERTS, selected=SELECTED, seed=0).network.float()
    contestants = {
        "a loop over sets": lambda: _loop(looped, torch.from_numpy(features), offsets.tolist()),
        "pfstore": lambda: model.fuse(features, offsets, role="gallery"),
        "the experts' sgemm": lambda: _products(sets),
    }
    return [Result("fusing", "sets", sets, medians(contestants), "a loop over sets")]


@torch.inference_mode()
def _loop(network: ProxyFusion, features: Tensor, offsets: list[int]) -> Tensor:
    """Fuse set by set in float32, the straightforward way."""
    proxies = network.proxies_g
    targets = normalize(network.transform(proxies), dim=1)
    fused = []
    for first, last in pairwise(offsets):
        rows = features[first:last]
        scores = (normalize(network.transform(rows), dim=1) @ targets.T).sum(dim=0)
        mean, variance = rows.mean(dim=0), rows.var(dim=0, unbiased=False)
        blocks = []
        for expert in scores.topk(network.selected).indices.tolist():
            context = network.pooler[expert](torch.cat([mean, variance, proxies[expert]]))
            weights = torch.softmax(rows @ context, dim=0)
            blocks.append(weights @ normalize(rows, dim=1))
        fused.append(torch.stack(blocks))
    return torch.stack(fused)


@torch.inference_mode()
def _products(sets: int) -> None:
    """Multiply, in float32, matrices of the sizes that every batched engine must send through the experts."""
    rows = sets * SELECTED // EXPERTS
    for _ in range(EXPERTS):
        inputs = torch.zeros(rows, 2 * DIMENSION)
        hidden = inputs @ torch.zeros(2 * DIMENSION, 2 * DIMENSION)
        hidden = hidden @ torch.zeros(2 * DIMENSION, 2 * DIMENSION)
        hidden @ torch.zeros(2 * DIMENSION, DIMENSION)
