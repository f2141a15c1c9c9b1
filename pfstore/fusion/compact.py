"""The compact form of a model: templates of one block, the sum of the model's, where their size matters more."""

from __future__ import annotations

from typing import Any

import torch

from pfstore.errors import ContractError
from pfstore.fusion.chunked import Templating
from pfstore.fusion.fuser import Cuts, Features, Fuser, Role
from pfstore.fusion.inputs import check_fused


class Compact(Templating):
    """A Fuser that sums the blocks of another, `full`, each as long as that gives it.

    It is the same model, of the same name and digest. A set whose blocks cancel has no template either, and raises
    CancelledSetsError.
    """

    blocks = 1

    def __init__(self, full: Fuser) -> None:
        self.full = full

    @property
    def name(self) -> str:
        """Name of the full model."""
        return self.full.name

    @property
    def kind(self) -> str:
        """What sort of model it is: "proxyfusion", "nan" or "baseline"."""
        return self.full.kind

    @property
    def dimension(self) -> int | None:
        """D, or None where any dimension will do."""
        return self.full.dimension

    @property
    def normalisation(self) -> str:
        """What is done to features first: "raw", "unit" or "scale:<factor>"."""
        return self.full.normalisation

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the full model."""
        return self.full.digest

    def fuse(self, features: Features, offsets: Cuts, role: Role = "probe") -> Features:
        """Fuse each set at once: [S, 1, D] float32, not normalised. Errors as in Fuser."""
        return summed(self.full.fuse(features, offsets, role), "set")

    def fuse_media(
        self, features: Features, media_offsets: Cuts, subject_offsets: Cuts, role: Role = "gallery"
    ) -> Features:
        """Fuse each medium to all blocks, then each subject's media, and sum: [S, 1, D] float32; errors as in Fuser.

        media_offsets ([M+1]) count features, subject_offsets ([S+1]) count media.
        """
        return summed(self.full.fuse_media(features, media_offsets, subject_offsets, role), "subject")

    def describe(self) -> dict[str, Any]:
        """Describe the full model, and say that it is compact; JSON-ready."""
        return self.full.describe() | {"compact": True}


def compacted(fuser: Fuser) -> Compact:
    """Return the compact form of a model. Raises ContractError for a model of one block."""
    if fuser.blocks == 1:
        raise ContractError(
            f"the model {fuser.name} has one block already, so there is nothing to make compact: leave that out"
        )
    return Compact(fuser)


def whole(fuser: Fuser) -> Fuser:
    """Return the full model of a compact one, any other as it is."""
    return fuser.full if isinstance(fuser, Compact) else fuser


def summed(blocks: Features, of: str) -> Features:
    """Sum the blocks of fused vectors ([S, blocks, D]): [S, 1, D]. Raises CancelledSetsError where they cancel.

    of: what the vectors are of, "set" or "subject".
    """
    total = blocks.sum(1)
    reach = torch.as_tensor(blocks).norm(dim=2).sum(dim=1)
    check_fused(torch.as_tensor(total).norm(dim=1), reach, of, 0)
    single: Features = total[:, None]
    return single
