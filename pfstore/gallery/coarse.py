"""The inline vector of a template that the first stage of a search reads, and how much it leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfstore.features import Floats

MOST_INLINE = 3500
"""Values of half precision that fit a page of the table beside the rest of a row."""


SLACK = 0.0012
"""How far a score may exceed the bound: the rounding of two coarse vectors (2⁻¹⁰), of residuals and of float32."""


@dataclass(frozen=True)
class Coarse:
    """The projections of templates on those whose blocks are all equal.

    vectors: [S, D] float16, Σ blocks / √blocks. residuals: [S] float32, the distance from a template (of half
    precision) to the one that repeats vector / √blocks in every block.

    For two templates with vectors u, v and residuals e, f, the score is at most u·v + e·f (Cauchy-Schwarz), but
    for the rounding of u and v, at most 2⁻¹¹ each.
    """

    vectors: NDArray[np.float16]
    residuals: Floats

    @classmethod
    def of(cls, templates: Floats, blocks: int) -> Coarse:
        """Take templates [S, blocks*D] float32, L2-normalised."""
        import torch

        parts = torch.from_numpy(halves(templates)).float().view(len(templates), blocks, -1)
        root = blocks**0.5
        vectors = (parts.sum(dim=1) / root).half()
        residuals = (parts - vectors.float()[:, None] / root).flatten(1).norm(dim=1)
        return cls(vectors.numpy(), residuals.numpy())


def halves(values: Floats) -> NDArray[np.float16]:
    """Round float32 values to half precision, as numpy does, but by the processor's own instruction."""
    import torch

    rounded: NDArray[np.float16] = torch.from_numpy(values).half().numpy()
    return rounded


def is_kept(blocks: int, dimension: int) -> bool:
    """Tell whether templates of so many blocks of D values have a coarse vector; of one block they are their own."""
    return blocks > 1 and dimension <= MOST_INLINE
