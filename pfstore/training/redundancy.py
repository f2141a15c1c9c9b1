"""How much the experts of a trained network differ, and how few would do."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from pfstore.evaluation.results import Rate
from pfstore.fusion import ProxyFusionModel
from pfstore.training.validating import Validation


@dataclass(frozen=True)
class Selected:
    """The held-out figures with so many experts selected: FNMR at FMR `fmr`, and the values of a template."""

    experts: int
    fmr: float
    fnmr: Rate
    values: int


@dataclass(frozen=True)
class Redundancy:
    """What the experts buy.

    cosine: of two blocks of one template, the mean over references and pairs of blocks; 1 where all say the same.
    settings: 1 to all experts selected. recommended: the fewest whose FNMR is within the interval of the best;
    None where that interval is too wide to tell: its upper end is more than twice the rate.
    """

    cosine: float
    settings: Sequence[Selected]
    recommended: int | None


def redundancy(model: ProxyFusionModel, validation: Validation, bootstrap: int) -> Redundancy:
    """Measure a trained model on the held-out subjects, with 1, 2, … of its experts selected."""
    settings = []
    for experts in range(1, model.blocks + 1):
        network = deepcopy(model.network)
        network.selected = experts
        figures = validation.figures(ProxyFusionModel(network, model.normalisation), bootstrap)[-1]
        settings.append(Selected(experts, figures.target, figures.fnmr, experts * model.dimension))
    best = min(settings, key=lambda one: one.fnmr.value)
    enough = next(one.experts for one in settings if one.fnmr.value <= best.fnmr.high)
    recommended = enough if best.fnmr.high <= 2 * best.fnmr.value else None
    return Redundancy(_cosine_of_blocks(model, validation), settings, recommended)


def _cosine_of_blocks(model: ProxyFusionModel, validation: Validation) -> float:
    if model.blocks == 1:
        return 1.0
    sets = validation.draws[0].references
    fused = model.fuse(sets.features, sets.offsets, role="gallery")
    units = fused / np.linalg.norm(fused, axis=2, keepdims=True)
    cosines = np.einsum("skd,sld->skl", units, units).mean(axis=0)
    return float(cosines[np.triu_indices(model.blocks, k=1)].mean())
