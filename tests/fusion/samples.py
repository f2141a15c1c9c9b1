"""Feature sets and reference values for the tests of fusion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfstore.features import Floats, Offsets, offsets_of

GOLDEN = Path(__file__).parents[1] / "golden"
REFERENCES = ("reference_d32_e11_k4", "reference_d64_e4_k4")
SELECTED = 4


@dataclass(frozen=True)
class Reference:
    """One published-format checkpoint and what the reference implementation computes with it in float64."""

    checkpoint: Path
    features: Floats
    offsets: Offsets
    fused: dict[str, NDArray[np.float64]]
    media_subject: Offsets
    two_stage: NDArray[np.float64]

    @classmethod
    def read(cls, name: str) -> Reference:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return cls(
                GOLDEN / f"{name}.pth.tar",
                arrays["features"],
                arrays["offsets"],
                {role: arrays[f"{role}_fused"] for role in ("probe", "gallery")},
                arrays["media_subject"],
                arrays["gallery_two_stage"],
            )

    @property
    def weights(self) -> dict[str, Tensor]:
        content = torch.load(self.checkpoint, weights_only=True)
        return dict(content["state_dict"]["model_weights"])

    @property
    def subject_offsets(self) -> Offsets:
        return offsets_of(np.bincount(self.media_subject))


def feature_sets(counts: list[int], dimension: int, seed: int = 0) -> tuple[Floats, Offsets]:
    """Sets of these sizes, each round a mean of its own, of norms between about 5 and 25."""
    random = np.random.default_rng(seed)
    offsets = offsets_of(counts)
    means = np.repeat(random.standard_normal((len(counts), dimension)), counts, axis=0)
    features = means + random.standard_normal((int(offsets[-1]), dimension))
    scale = random.uniform(5, 25, (len(features), 1)) / np.linalg.norm(features, axis=1, keepdims=True)
    return (features * scale).astype(np.float32), offsets


def regrouped(features: Floats, offsets: Offsets, order: list[int]) -> tuple[Floats, Offsets]:
    """The sets in this order, some perhaps left out."""
    rows = [np.arange(offsets[at], offsets[at + 1]) for at in order]
    return features[np.concatenate(rows)], offsets_of([len(row) for row in rows])
