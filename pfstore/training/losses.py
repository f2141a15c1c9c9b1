"""What training makes small: templates of one subject apart, of two subjects near, and proxies off their vertices."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pfstore.errors import ConfigError

TEMPERATURE = 0.05
# Of Proxy-Anchor form (Kim et al., CVPR 2020), with the constants of ProxyFusion's reference.
PULL, PUSH, MARGIN = 5.0, 40.0, 0.1


class SupervisedContrastive(nn.Module):
    """SupCon (Khosla et al., NeurIPS 2020) over the templates of probes and references together.

    temperature: divides the cosines. A template whose subject has no other in the batch serves as non-mated alone.
    """

    def __init__(self, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        from pytorch_metric_learning.losses import SupConLoss

        self._loss = SupConLoss(temperature=temperature)

    def forward(self, templates: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of templates ([B, L], of any length) with these subjects' numbers ([B] int64)."""
        loss: Tensor = self._loss(templates, labels)
        return loss


def simplex(vertices: int, dimension: int) -> Tensor:
    """[K, r] float32 unit vectors, the vertices of a regular simplex: any two have the cosine -1 / (K - 1).

    Raises ConfigError where K > r + 1, as so many vertices need K - 1 dimensions.
    """
    if vertices > dimension + 1:
        raise ConfigError(
            f"{vertices} experts need a domain of at least {vertices - 1} dimensions, not {dimension}: "
            "their proxies are pinned to the vertices of a simplex"
        )
    if vertices == 1:
        return functional.one_hot(torch.tensor([0]), dimension).float()
    made = torch.zeros(vertices, dimension, dtype=torch.float64)
    for axis in range(vertices - 1):  # Helmert's rows: each axis tells one vertex from all later ones
        left = vertices - axis - 1
        made[axis, axis] = math.sqrt(left / (left + 1))
        made[axis + 1 :, axis] = -1 / math.sqrt(left * (left + 1))
    return functional.normalize(made, dim=1).float()


def proxy_loss(projected: Tensor, vertices: Tensor) -> Tensor:
    """Return the loss of proxies in the domain ([K, r]), each pinned to its own vertex ([K, r]) of the simplex.

    With s the cosines of proxies and vertices, summed over proxies:
    log(1 + exp(-5 (s_kk - 0.1))) / 5 + log(1 + Σ_{j≠k} exp(40 (s_kj + 0.1))) / 40.
    """
    cosines = functional.normalize(projected, dim=1) @ vertices.T
    own = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    pull = functional.softplus(-PULL * (cosines.diagonal() - MARGIN)) / PULL
    others = (PUSH * (cosines + MARGIN)).masked_fill(own, -torch.inf)
    push = functional.softplus(others.logsumexp(dim=1)) / PUSH
    return (pull + push).sum()
