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
from pfstore.fusion.products import exactly
from pfstore.fusion.ragged import Sets

DROPOUT = 0.7
# Scores are mean cosines in float64; rounding them so makes a tie of what differs by arithmetic noise alone.
SCORE_DECIMALS = 9
# Scores nearer than this are taken again in float64, and those that float32 cannot tell apart for another reason.
NEAR = 1e-5
# The variance is taken again in float64 where the mean square is so many times as large: it cancels in float32.
BLURRED = 1e3


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
        Contexts and logits are computed in the parameters' dtype, statistics and sums in the features' and over many
        features in float64; autocast narrows the contexts alone.
        Differentiable in the parameters and the features, but for the choice of experts, which is discrete:
        `transform` gets no gradient from here. Neither does the bias of `probe_linear`, which shifts all
        logits of a set alike.
        """
        return self.both(features, offsets, len(offsets) - 1 if role == "probe" else 0)

    def both(self, features: Tensor, offsets: Offsets, probes: int) -> Tensor:
        """Fuse the first so many sets as probes and the others as references: what forward gives of either.

        One pass makes the gradients of the experts' weights, which are most of a step of training, once and not twice.
        """
        sets = Sets(offsets, features.device)
        weights, _, _ = self._weigh(sets, features, probes)
        return sets.pool(weights / features.norm(dim=1), features)

    def attend(self, features: Tensor, offsets: Offsets, role: Role) -> Attention:
        """Tell how forward weighs, given the same; not differentiable."""
        with torch.no_grad():
            probes = len(offsets) - 1 if role == "probe" else 0
            return Attention.of(*self._weigh(Sets(offsets, features.device), features, probes))

    def _weigh(self, sets: Sets, features: Tensor, probes: int) -> tuple[Tensor, Tensor, Tensor]:
        """[selected, N] float64 weights of the unit features, [S, selected] experts and [S, K] float64 their scores."""
        mean, square, pointed = sets.means(features, self._measures)
        dtype = self.proxies_g.dtype
        statistics = torch.cat([mean, self._variance(sets, features, mean, square)], dim=1).to(dtype)
        scores = self._scores(pointed[:, :-1], probes)
        scores = self._settled(scores, pointed[:, -1], sets, features, probes)
        chosen = self._choose(scores)
        contexts = self._contexts(statistics, chosen, probes)
        if probes:  # (A f) · c = f · (Aᵀ c): one product a context, where there were N
            of_probes = contexts[:, :probes] @ self.probe_linear.weight
            contexts = torch.cat([of_probes, contexts[:, probes:]], dim=1)
        return sets.softmax(sets.logits(contexts.to(dtype), features)), chosen, scores

    def _measures(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give what is averaged over a set: features, their squares, their directions in the domain and doubts."""
        return features, features.square(), torch.cat(self._pointed(features), dim=1)

    def _variance(self, sets: Sets, features: Tensor, mean: Tensor, square: Tensor) -> Tensor:
        """[S, D] from the means of the features and of their squares."""
        variance = (square - mean.square()).clamp_min(0)
        blurred = (square.sum(dim=1) > BLURRED * variance.sum(dim=1)) & (sets.segments.counts > 1)
        if features.dtype == torch.float64 or not blurred.any():
            return variance
        few, rows = sets.only(features, blurred)
        mean, square = few.means(rows, lambda part: [part.double(), part.double().square()])
        return variance.index_put((blurred,), (square - mean.square()).clamp_min(0).to(variance.dtype))

    @torch.no_grad()
    def _directions(self, vectors: Tensor) -> Tensor:
        """[n, r] float64 directions in the domain of vectors ([n, D]), which are projected in their own dtype."""
        return self._pointed(vectors)[0]

    @torch.no_grad()
    def _pointed(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Give the directions and [n, 1] float64 by how much rounding may have turned each: more where terms cancel."""
        weight, bias = self.transform.weight.to(vectors.dtype), self.transform.bias.to(vectors.dtype)
        with exactly(vectors):
            projected = functional.linear(vectors, weight, bias).double()
        terms = vectors.norm(dim=1, keepdim=True).double() * weight.norm() + bias.norm()
        lengths = projected.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        return projected / lengths, torch.finfo(vectors.dtype).eps * terms / lengths

    def _scores(self, direction: Tensor, probes: int) -> Tensor:
        """[S, K] float64, the mean cosine of each set's features to each expert's proxy in the domain."""
        sides = ((direction[:probes], self.proxies_p), (direction[probes:], self.proxies_g))
        scores = torch.cat([side @ self._directions(proxies.double()).T for side, proxies in sides if len(side)])
        return scores.round(decimals=SCORE_DECIMALS)

    @torch.no_grad()
    def _settled(self, scores: Tensor, doubts: Tensor, sets: Sets, features: Tensor, probes: int) -> Tensor:
        """Give the scores ([S, K]), those of sets in which two ranks are near taken again in float64.

        The order of two near scores must not depend on the batch that a set is in. doubts: [S], of the scores.
        """
        ranked = scores.sort(dim=1, descending=True).values[:, : self.selected + 1]
        near = (ranked[:, :-1] - ranked[:, 1:] < doubts.clamp_min(NEAR)[:, None]).any(dim=1)
        if features.dtype == torch.float64 or not near.any():
            return scores
        few, rows = sets.only(features, near)
        (direction,) = few.means(rows, lambda part: [self._directions(part.double())])
        return scores.index_put((near,), self._scores(direction, int(near[:probes].sum())))

    def _choose(self, scores: Tensor) -> Tensor:
        """[S, selected] int64, the experts with the highest scores ([S, K]), best first, ties by number."""
        return scores.sort(dim=1, descending=True, stable=True).indices[:, : self.selected]

    def _contexts(self, statistics: Tensor, chosen: Tensor, probes: int) -> Tensor:
        """Make [selected, S, D] contexts: the sets that chose an expert go through it together."""
        expert_of_pair = chosen.T.flatten()
        order = expert_of_pair.argsort(stable=True)
        per_expert = torch.split(order, expert_of_pair.bincount(minlength=self.experts).tolist())
        contexts = statistics.new_empty(len(order), self.dimension)
        for expert, pairs in enumerate(per_expert):
            sets = pairs % len(chosen)
            if len(sets):
                proxy = self._proxy(expert, sets, probes, len(chosen))
                contexts.index_copy_(0, pairs, self._through_expert(expert, statistics[sets], proxy).to(contexts.dtype))
        return contexts.view(self.selected, len(chosen), self.dimension)

    def _proxy(self, expert: int, sets: Tensor, probes: int, total: int) -> Tensor:
        """[D], the expert's proxy of the role that all sets have, or [n, D], the one for each of these sets ([n])."""
        if probes in (0, total):
            return (self.proxies_p if probes else self.proxies_g)[expert]
        return torch.where((sets < probes)[:, None], self.proxies_p[expert], self.proxies_g[expert])

    def _through_expert(self, expert: int, statistics: Tensor, proxy: Tensor) -> Tensor:
        """[n, D]; where all sets have one proxy ([D]), its third of the first layer joins the bias."""
        first, *rest = self.pooler[expert].children()
        assert isinstance(first, nn.Linear)
        if proxy.ndim == 1:
            of_statistics, of_proxy = torch.split(first.weight, [2 * self.dimension, self.dimension], dim=1)
            hidden = functional.linear(statistics, of_statistics, first.bias + of_proxy @ proxy)
        else:
            hidden = first(torch.cat([statistics, proxy], dim=1))
        for layer in rest:
            hidden = layer(hidden)
        return hidden


class Dropout(nn.Dropout):
    """Dropout by 16 random bits a value, which draws them in a quarter of the time; p is exact to 2^-17."""

    def forward(self, values: Tensor) -> Tensor:
        """Give the values, while training some of them zero and the others times 1 / (1 - p)."""
        if not self.training or self.p == 0:
            return values
        bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device).random_(-(2**63), None)
        kept = bits.view(torch.int16)[: values.numel()].view(values.shape) >= round(self.p * 2**16) - 2**15
        return values * (kept * (1 / (1 - self.p))).to(values.dtype)


def _expert(dimension: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3 * dimension, 2 * dimension),
        nn.LeakyReLU(inplace=True),
        Dropout(dropout),
        nn.Linear(2 * dimension, 2 * dimension),
        nn.LeakyReLU(inplace=True),
        Dropout(dropout),
        nn.Linear(2 * dimension, dimension),
        Dropout(dropout),
        nn.LeakyReLU(inplace=True),
    )
