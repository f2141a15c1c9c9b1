"""Models by name or file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch

from pfstore.errors import ContractError, ModelError
from pfstore.fusion.baselines import Average, Baseline, NormWeighted, TrimmedMean
from pfstore.fusion.checkpoints import read_checkpoint
from pfstore.fusion.fuser import BASELINES, Fuser
from pfstore.fusion.model import ProxyFusionModel
from pfstore.fusion.proxyfusion import ProxyFusion
from pfstore.fusion.serialisation import as_model

_BASELINES: dict[str, type[Baseline]] = {kind.name: kind for kind in (Average, NormWeighted, TrimmedMean)}


def load_model(
    source: str | PathLike[str],
    *,
    experts_selected: int | None = None,
    normalisation: str | None = None,
    dimension: int | None = None,
) -> Fuser:
    """Load the model in a file (a published .pth.tar, or safetensors of any kind), or the baseline of that name.

    experts_selected: how many experts each set is given to; 4 by default, or all if there are fewer, for a
    published checkpoint does not say. normalisation: "raw" (the default), "unit" or "scale:<factor>". Either
    must agree with what the file itself states. dimension: D that the model must take.

    Raises ModelError for a file that is no model and for settings that the model cannot have, ContractError
    for another dimension.
    """
    if source in _BASELINES:
        if experts_selected not in (None, 1):
            raise ModelError(f"the model {source} has no experts: leave experts_selected out")
        return _BASELINES[str(source)](dimension, "raw" if normalisation is None else normalisation)
    path = Path(source)
    if not path.exists():
        raise ModelError(f"there is no file {path}, and no baseline of that name: use {', '.join(BASELINES)}")
    model = as_model(read_checkpoint(path), str(path), experts_selected, normalisation)
    if dimension not in (None, model.dimension):
        raise ContractError(f"{path} takes features of {model.dimension} values, not {dimension}")
    return model


def random_model(dimension: int, experts: int = 11, selected: int = 4, seed: int = 0) -> ProxyFusionModel:
    """Make an untrained network, for demonstrations and tests; its origin says so. Repeatable by its seed."""
    if not 1 <= selected <= experts:
        raise ModelError(f"{selected} of {experts} experts cannot be selected: use 1 to {experts}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Training pins K proxies to the vertices of a simplex, which takes K - 1 dimensions.
        network = ProxyFusion(dimension, experts, max(1, experts - 1), selected)
    return ProxyFusionModel(network, origin="random weights")
