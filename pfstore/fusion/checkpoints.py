"""Weights from files that others wrote: read without running code, every key and shape checked."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from pfstore.errors import ModelError
from pfstore.fusion.nan import Nan
from pfstore.fusion.proxyfusion import ProxyFusion

WRAPPER = "module."  # what torch.nn.DataParallel puts before every key
NAMED = 5  # keys that an error names; the others it counts

Network = TypeVar("Network", bound=nn.Module)


class Checkpoint(NamedTuple):
    """Tensors by key, as a file holds them, and the file's metadata."""

    weights: dict[str, Tensor]
    metadata: dict[str, str]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a published checkpoint (a zip archive of torch.save) or a safetensors file, told apart by content.

    Raises ModelError if the file cannot be read, is damaged, holds code, or is neither.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head.startswith(b"PK"):
            return Checkpoint(_weights_in(_unpickled(path), path), {})
        if head[8:] == b"{":
            return parse_safetensors(path.read_bytes(), str(path))
    except OSError as error:
        raise ModelError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    raise ModelError(
        f"{path} is neither safetensors nor a checkpoint of torch.save; a bare pickle is never opened: "
        "save its tensors with torch.save or as safetensors"
    )


def parse_safetensors(data: bytes, label: str) -> Checkpoint:
    """Read safetensors bytes; the label names them in errors. Raises ModelError if they are damaged."""
    try:
        weights = load_safetensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{label} is damaged or no safetensors file: {error}; fetch it again") from error
    return Checkpoint(_unwrapped(weights), dict(header.get("__metadata__") or {}))


def build_proxyfusion(weights: Mapping[str, Tensor], selected: int, label: str) -> ProxyFusion:
    """Build the ProxyFusion network with these weights in float32, its sizes taken from them.

    Raises ModelError for missing and unexpected keys, wrong shapes, mixed or other than floating-point types,
    weights that are not finite, and a number of experts selected that the model does not have.
    """
    return _filled(_empty_network(weights, selected, label), weights, "ProxyFusion", label)


def build_nan(weights: Mapping[str, Tensor], label: str) -> Nan:
    """Build the NAN network with these weights in float32, its size taken from them; errors as in build_proxyfusion."""
    kernel = weights.get("kernel")
    if kernel is None or kernel.ndim != 1 or len(kernel) == 0:
        raise ModelError(
            f"{label} is no NAN checkpoint: missing or not a vector: kernel; it has {_listed(sorted(weights))}"
        )
    with torch.device("meta"):
        network = Nan(len(kernel))
    return _filled(network, weights, "NAN", label)


def _filled(network: Network, weights: Mapping[str, Tensor], method: str, label: str) -> Network:
    expected = {key: tensor.shape for key, tensor in network.state_dict().items()}
    _check_keys(weights.keys(), expected.keys(), method, label)
    _check_values(weights, expected, label)
    network.load_state_dict({key: tensor.float() for key, tensor in weights.items()}, assign=True)
    return network


def _unpickled(path: Path) -> Any:
    # Whatever a damaged file makes the readers raise, it is a damaged file.
    try:
        foreign = get_unsafe_globals_in_checkpoint(str(path))
    except Exception as error:
        raise ModelError(f"{path} is damaged or no checkpoint: {_first_line(error)}; fetch it again") from error
    if foreign:
        raise ModelError(
            f"{path} holds more than tensors, and opening it could run code: {_listed(foreign)}; "
            "nothing was run: save its tensors alone with torch.save or as safetensors"
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path} is damaged or no checkpoint: {_first_line(error)}; fetch it again") from error


def _weights_in(content: Any, path: Path) -> dict[str, Tensor]:
    for level in ("state_dict", "model_weights"):
        if isinstance(content, Mapping) and level in content:
            content = content[level]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds no weights: expected a state dict, bare or under state_dict/model_weights")
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ModelError(f"{path} is no ProxyFusion checkpoint: these entries are no tensors: {_listed(others)}")
    return _unwrapped({str(key): tensor for key, tensor in content.items()})


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(WRAPPER): tensor for key, tensor in weights.items()}


def _empty_network(weights: Mapping[str, Tensor], selected: int, label: str) -> ProxyFusion:
    sizes = [key for key in ("proxies_p", "transform.weight") if key not in weights or weights[key].ndim != 2]
    if sizes:
        raise ModelError(
            f"{label} is no ProxyFusion checkpoint: missing or not a matrix: {_listed(sizes)}; "
            f"it has {_listed(sorted(weights))}"
        )
    experts, dimension = weights["proxies_p"].shape
    if min(*weights["proxies_p"].shape, len(weights["transform.weight"])) == 0:
        raise ModelError(f"{label} is no ProxyFusion checkpoint: its matrices are empty")
    if not 1 <= selected <= experts:
        raise ModelError(f"{label} has {experts} experts, so {selected} cannot be selected: use 1 to {experts}")
    with torch.device("meta"):
        return ProxyFusion(dimension, experts, len(weights["transform.weight"]), selected)


def _check_keys(given: Iterable[str], expected: Iterable[str], method: str, label: str) -> None:
    missing, unexpected = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    faults = [f"missing {_listed(missing)}"] * bool(missing) + [f"unexpected {_listed(unexpected)}"] * bool(unexpected)
    if faults:
        raise ModelError(f"{label} is no complete {method} checkpoint: {'; '.join(faults)}")


def _check_values(weights: Mapping[str, Tensor], expected: Mapping[str, torch.Size], label: str) -> None:
    wrong = [
        f"{key} is {list(weights[key].shape)}, must be {list(shape)}"
        for key, shape in expected.items()
        if weights[key].shape != shape
    ]
    if wrong:
        raise ModelError(f"{label} has weights of the wrong shape: {_listed(wrong)}")
    types = {tensor.dtype for tensor in weights.values()}
    if len(types) > 1 or not next(iter(types)).is_floating_point:
        raise ModelError(f"{label} must hold floating-point weights of one type, it has {_listed(map(str, types))}")
    broken = [key for key, tensor in weights.items() if not tensor.float().isfinite().all()]
    if broken:
        raise ModelError(f"{label} holds weights that are not finite numbers: {_listed(broken)}")


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0] or type(error).__name__
