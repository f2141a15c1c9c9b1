"""The sparse products behind ragged attention, differentiable to any order.

Three products suffice, for each is the gradient of the others: `dots` (a sampled dense-dense product),
`weighted_sums` (sparse times dense) and `spread` (its transpose). None makes an [N, D, K] tensor.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pfstore.features import Offsets


@contextmanager
def without_notice(message: str) -> Iterator[None]:
    """Keep quiet a notice that torch gives once a process: drawn at import, it never comes up later.

    A filter around each use would not do, for Python's filters are shared by all threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield


with without_notice("Sparse CSR tensor support is in beta state"):
    torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), check_invariants=False)


@contextmanager
def exactly(operand: Tensor) -> Iterator[None]:
    """Multiply in the operands' own dtype, whatever autocast or the use of tf32 would make of it."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with without_autocast(operand):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@dataclass(frozen=True)
class Pattern:
    """Which features each piece has, once for every block: a [K*P, N] CSR matrix, block by block.

    rows: [K*P+1] int64 and columns: [K*N] int64, the CSR indices. pieces: [N] int64, each feature's piece.
    """

    rows: Tensor
    columns: Tensor
    pieces: Tensor
    blocks: int

    @classmethod
    def of(cls, offsets: Offsets, blocks: int, pieces: Tensor) -> Pattern:
        """Pair pieces with these offsets ([P+1] int64, from 0) with their features."""
        device, features = pieces.device, len(pieces)
        starts = torch.from_numpy(offsets[:-1]).to(device)
        first = features * torch.arange(blocks, device=device)
        rows = torch.cat([(first[:, None] + starts).flatten(), starts.new_tensor([blocks * features])])
        return cls(rows, torch.arange(features, device=device).repeat(blocks), pieces, blocks)

    def matrix(self, values: Tensor) -> Tensor:
        """[K*P, N] CSR matrix with these values ([K*N])."""
        size = (len(self.rows) - 1, len(self.pieces))
        return torch.sparse_csr_tensor(self.rows, self.columns, values, size, check_invariants=False)

    def transposed(self, values: Tensor) -> Tensor:
        """[N, K*P] CSR matrix with these values ([K*N])."""
        features, rows = len(self.pieces), len(self.rows) - 1
        block = torch.arange(self.blocks, device=values.device)
        columns = self.pieces[:, None] + block * (rows // self.blocks)
        starts = self.blocks * torch.arange(features + 1, device=values.device)
        by_feature = values.view(self.blocks, features).T.flatten()
        return torch.sparse_csr_tensor(starts, columns.flatten(), by_feature, (features, rows), check_invariants=False)


def without_autocast(operand: Tensor) -> torch.autocast:
    """Keep the operands' dtype where autocast would narrow it: there are no sparse products of bfloat16."""
    return torch.autocast(operand.device.type, enabled=False)


def dots(contexts: Tensor, features: Tensor, pattern: Pattern) -> Tensor:
    """[K*N] scalar products of each context ([K*P, D]) with the features ([N, D]) of its piece."""
    with without_autocast(features):
        result: Tensor = _Dots.apply(contexts, features, pattern)  # type: ignore[no-untyped-call]
    return result


def weighted_sums(weights: Tensor, features: Tensor, pattern: Pattern) -> Tensor:
    """[K*P, D] sums of the features ([N, D]) of each piece, under each block's weights ([K*N])."""
    with without_autocast(features):
        result: Tensor = _WeightedSums.apply(weights, features, pattern)  # type: ignore[no-untyped-call]
    return result


def spread(weights: Tensor, contexts: Tensor, pattern: Pattern) -> Tensor:
    """[N, D] sums, for each feature, of its piece's contexts ([K*P, D]) under its weights ([K*N])."""
    with without_autocast(contexts):
        result: Tensor = _Spread.apply(weights, contexts, pattern)  # type: ignore[no-untyped-call]
    return result


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, contexts: Tensor, features: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(contexts, features)
        ctx.pattern = pattern
        zeros = pattern.matrix(features.new_zeros(len(pattern.columns)))
        products: Tensor = torch.sparse.sampled_addmm(zeros, contexts, features.T, beta=0.0)
        return products.values()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        contexts, features = ctx.saved_tensors
        grad = grad.contiguous()
        for_contexts, for_features, _ = ctx.needs_input_grad
        return (
            weighted_sums(grad, features, ctx.pattern) if for_contexts else None,
            spread(grad, contexts, ctx.pattern) if for_features else None,
            None,
        )


class _WeightedSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, features: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(weights, features)
        ctx.pattern = pattern
        # The same as pattern.matrix(weights) @ features, by a kernel that is made for rows of this length.
        return functional.embedding_bag(
            pattern.columns, features, pattern.rows, mode="sum", per_sample_weights=weights, include_last_offset=True
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weights, features = ctx.saved_tensors
        grad = grad.contiguous()
        for_weights, for_features, _ = ctx.needs_input_grad
        return (
            dots(grad, features, ctx.pattern) if for_weights else None,
            spread(weights, grad, ctx.pattern) if for_features else None,
            None,
        )


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, contexts: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(weights, contexts)
        ctx.pattern = pattern
        return pattern.transposed(weights) @ contexts

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weights, contexts = ctx.saved_tensors
        grad = grad.contiguous()
        for_weights, for_contexts, _ = ctx.needs_input_grad
        return (
            dots(contexts, grad, ctx.pattern) if for_weights else None,
            weighted_sums(weights, grad, ctx.pattern) if for_contexts else None,
            None,
        )
