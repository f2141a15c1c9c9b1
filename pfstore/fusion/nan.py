"""NAN (Yang et al., "Neural Aggregation Network for Video Face Recognition", CVPR 2017): two attention blocks.

Written from the paper's description of the aggregation module. S is the number of sets, N of features, D their
dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pfstore.features import Offsets
from pfstore.fusion.attention import Attention
from pfstore.fusion.fuser import Role
from pfstore.fusion.ragged import Sets


class Nan(nn.Module):
    """The network: D² + 2D parameters, the same for both roles.

    A kernel q weighs a set's features by the softmax of q·f. The first kernel is learnt; the second is made of
    what the first gives of the set, tanh(W Σ w f + b). The weights that the second gives pool unit features, as
    in ProxyFusion, so that templates compare alike; for unit features that is the paper's sum.

    All parameters start at zero, where both kernels weigh alike: untrained, the network is the plain average.
    Its gradient there is not zero, but the first kernel's is until W has left zero.

    dimension: D of one feature.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.kernel = nn.Parameter(torch.zeros(dimension))
        self.transfer = nn.Linear(dimension, dimension)
        nn.init.zeros_(self.transfer.weight)
        nn.init.zeros_(self.transfer.bias)

    def forward(self, features: Tensor, offsets: Offsets, role: Role) -> Tensor:  # noqa: ARG002
        """Fuse each set: [S, 1, D], not normalised, of the features' dtype.

        features: [N, D], no row zero, on the parameters' device. offsets: [S+1] int64 numpy, no set empty.
        Logits are computed in the parameters' dtype, softmax and sums in float64; autocast narrows the product
        with W alone. Differentiable to any order.
        """
        sets = Sets(offsets, features.device)
        return sets.pool(self._weigh(sets, features) / features.norm(dim=1), features)

    def both(self, features: Tensor, offsets: Offsets, probes: int) -> Tensor:  # noqa: ARG002
        """Fuse all sets, which are alike, as forward does."""
        fused: Tensor = self(features, offsets, "probe")
        return fused

    def attend(self, features: Tensor, offsets: Offsets, role: Role) -> Attention:  # noqa: ARG002
        """Tell how forward weighs, given the same; not differentiable."""
        with torch.no_grad():
            return Attention.of(self._weigh(Sets(offsets, features.device), features))

    def _weigh(self, sets: Sets, features: Tensor) -> Tensor:
        """[1, N] float64 weights of the unit features."""
        first = _weights(sets, self.kernel.expand(len(sets), -1), features)
        kernels = torch.tanh(self.transfer(_sums(sets, first, features).to(self.kernel.dtype)))
        return _weights(sets, kernels.to(self.kernel.dtype), features)


def _weights(sets: Sets, kernels: Tensor, features: Tensor) -> Tensor:
    """[1, N] float64 weights that each set's kernel ([S, D]) gives its features ([N, D])."""
    return sets.softmax(sets.logits(kernels[None], features))


def _sums(sets: Sets, weights: Tensor, features: Tensor) -> Tensor:
    """[S, D] float64 sums of each set's features ([N, D]) under weights ([1, N] float64).

    In float64 and not by Sets.pool, because W and the features' norms enlarge an error here on its way to the logits.
    """
    return sets.sums(weights, features)[0]
