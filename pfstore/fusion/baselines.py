"""Poolings without a checkpoint, as models of one block; they know no roles and take any dimension."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pfstore.features import Offsets, offsets_of
from pfstore.fusion.attention import Attention
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
    exact: ClassVar[bool] = True  # whether one weight a feature tells all, as in Attention
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

    def _attend(self, features: Tensor, offsets: Offsets, role: Role) -> Attention:  # noqa: ARG002
        sets = Sets(offsets, features.device)
        return replace(Attention.of(self._weights(features, sets)[None]), exact=self.exact)

    @abstractmethod
    def _weights(self, features: Tensor, sets: Sets) -> Tensor:
        """[N] float64, the weight of each unit feature in its set's vector."""

    @abstractmethod
    def _vectors(self, features: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        """[S, D] of the sets of features ([N, D]), and the norm that it has where a set points one way."""


class Average(Baseline):
    """The mean of the unit features; over media, the mean of the media's unit vectors."""

    name = "average"
    definition = "mean of unit features"

    def _vectors(self, features: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        return _mean(sets, features, 1 / features.norm(dim=1)), features.new_ones(())

    def _weights(self, features: Tensor, sets: Sets) -> Tensor:
        return features.new_ones(len(features)).double() / _counts(sets)


class NormWeighted(Baseline):
    """The mean of the features as they are, so each unit feature weighs its norm (the reference's GAP)."""

    name = "norm-weighted"
    definition = "mean of features"

    def _vectors(self, features: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        norms = features.norm(dim=1, keepdim=True)
        ones = features.new_ones(len(features))
        return _mean(sets, features, ones), _mean(sets, norms, ones)[:, 0]

    def _weights(self, features: Tensor, sets: Sets) -> Tensor:
        norms: Tensor = features.norm(dim=1)
        return norms.double() / _counts(sets)


class TrimmedMean(Baseline):
    """The trimmed mean of Frigate, over unit features.

    Of a set of n, the features are dropped whose cosine to the set's mean is below 0.30, except that the
    ceil(0.7 n) with the highest cosines always stay (of equal ones the earlier). Of the m that stay, each
    coordinate is sorted by itself, floor(0.15 m) values are cut off at either end, the others are averaged.
    """

    name = "trimmed-mean"
    exact = False
    definition = (
        f"unit features, cosine to mean >= 0.{LEAST_COSINE} or among the nearest {LEAST_KEPT} %, "
        f"mean of each coordinate less {TRIMMED} % at either end"
    )

    def _vectors(self, features: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        kept, norms = self._kept(features, sets)
        trimmed = _trimmed(*_remaining(sets, features, kept))
        # A set without a mean has no cosines to it, whatever its trimmed mean may be.
        return trimmed, torch.where(norms > ZERO_SUM, 1.0, torch.inf)

    def _weights(self, features: Tensor, sets: Sets) -> Tensor:
        """The mean over the coordinates of 1 / (the values averaged in it), or 0 where the value is cut off."""
        kept, _ = self._kept(features, sets)
        weights = torch.zeros(len(features), dtype=torch.float64, device=features.device)
        weights[kept] = _shares(*_remaining(sets, features, kept))
        return weights

    def _kept(self, features: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        """[N] bool, the features that stay whole, and [S], the norm of each set's mean."""
        scale = 1 / features.norm(dim=1)
        mean = _mean(sets, features, scale)
        norms = mean.norm(dim=1)
        directions = (mean / norms.clamp_min(ZERO_SUM)[:, None]).double()
        return _near(sets, sets.logits(directions[None], features)[0] * scale), norms


def _mean(sets: Sets, features: Tensor, weights: Tensor) -> Tensor:
    """[S, D], the mean of each set's features ([N, D]), each times its weight ([N])."""
    return sets.pool((weights.double() / _counts(sets))[None], features)[:, 0]


def _counts(sets: Sets) -> Tensor:
    """[N] int64, how many features the set of each has."""
    return sets.segments.counts[sets.segments.of_feature]


def _near(sets: Sets, cosines: Tensor) -> Tensor:
    """[N] bool, the features that stay, by their cosines to the mean ([N] float64)."""
    owners = sets.segments.of_feature
    # Cosines lie within 1 of 0, so adding 4 per set sorts all sets at once and keeps them apart.
    order = (4 * owners.double() - cosines).argsort(stable=True)
    ranks = torch.empty_like(order).scatter_(0, order, sets.segments.ranks)
    counts = sets.segments.counts[owners]
    return (cosines >= LEAST_COSINE / 100) | (ranks < -(-LEAST_KEPT * counts // 100))


def _remaining(sets: Sets, features: Tensor, kept: Tensor) -> tuple[Sets, Tensor]:
    """Give the sets of the features ([N, D]) that are kept ([N] bool), and these as unit features."""
    counts = sets.segments.counts.new_zeros(len(sets)).index_add(0, sets.segments.of_feature, kept.long())
    scale = 1 / features.norm(dim=1)
    return Sets(offsets_of(counts.cpu().numpy()), features.device), features[kept] * scale[kept, None]


def _trimmed(sets: Sets, units: Tensor) -> Tensor:
    """[S, D], the trimmed mean of each coordinate of each set's unit features ([N, D])."""
    weights, apart = _weights_by_rank(sets), _apart(sets)
    blocks = [_pooled_in_order(sets, block, apart, weights) for block in _columns(units)]
    return torch.cat(blocks, dim=1)


def _shares(sets: Sets, units: Tensor) -> Tensor:
    """[N] float64, the mean over the coordinates of each unit feature's weight in _trimmed."""
    weights, apart = _weights_by_rank(sets), _apart(sets)
    shares = torch.zeros_like(weights)
    for block in _columns(units):
        order = (block.T.double() + apart).argsort(dim=1, stable=True)
        shares.index_add_(0, order.flatten(), weights.repeat(len(order)))
    return shares / units.shape[1]


def _weights_by_rank(sets: Sets) -> Tensor:
    """[N] float64, what the value of each rank within its set weighs; places are those of the features."""
    counts, ranks = _counts(sets), sets.segments.ranks
    cut = TRIMMED * counts // 100
    return ((ranks >= cut) & (ranks < counts - cut)) / (counts - 2 * cut).double()


def _apart(sets: Sets) -> Tensor:
    """[N] float64 to add to unit features, so that one sort serves all sets, as in _near."""
    return 4 * sets.segments.of_feature.double()


def _columns(units: Tensor) -> tuple[Tensor, ...]:
    return torch.split(units, max(1, CACHED_VALUES // len(units)), dim=1)


def _pooled_in_order(sets: Sets, units: Tensor, apart: Tensor, weights: Tensor) -> Tensor:
    """[S, d], each coordinate ([N, d]) sorted within its sets, then summed under weights by rank ([N])."""
    ordered = (units.T.double() + apart).sort(dim=1).values - apart
    return sets.pool(weights[None], ordered.T.contiguous())[:, 0].to(units.dtype)
