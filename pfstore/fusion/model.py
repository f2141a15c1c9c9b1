"""A ProxyFusion network as a Fuser: with its input normalisation, its origin and its digest."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pfstore.features import Offsets
from pfstore.fusion.chunked import ChunkedFuser
from pfstore.fusion.fuser import Role
from pfstore.fusion.normalisation import Normalisation
from pfstore.fusion.proxyfusion import ProxyFusion


class ProxyFusionModel(ChunkedFuser):
    """A trained network, ready to fuse.

    It fuses with a copy of the network in float64, because logits reach some hundreds, which leaves float32 no
    more than 1e-5 of accuracy and lets the batch show in a set's result.

    network: with float32 weights. normalisation: "raw", "unit" or "scale:<factor>". origin: where the weights
    are from, in words; kept with the model.
    """

    name = "proxyfusion"
    kind = "proxyfusion"

    def __init__(self, network: ProxyFusion, normalisation: str = "raw", origin: str = "imported weights") -> None:
        super().__init__(Normalisation.parse(normalisation))
        self.network = deepcopy(network).eval().requires_grad_(False).double()
        self.dimension: int = network.dimension
        self.blocks = network.selected
        self.origin = origin

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 over the model's canonical safetensors bytes, its settings included."""
        from pfstore.fusion.serialisation import to_bytes

        return hashlib.sha256(to_bytes(self)).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Describe the model as `model show` prints it; JSON-ready."""
        return {
            "name": self.name,
            "kind": self.kind,
            "dimension": self.dimension,
            "experts": self.network.experts,
            "selected": self.blocks,
            "domain": self.network.domain,
            "normalisation": self.normalisation,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "digest": self.digest,
            "origin": self.origin,
        }

    def to(self, device: str | torch.device) -> ProxyFusionModel:
        """Move the network to a device, where every later call computes; results go where the features are."""
        self.network.to(device)
        return self

    @property
    def _device(self) -> torch.device:
        return self.network.proxies_g.device

    def _pool(self, features: Tensor, offsets: Offsets, role: Role) -> tuple[Tensor, Tensor]:
        return self.network(features, offsets, role), features.new_ones(())
