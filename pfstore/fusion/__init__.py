"""Fusion: feature sets in, templates out. Nothing heavy is imported before a name below is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pfstore.fusion.fuser import BASELINES, Fuser, Role

if TYPE_CHECKING:
    from pfstore.fusion.compact import Compact, compacted
    from pfstore.fusion.model import NanModel, NetworkModel, ProxyFusionModel
    from pfstore.fusion.nan import Nan
    from pfstore.fusion.proxyfusion import ProxyFusion
    from pfstore.fusion.registry import load_model, random_model
    from pfstore.fusion.serialisation import from_bytes, to_bytes

__all__ = [
    "BASELINES",
    "Compact",
    "Fuser",
    "Nan",
    "NanModel",
    "NetworkModel",
    "ProxyFusion",
    "ProxyFusionModel",
    "Role",
    "compacted",
    "from_bytes",
    "load_model",
    "random_model",
    "to_bytes",
]

_HOMES = {
    "Compact": "compact",
    "Nan": "nan",
    "NanModel": "model",
    "NetworkModel": "model",
    "ProxyFusion": "proxyfusion",
    "ProxyFusionModel": "model",
    "compacted": "compact",
    "from_bytes": "serialisation",
    "load_model": "registry",
    "random_model": "registry",
    "to_bytes": "serialisation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
