"""How a model weighs the features of sets: what `attend` tells of what `fuse` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pfstore.fusion.fuser import Cuts, Features, Role

Weights = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Attention:
    """The weights under which S sets of N features in all were fused.

    weights: [blocks, N] float64, those of a set summed as they are: block k of its fused vector is
        Σ weights[k, n] · f[n]/|f[n]| over its features, after the input normalisation.
    experts: [S, blocks] int64, the expert of each block, best first; None where the model has none to choose from.
    scores: [S, experts] float64, the mean cosine by which they were chosen; None with experts.
    exact: false where no one weight a feature gives the fused vector, as in a trimmed mean, which cuts each
        coordinate by itself; then a weight is the mean of those in all coordinates.
    """

    weights: Weights
    experts: Numbers | None = None
    scores: Weights | None = None
    exact: bool = True

    @classmethod
    def of(cls, weights: Tensor, chosen: Tensor | None = None, scores: Tensor | None = None) -> Attention:
        """Make it of tensors on any device: weights [blocks, N], chosen [S, blocks], scores [S, experts]."""
        return cls(
            weights.double().cpu().numpy(),
            None if chosen is None else chosen.cpu().numpy(),
            None if scores is None else scores.double().cpu().numpy(),
        )

    @classmethod
    def joined(cls, parts: Sequence[Attention]) -> Attention:
        """Put the sets of one model's parts, at least one, one after another."""
        experts = [one.experts for one in parts if one.experts is not None]
        scores = [one.scores for one in parts if one.scores is not None]
        return cls(
            np.concatenate([one.weights for one in parts], axis=1),
            np.concatenate(experts) if experts else None,
            np.concatenate(scores) if scores else None,
            parts[0].exact,
        )


@runtime_checkable
class Attending(Protocol):
    """A Fuser that can tell how it weighs; all of pfstore's can."""

    def attend(self, features: Features, offsets: Cuts, role: Role = "probe", *, fused: bool = False) -> Attention:
        """Tell the weights of fuse on the same arguments, of one set or more; errors as in Fuser.

        fused: the features are fused vectors, as the second stage of fuse_media takes them: the input
        normalisation is not for them.
        """
