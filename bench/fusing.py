"""The engine against a loop over sets, and against the matrix products that it cannot do without."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.harness import Result, medians
from pfstore.features import Floats, Offsets, offsets_of
from pfstore.fusion import ProxyFusion, random_model

DIMENSION, EXPERTS, SELECTED, MEAN = 512, 11, 4, 30
LENGTHS = (10, 100, 1000, 10_000, 100_000)


def run(*, big: bool) -> list[Result]:
    """Fuse by a network of the published one's sizes: sets of about 30 features each, and sets of one length."""
    return [_mixed(4000 if big else 600), *(_of_length(length, 200_000 if big else 100_000) for length in LENGTHS)]


def feature_sets(sets: int) -> tuple[Floats, Offsets]:
    """Sets of log-normally many features, 30 on average: [N, D] features and the offsets of the sets."""
    random = np.random.default_rng(0)
    counts = np.clip(random.lognormal(np.log(MEAN) - 0.5, 1.0, sets).astype(int), 1, 2000)
    return _features(int(counts.sum()), random), offsets_of(counts)


def _features(rows: int, random: np.random.Generator) -> Floats:
    features = random.standard_normal((rows, DIMENSION), dtype=np.float32)
    features *= 20 / DIMENSION**0.5
    return features


def _mixed(sets: int) -> Result:
    features, offsets = feature_sets(sets)
    model = random_model(DIMENSION, experts=EXPERTS, selected=SELECTED, seed=0)
    contestants = {
        "a loop over sets": lambda: _loop(model.network, torch.from_numpy(features), offsets.tolist()),
        "pfstore": lambda: model.fuse(features, offsets, role="gallery"),
        "the experts' sgemm": lambda: products(sets, torch.device("cpu")),
    }
    return Result("fusing", "sets", sets, medians(contestants), "the experts' sgemm")


def _of_length(length: int, features: int) -> Result:
    """Time a feature costs in sets of one length, beside the experts' products, which are the same for any length."""
    sets = max(1, min(features // length, 2000))
    values = _features(sets * length, np.random.default_rng(0))
    model = random_model(DIMENSION, experts=EXPERTS, selected=SELECTED, seed=0)
    contestants = {
        "pfstore": lambda: model.fuse(values, offsets_of([length] * sets), role="gallery"),
        "the experts' sgemm": lambda: products(sets, torch.device("cpu")),
    }
    seconds = medians(contestants)
    beside = (seconds["pfstore"] - seconds["the experts' sgemm"]) / len(values) * 1e9
    columns = {"ns a feature beside the experts": {"pfstore": beside}}
    return Result(f"fusing sets of {length:,}", "features", len(values), seconds, "the experts' sgemm", columns)


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
def products(sets: int, device: torch.device) -> None:
    """Multiply, in float32, matrices of the sizes that every batched engine must send through the experts."""
    rows = -(-sets * SELECTED // EXPERTS)
    wide, narrow = (torch.full((2 * DIMENSION, size), 0.01, device=device) for size in (2 * DIMENSION, DIMENSION))
    inputs = torch.full((rows, 2 * DIMENSION), 0.01, device=device)
    for _ in range(EXPERTS):
        inputs @ wide @ wide @ narrow
