"""The engine on a GPU against the bus that its features come over, and against the experts' products there.

Run by itself on a machine with a CUDA device: python -m bench.gpu [--big]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.fusing import DIMENSION, feature_sets, products
from bench.harness import Result, medians, show
from pfstore.features import Floats, Offsets
from pfstore.fusion import ProxyFusionModel, random_model
from pfstore.fusion.precision import Precision, computing

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
CUDA = torch.device("cuda")
COMPARED = 500
"""Sets whose templates are compared with those made on the processor."""


def run(*, big: bool) -> list[Result]:
    """Fuse sets of about 30 features each from the host's memory; nothing where there is no GPU."""
    if not torch.cuda.is_available():
        print("gpu: left out, there is no CUDA device")
        return []
    sets = 64_000 if big else 8_000
    features, offsets = feature_sets(sets)
    pinned = torch.from_numpy(features).pin_memory()
    there = pinned.to(CUDA)
    halves = features.astype(np.float16)
    model = random_model(DIMENSION).to(CUDA)
    contestants: dict[str, Callable[[], object]] = {
        "the bus: copying the features, pinned": lambda: there.copy_(pinned, non_blocking=True),
        **{f"the experts' products, {one}": partial(_products, sets, one) for one in PRECISIONS},
        **{f"pfstore, {one}": partial(_fuse, model, one, features, offsets) for one in PRECISIONS},
        "pfstore, pinned features": partial(_fuse, model, "float32", pinned, offsets),
        "pfstore, float16 features": partial(_fuse, model, "float32", halves, offsets),
        **{f"pfstore, features there, {one}": partial(_fuse, model, one, there, offsets) for one in PRECISIONS},
    }
    seconds = medians({name: partial(_waited, contestant) for name, contestant in contestants.items()})
    yardstick = next(iter(contestants))
    errors = {f"pfstore, {one}": _error(model, one, features, offsets) for one in PRECISIONS}
    return [Result("fusing on a GPU", "sets", sets, seconds, yardstick, {"largest error of a template": errors})]


def _fuse(model: ProxyFusionModel, precision: Precision, features: Any, offsets: Offsets) -> None:
    model.to(CUDA, precision).fuse(features, offsets, role="gallery")


def _products(sets: int, precision: Precision) -> None:
    with computing(CUDA, precision):
        products(sets, CUDA)


def _waited(contestant: Callable[[], object]) -> None:
    contestant()
    torch.cuda.synchronize()


def _error(model: ProxyFusionModel, precision: Precision, features: Floats, offsets: Offsets) -> float:
    """The largest distance of a template from the one that float64 gives on the processor."""
    cuts = offsets[: COMPARED + 1]
    some = features[: cuts[-1]]
    exact = random_model(DIMENSION)
    exact.network.double()
    made = model.to(CUDA, precision).templates(some, cuts, role="gallery")
    return float(np.linalg.norm(made - exact.templates(some, cuts, role="gallery"), axis=1).max())


if __name__ == "__main__":
    show(run(big="--big" in sys.argv))
