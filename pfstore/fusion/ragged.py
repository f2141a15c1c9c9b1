"""Ragged sets of features, and what is computed over each set; nothing is padded and no loop runs over sets.

S is the number of sets, P of the pieces they are cut into, N of features, D their dimension, K of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pfstore.features import Offsets, offsets_of, within
from pfstore.fusion.products import Pattern, dots, weighted_sums

# A float32 sum over 100,000 features is too inexact: float32 sums end after this many, and go on in float64.
PIECE = 64
# Steps that copy features copy this many values at a time, so that the copies stay in the processor's cache.
CACHED_VALUES = 2**20


def runs(offsets: Offsets, budget: int, surcharge: int = 0) -> Iterator[tuple[int, int]]:
    """Cut sets into runs [first, last) of at most budget features; a larger set is a run by itself.

    offsets: [S+1] int64. surcharge: what each set counts beside its features.
    """
    costs = offsets + surcharge * np.arange(len(offsets))
    first, sets = 0, len(offsets) - 1
    while first < sets:
        fitting = int(np.searchsorted(costs, costs[first] + budget, side="right")) - 1
        last = max(first + 1, fitting)
        yield first, last
        first = last


@dataclass(frozen=True)
class Segments:
    """Consecutive segments of features: segment i has the rows offsets[i]:offsets[i+1].

    offsets: [P+1] int64 numpy, from 0. device: where the features are.
    """

    offsets: Offsets
    device: torch.device

    @cached_property
    def counts(self) -> Tensor:
        """[P] int64, the features of each segment."""
        return torch.from_numpy(np.diff(self.offsets)).to(self.device)

    @cached_property
    def of_feature(self) -> Tensor:
        """[N] int64, the segment of each feature."""
        segments = torch.arange(len(self.offsets) - 1, device=self.device)
        return segments.repeat_interleave(self.counts, output_size=int(self.offsets[-1]))

    @cached_property
    def ranks(self) -> Tensor:
        """[N] int64, the place of each feature in its segment, from 0."""
        starts = torch.from_numpy(self.offsets[:-1]).to(self.device)
        return torch.arange(len(self.of_feature), device=self.device) - starts[self.of_feature]

    def pattern(self, blocks: int) -> Pattern:
        """Pair each block of each segment with the segment's features."""
        return Pattern.of(self.offsets, blocks, self.of_feature)

    def sums(self, features: Tensor) -> Tensor:
        """[P, D], the sum of each segment's features ([N, D])."""
        return weighted_sums(features.new_ones(len(features)), features, self.pattern(1))


@dataclass(frozen=True)
class Part:
    """Some consecutive pieces of sets: which features they have, these themselves, and the set of each piece.

    rows: of all features. values: [n, D]. pieces: segments of the values. owners: [p] int64.
    """

    rows: slice
    values: Tensor
    pieces: Segments
    owners: Tensor


class Sets:
    """Feature sets, each cut into pieces of at most PIECE features from its own first feature on.

    Where a set is cut does not depend on its neighbours, so neither does its result.

    offsets: [S+1] int64 numpy, from 0. device: where the features are.
    """

    def __init__(self, offsets: Offsets, device: torch.device) -> None:
        pieces = -(-np.diff(offsets) // PIECE)
        owners = np.repeat(np.arange(len(pieces)), pieces)
        self.segments = Segments(offsets, device)
        self.pieces = Segments(np.append(offsets[owners] + within(pieces) * PIECE, offsets[-1]), device)
        self.owners = torch.from_numpy(owners).to(device)
        self._pieces_of_set = pieces

    @cached_property
    def _firsts(self) -> Tensor:
        """[S] int64, the first piece of each set."""
        return torch.from_numpy(np.cumsum(self._pieces_of_set) - self._pieces_of_set).to(self.owners.device)

    @cached_property
    def _several(self) -> tuple[Tensor, Tensor, Tensor]:
        """The sets of more than one piece, all pieces of theirs, and of each piece the place of its set among them."""
        sets = (self._pieces_of_set > 1).nonzero()[0]
        parts = np.repeat(self._pieces_of_set > 1, self._pieces_of_set).nonzero()[0]
        places = np.repeat(np.arange(len(sets)), self._pieces_of_set[sets])
        several, all_parts, of_parts = (torch.from_numpy(one).to(self.owners.device) for one in (sets, parts, places))
        return several, all_parts, of_parts

    def __len__(self) -> int:
        return len(self.segments.offsets) - 1

    def parts(self, features: Tensor, dtype: torch.dtype) -> Iterator[Part]:
        """Features ([N, D]) by the cacheful, in this dtype; all at once on a device that has no such cache."""
        fitting = CACHED_VALUES // features.shape[1] if features.device.type == "cpu" else len(features)
        for first, last in runs(self.pieces.offsets, max(PIECE, fitting)):
            offsets = self.pieces.offsets[first : last + 1]
            rows = slice(int(offsets[0]), int(offsets[-1]))
            pieces = Segments(offsets - offsets[0], features.device)
            yield Part(rows, features[rows].to(dtype), pieces, self.owners[first:last])

    def only(self, features: Tensor, chosen: Tensor) -> tuple[Sets, Tensor]:
        """Those sets for which the mask ([S] bool) is true, and their features."""
        few = Sets(offsets_of(self.segments.counts[chosen].cpu().numpy()), features.device)
        return few, features[chosen[self.segments.of_feature]]

    def means(self, features: Tensor, of: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
        """[S, m] means over each set of all that `of` makes of some features ([n, D] to [n, m]), of its dtypes."""
        parts = self.parts(features, features.dtype)
        sums = [[part.pieces.sums(values) for values in of(part.values)] for part in parts]
        counts = self.segments.counts[:, None]
        return [self.gather(torch.cat(column)) / counts for column in zip(*sums, strict=True)]

    def sums(self, weights: Tensor, features: Tensor) -> Tensor:
        """[K, S, D] sums of each set's features ([N, D]) under weights ([K, N]), of the weights' dtype."""
        blocks, dimension = len(weights), features.shape[1]
        sums = [
            weighted_sums(weights[:, part.rows].flatten(), part.values, part.pieces.pattern(blocks))
            for part in self.parts(features, weights.dtype)
        ]
        return self.gather(torch.cat([one.view(blocks, -1, dimension) for one in sums], dim=1))

    def gather(self, pieces: Tensor) -> Tensor:
        """[..., S, D] sums over sets, from sums over their pieces ([..., P, D]), which are added in float64."""
        if len(self) == len(self.owners):
            return pieces
        several, parts, places = self._several
        shape = (*pieces.shape[:-2], len(several), pieces.shape[-1])
        sums = torch.zeros(shape, dtype=torch.float64, device=pieces.device)
        sums = sums.index_add(-2, places, pieces.index_select(-2, parts).double())
        return pieces.index_select(-2, self._firsts).index_copy(-2, several, sums.to(pieces.dtype))

    def logits(self, contexts: Tensor, features: Tensor) -> Tensor:
        """[K, N] products of each feature ([N, D]) with its set's contexts ([K, S, D]), of their dtype."""
        blocks = len(contexts)
        products = [
            dots(contexts[:, part.owners].flatten(0, 1), part.values, part.pieces.pattern(blocks)).view(blocks, -1)
            for part in self.parts(features, contexts.dtype)
        ]
        return torch.cat(products, dim=1)

    def softmax(self, logits: Tensor) -> Tensor:
        """[K, N] float64, the softmax of logits ([K, N]) over each set."""
        wide = logits.double()
        owners = self.segments.of_feature.expand(wide.shape)
        floor = wide.new_full((len(wide), len(self)), -torch.inf)
        peaks = floor.scatter_reduce(1, owners, wide.detach(), "amax")
        powers = (wide - peaks.gather(1, owners)).exp()
        totals = torch.zeros_like(floor).scatter_add(1, owners, powers)
        return powers / totals.gather(1, owners)

    def pool(self, weights: Tensor, features: Tensor) -> Tensor:
        """[S, K, D] sums of each set's features ([N, D]) under weights ([K, N]), of the features' dtype."""
        return self.sums(weights.to(features.dtype), features).transpose(0, 1)
