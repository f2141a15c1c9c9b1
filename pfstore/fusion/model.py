"""Networks as Fusers: each with its input normalisation, its origin, its model card and its digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pfstore.errors import ModelError
from pfstore.features import Offsets
from pfstore.fusion.attention import Attention
from pfstore.fusion.chunked import ChunkedFuser
from pfstore.fusion.fuser import Role
from pfstore.fusion.nan import Nan
from pfstore.fusion.normalisation import Normalisation
from pfstore.fusion.precision import Precision, check_precision, computing
from pfstore.fusion.proxyfusion import ProxyFusion

IMPORTED = "imported weights"
# In JSON, U+0000, which PostgreSQL cannot hold: an odd number of backslashes, and u0000.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class NetworkModel(ChunkedFuser):
    """A trained network, ready to fuse.

    It fuses with a copy of the network, in the dtype of its kind.

    network: with float32 weights. normalisation: "raw", "unit" or "scale:<factor>". origin: where the weights
    are from, in words. card: how they were made, a JSON object. Origin and card are kept with the model and
    count into its digest. Raises ModelError for a card that is not JSON.
    """

    network: ProxyFusion | Nan
    dtype: ClassVar[torch.dtype]

    def __init__(
        self,
        network: ProxyFusion | Nan,
        normalisation: str = "raw",
        origin: str = IMPORTED,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(Normalisation.parse(normalisation))
        self.network = deepcopy(network).eval().requires_grad_(False).to(self.dtype)
        self.dimension: int = network.dimension
        self.precision: Precision = "float32"
        self.origin = origin
        self.card_text = None if card is None else canonical(card)

    @property
    def card(self) -> dict[str, Any] | None:
        """The model card, a copy; None where there is none. Its bytes are `card_text`: JSON with sorted keys."""
        return None if self.card_text is None else dict(json.loads(self.card_text))

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 over the model's canonical safetensors bytes, its settings included."""
        from pfstore.fusion.serialisation import to_bytes

        return hashlib.sha256(to_bytes(self)).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Describe the model as `model show` prints it; JSON-ready. "card" is there only where there is one."""
        described = {
            "name": self.name,
            "kind": self.kind,
            "dimension": self.dimension,
            "experts": None,
            "selected": self.blocks,
            "domain": None,
            "normalisation": self.normalisation,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "digest": self.digest,
            "origin": self.origin,
        }
        return described if self.card is None else described | {"card": self.card}

    def to(self, device: str | torch.device, precision: Precision = "float32") -> Self:
        """Move the network to a device, where every later call computes; results go where the features are.

        precision: of the experts' products; NAN, which has none, stays in float64. The choice of experts, logits,
        weights and sums stay in float32 or better. Raises ModelError for an unknown precision.
        """
        check_precision(precision)
        self.network.to(device)
        self.precision = precision
        return self

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _pool(self, features: Tensor, offsets: Offsets, role: Role) -> tuple[Tensor, Tensor]:
        with computing(features.device, self.precision):
            return self.network(features, offsets, role), features.new_ones(())

    def _attend(self, features: Tensor, offsets: Offsets, role: Role) -> Attention:
        with computing(features.device, self.precision):
            return self.network.attend(features, offsets, role)


class ProxyFusionModel(NetworkModel):
    """A ProxyFusion network as a Fuser: a template has one block for each expert selected.

    It computes in float32, which leaves a template an error of some 1e-6, and of as much what batch a set is in.
    """

    name = "proxyfusion"
    kind = "proxyfusion"
    dtype = torch.float32
    network: ProxyFusion

    def __init__(
        self,
        network: ProxyFusion,
        normalisation: str = "raw",
        origin: str = IMPORTED,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(network, normalisation, origin, card)
        self.blocks = network.selected

    def describe(self) -> dict[str, Any]:
        """Describe the model as `model show` prints it; JSON-ready. "card" is there only where there is one."""
        return super().describe() | {"experts": self.network.experts, "domain": self.network.domain}


class NanModel(NetworkModel):
    """A NAN network as a Fuser: a template has one block, and both roles go through the same weights.

    It computes in float64, as its second kernel enlarges every error of the first sums, and is small enough for that.
    """

    name = "nan"
    kind = "nan"
    dtype = torch.float64
    blocks = 1
    network: Nan


def canonical(card: Mapping[str, Any]) -> str:
    """JSON of a model card, the same for equal cards and fit for PostgreSQL; raises ModelError for what is not JSON."""
    try:
        text = json.dumps(dict(card), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"the model card cannot be stored as JSON: {error}; use plain, finite values") from error
    if _NUL.search(text):
        raise ModelError("the model card cannot be stored: a text in it holds the character U+0000; leave that out")
    return text
