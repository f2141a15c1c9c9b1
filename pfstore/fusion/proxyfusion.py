"""ProxyFusion (Jawade et al., NeurIPS 2024): proxies choose experts, whose contexts weigh the features.

Written from the method's description. K is the number of experts, S of sets, N of features; r is the domain
dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pfstore.features import Offsets
from pfstore.fusion.attention import Attention
from pfstore.fusion.fuser import Role
from pfstore.fusion.ragged import Sets

DROPOUT = 0.7
# Scores are mean cosines in float64; rounding them so makes a tie of what differs by arithmetic noise alone.
SCORE_DECIMALS = 9


class ProxyFusion(nn.Module):
    """The network; its state dict has the keys and shapes of the published checkpoints.

    dimension: D of one feature. experts: K. domain: r, of the projection in which experts are chosen.
    selected: how many experts each set is given to, 1 to K. dropout: inside the experts while training.
    """

    def __init__(self, dimension: int, experts: int, domain: int, selected: int, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.dimension, self.experts, self.domain, self.selected = dimension, experts, domain, selected
        self.pooler = nn.ModuleList(_expert(dimension, dropout) for _ in range(experts))
        self.transform = nn.Linear(dimension, domain)
        self.proxies_g = nn.Parameter(torch.randn(experts, dimension))
        self.proxies_p = nn.Parameter(torch.randn(experts, dimension))
        self.probe_linear = nn.Linear(dimension, dimension)
        nn.init.eye_(self.probe_linear.weight)
        nn.init.zeros_(self.probe_linear.bias)

    def forward(self, features: Tensor, offsets: Offsets, role: Role) -> Tensor:
        """Fuse each set: [S, selected, D], blocks by rank, not normalised, of the features' dtype.

        features: [N, D], no row zero, on the parameters' device. offsets: [S+1] int64 numpy, no set empty.
        Contexts and logits are computed in the parameters' dtype, statistics and sums in float64; autocast narrows
        the contexts alone.
        Differentiable in the parameters and the features, but for the choice of experts, which is discrete:
        `transform` gets no gradient from here. Neither does the bias of `probe_linear`, which shifts all
        logits of a set alike.
        """
        sets = Sets(offsets, features.device)
        weights, _ = self._weigh(sets, features, role)
        return sets.pool(weights / features.norm(dim=1), features)

    def attend(self, features: Tensor, offsets: Offsets, role: Role) -> Attention:
        """Tell how forward weighs, given the same; not differentiable."""
        with torch.no_grad():
            weights, direction = self._weigh(Sets(offsets, features.device), features, role)
            proxies = self._proxies(role)
            return Attention.of(weights, self._choose(direction, proxies), self._scores(direction, proxies))

    def _proxies(self, role: Role) -> Tensor:
        return self.proxies_p if role == "probe" else self.proxies_g

    def _weigh(self, sets: Sets, features: Tensor, role: Role) -> tuple[Tensor, Tensor]:
        """[selected, N] float64 weights of the unit features, and [S, r] float64 mean directions in the domain."""
        proxies = self._proxies(role)
        mean, square, direction = sets.means(features, self._measures)
        statistics = torch.cat([mean, (square - mean.square()).clamp_min(0)], dim=1).to(proxies.dtype)
        contexts = self._contexts(statistics, proxies, self._choose(direction, proxies))
        if role == "probe":  # (A f) · c = f · (Aᵀ c): one product a context, where there were N
            contexts = contexts @ self.probe_linear.weight
        return sets.softmax(sets.logits(contexts.to(proxies.dtype), features)), direction

    def _measures(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give what is averaged over a set: features, their squares, their directions in the domain.

        The square of a float32 is exact in float64, so the variance may be taken from the mean square.
        """
        return features, features.square(), self._directions(features)

    @torch.no_grad()
    def _directions(self, vectors: Tensor) -> Tensor:
        weight, bias = self.transform.weight.double(), self.transform.bias.double()
        return functional.normalize(functional.linear(vectors.double(), weight, bias), dim=1)

    def _choose(self, direction: Tensor, proxies: Tensor) -> Tensor:
        """[S, selected] int64, the experts with the largest mean cosine to a set, best first, ties by number.

        In float64, because the order of two near scores must not depend on the batch that a set is in.
        """
        scores = self._scores(direction, proxies)
        return scores.sort(dim=1, descending=True, stable=True).indices[:, : self.selected]

    def _scores(self, direction: Tensor, proxies: Tensor) -> Tensor:
        """[S, K] float64, the mean cosine of each set's features to each expert's proxy in the domain."""
        return (direction @ self._directions(proxies).T).round(decimals=SCORE_DECIMALS)

    def _contexts(self, statistics: Tensor, proxies: Tensor, chosen: Tensor) -> Tensor:
        """Make [selected, S, D] contexts: the sets that chose an expert go through it together."""
        expert_of_pair = chosen.T.flatten()
        order = expert_of_pair.argsort(stable=True)
        per_expert = torch.split(order, expert_of_pair.bincount(minlength=self.experts).tolist())
        results = [
            self._through_expert(expert, statistics[pairs % len(chosen)], proxies[expert])
            for expert, pairs in enumerate(per_expert)
            if len(pairs)
        ]
        return torch.cat(results)[order.argsort()].view(self.selected, len(chosen), self.dimension)

    def _through_expert(self, expert: int, statistics: Tensor, proxy: Tensor) -> Tensor:
        """[n, D]; the proxy's third of the first layer is the same for all sets, so it joins the bias."""
        first, *rest = self.pooler[expert].children()
        assert isinstance(first, nn.Linear)
        of_statistics, of_proxy = torch.split(first.weight, [2 * self.dimension, self.dimension], dim=1)
        hidden = functional.linear(statistics, of_statistics, first.bias + of_proxy @ proxy)
        for layer in rest:
            hidden = layer(hidden)
        return hidden


def _expert(dimension: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3 * dimension, 2 * dimension),
        nn.LeakyReLU(),
        nn.Dropout(dropout),
        nn.Linear(2 * dimension, 2 * dimension),
        nn.LeakyReLU(),
        nn.Dropout(dropout),
        nn.Linear(2 * dimension, dimension),
        nn.Dropout(dropout),
        nn.LeakyReLU(),
    )
