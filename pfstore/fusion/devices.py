"""Which device computes."""

from __future__ import annotations

import torch

from pfstore.errors import ConfigError
from pfstore.fusion.compact import whole
from pfstore.fusion.fuser import Fuser
from pfstore.fusion.model import NetworkModel


def device_of(name: str) -> torch.device:
    """Return the device of this name; "auto" is a GPU where there is one. Raises ConfigError where it is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"there is no device {name!r}: use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"pfstore knows no device {name!r}: use auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"there is no device {name!r} here: use cpu")
    return device


def placed(fuser: Fuser, device: str) -> Fuser:
    """Let a network compute on the device of this name; what has no weights computes where the features are.

    Raises ConfigError as device_of does.
    """
    found, full = device_of(device), whole(fuser)
    if isinstance(full, NetworkModel):
        full.to(found)
    return fuser
