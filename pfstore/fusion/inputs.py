"""Checks at the public boundary: what callers give is used, or an error names what is wrong with it."""

from __future__ import annotations

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from pfstore.errors import CancelledSetsError, ContractError, InputError
from pfstore.features import Offsets
from pfstore.fusion.fuser import Cuts, Features, Role
from pfstore.fusion.products import without_notice

# The norm below which a direction is arithmetic noise: of one feature, and of a mean of unit features.
ZERO_FEATURE = 1e-12
ZERO_SUM = 1e-6

with without_notice("The given NumPy array is not writable"):
    torch.from_numpy(np.frombuffer(b"\0", dtype=np.uint8))


def as_tensor(features: Features, dimension: int | None) -> Tensor:
    """[N, D] features as a tensor where they are, without a copy if they are float32 or float16, and contiguous.

    Raises InputError for what is no matrix of floating-point numbers, ContractError for another dimension.
    """
    array = features if isinstance(features, Tensor) else np.asarray(features)
    floating = array.is_floating_point() if isinstance(array, Tensor) else array.dtype.kind == "f"
    if not floating or array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"features must be [N, D] floating-point numbers, got {list(array.shape)} of {array.dtype}")
    if dimension is not None and array.shape[1] != dimension:
        raise ContractError(
            f"features have {array.shape[1]} values, the model takes {dimension}: another extractor made them"
        )
    if isinstance(array, Tensor):
        return array.detach()
    dtype = array.dtype if array.dtype == np.float16 else np.float32
    return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype))


def like(result: Tensor, features: Features) -> Features:
    """Give the result as the kind of array that the features came in."""
    return result if isinstance(features, Tensor) else result.numpy()


def as_offsets(offsets: Cuts, total: int, of: str, counted: str) -> Offsets:
    """[S+1] int64 offsets, checked: from 0 to the total, no segment empty. Raises InputError."""
    cuts = np.asarray(offsets.cpu() if isinstance(offsets, Tensor) else offsets)
    if cuts.ndim != 1 or len(cuts) == 0 or cuts.dtype.kind not in "iu":
        raise InputError(f"offsets of {of} must be [n+1] integers, got {list(cuts.shape)} of {cuts.dtype}")
    cuts = cuts.astype(np.int64)
    if cuts[0] != 0 or cuts[-1] != total:
        raise InputError(f"offsets of {of} run from {cuts[0]} to {cuts[-1]}, must run from 0 to {total} {counted}")
    counts = np.diff(cuts)
    if (counts <= 0).any():
        at = int(np.argmax(counts <= 0))
        fault = "is empty" if counts[at] == 0 else "ends before it begins"
        raise InputError(f"{of} {at} {fault}: offsets {cuts[at]} to {cuts[at + 1]}")
    return cuts


def check_role(role: str) -> None:
    """Raise InputError for what is no role."""
    if role not in get_args(Role):
        raise InputError(f"unknown role {role!r}: use probe or gallery")


def check_features(features: Tensor, first: int) -> None:
    """Raise InputError for the first row ([N, D] float32) without a direction; counts from first."""
    norms = features.norm(dim=1)
    faulty = ~((norms >= ZERO_FEATURE) & norms.isfinite())
    if faulty.any():
        row = int(faulty.int().argmax())
        fault = "is zero" if norms[row] < ZERO_FEATURE else "is not finite or has no finite norm"
        raise InputError(f"feature {first + row} {fault}: reject it before fusing")


def check_fused(norms: Tensor, reach: Tensor, of: str, first: int) -> None:
    """Raise CancelledSetsError for the sets whose features cancel; their numbers count from first.

    norms: [S] of the fused vectors. reach: [S] or a scalar, the norm where all features point one way.
    """
    faulty = ~((norms > ZERO_SUM * reach) & norms.isfinite())
    if faulty.any():
        at = int(faulty.int().argmax())
        fault = "cancel to zero" if norms[at].isfinite() else "are too large to be fused in float32"
        numbers = (faulty.nonzero()[:, 0] + first).tolist()
        raise CancelledSetsError(f"the features of {of} {first + at} {fault}: it has no template", of, numbers)
