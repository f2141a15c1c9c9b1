"""Poolings without a checkpoint, as models of one block; they know no roles and take any dimension."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from pfstore.features import Offsets, offsets_of
from pfstore.fusion.chunked import ChunkedFuser
from pfstore.fusion.fuser import Role
from pfstore.fusion.inputs import ZERO_SUM
from pfstore.fusion.normalisation import Normalisation
from pfstore.fusion.ragged import CACHED_VALUES, Sets

# Frigate's constants in per cent: the least cosine that is kept, the least share kept, the share trimmed.
LEAST_COSINE, LEAST_KEPT, TRIMMED = 30, 70, 15


class Baseline(ChunkedFuser):
    """One vector a set. Over media: each medium's vector is a feature of the second stage.

    dimension: D if others are to be refused, or None. normalisation: as for every model.
    """

    kind = "baseline"
    blocks = 1
    definition: ClassVar[str]

    def __init__(self, dimension: int | None = None, normalisation: str = "raw") -> None:
        super().__init__(Normalisation.parse(normalisation))
        self.dimension = dimension

    @property
    def digest(self) -> str:
        """Hex SHA-256 over the definition and the input normalisation."""
        identity = {"name": self.name, "definition": self.definition, "normalisation": self.normalisation}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Describe the model as `model show` prints it; JSON-ready."""
        return {
            "name": self.name,
            "kind": self.kind,
            "dimension": self.dimension,
            "experts": None,
            "selected": self.blocks,
            "domain": None,
            "normalisation": self.normalisation,
            "parameters": 0,
            "digest": self.digest,
            "origin": self.definition,
        }

    def _pool(self, features: Tensor, offsets: Offsets, role: Role) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        vectors, reach = self._vectors(features, Sets(offsets, features.device))
        return vectors[:, None], reach

    @abstractmethod
    def _vectors(self, features: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        """[S, D] of the sets of features ([N, D]), and the norm that it has where a set points one way."""


class Average(Baseline):
    """The mean of the unit features; over media, the mean of the media's unit vectors."""

    name = "average"
    definition = "mean of unit features"

    def _vectors(self, features: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        return _mean(sets, features, 1 / features.norm(dim=1)), features.new_ones(())


class NormWeighted(Baseline):
    """The mean of the features as they are, so each unit feature weighs its norm (the reference's GAP)."""

    name = "norm-weighted"
    definition = "mean of features"

    def _vectors(self, features: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        norms = features.norm(dim=1, keepdim=True)
        ones = features.new_ones(len(features))
        return _mean(sets, features, ones), _mean(sets, norms, ones)[:, 0]


class TrimmedMean(Baseline):
    """The trimmed mean of Frigate, over unit features.

    Of a set of n, the features are dropped whose cosine to the set's mean is below 0.30, except that the
    ceil(0.7 n) with the highest cosines always stay (of equal ones the earlier). Of the m that stay, each
    coordinate is sorted by itself, floor(0.15 m) values are cut off at either end, the others are averaged.
    """

    name = "trimmed-mean"
    definition = (
        f"unit features, cosine to mean >= 0.{LEAST_COSINE} or among the nearest {LEAST_KEPT} %, "
        f"mean of each coordinate less {TRIMMED} % at either end"
    )

    def _vectors(self, features: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        scale = 1 / features.norm(dim=1)
        mean = _mean(sets, features, scale)
        norms = mean.norm(dim=1)
        directions = (mean / norms.clamp_min(ZERO_SUM)[:, None]).double()
        kept = _near(sets, sets.logits(directions[None], features)[0] * scale)
        counts = sets.segments.counts.new_zeros(len(sets)).index_add(0, sets.segments.of_feature, kept.long())
        remaining = Sets(offsets_of(counts.cpu().numpy()), features.device)
        trimmed = _trimmed(remaining, features[kept] * scale[kept, None])
        # A set without a mean has no cosines to it, whatever its trimmed mean may be.
        return trimmed, torch.where(norms > ZERO_SUM, 1.0, torch.inf)


def _mean(sets: Sets, features: Tensor, weights: Tensor) -> Tensor:
    """[S, D], the mean of each set's features ([N, D]), each times its weight ([N])."""
    counts = sets.segments.counts[sets.segments.of_feature]
    return sets.pool((weights.double() / counts)[None], features)[:, 0]


def _near(sets: Sets, cosines: Tensor) -> Tensor:
    """[N] bool, the features that stay, by their cosines to the mean ([N] float64)."""
    owners = sets.segments.of_feature
    # Cosines lie within 1 of 0, so adding 4 per set sorts all sets at once and keeps them apart.
    order = (4 * owners.double() - cosines).argsort(stable=True)
    ranks = torch.empty_like(order).scatter_(0, order, sets.segments.ranks)
    counts = sets.segments.counts[owners]
    return (cosines >= LEAST_COSINE / 100) | (ranks < -(-LEAST_KEPT * counts // 100))


def _trimmed(sets: Sets, units: Tensor) -> Tensor:
    """[S, D], the trimmed mean of each coordinate of each set's unit features ([N, D])."""
    counts = sets.segments.counts[sets.segments.of_feature]
    cut = TRIMMED * counts // 100
    ranks = sets.segments.ranks
    weights = ((ranks >= cut) & (ranks < counts - cut)) / (counts - 2 * cut).double()
    apart = 4 * sets.segments.of_feature.double()  # as in _near
    width = max(1, CACHED_VALUES // len(units))
    blocks = [_pooled_in_order(sets, block, apart, weights) for block in torch.split(units, width, dim=1)]
    return torch.cat(blocks, dim=1)


def _pooled_in_order(sets: Sets, units: Tensor, apart: Tensor, weights: Tensor) -> Tensor:
    """[S, d], each coordinate ([N, d]) sorted within its sets, then summed under weights by rank ([N])."""
    ordered = (units.T.double() + apart).sort(dim=1).values - apart
    return sets.pool(weights[None], ordered.T.contiguous())[:, 0].to(units.dtype)
