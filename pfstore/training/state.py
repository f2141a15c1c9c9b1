"""The state of an unfinished training on disk: what is needed to go on to the very same model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pfstore.errors import ConflictError, InputError
from pfstore.files import write_whole

SUFFIX = ".unfinished"


@dataclass(frozen=True)
class StateFile:
    """The file that a training is kept in until it is finished.

    path: where. identity: hex digest of the data and the options; a state of another one is refused.
    """

    path: Path
    identity: str

    def save(self, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
        """Write the state in place of the last one; raises InputError where it cannot be written."""
        head = {"identity": self.identity, "notes": json.dumps(notes)}
        replace_file(self.path, save({key: one.detach().cpu().contiguous() for key, one in tensors.items()}, head))

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Read the state, None where there is none.

        Raises ConflictError where it is of another training, InputError where it is damaged.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                head = file.metadata() or {}
                if head.get("identity") != self.identity:
                    raise ConflictError(
                        f"{self.path} is of a training with other data or options: "
                        "repeat those to go on with it, or start anew with --restart"
                    )
                return {key: file.get_tensor(key) for key in file.keys()}, json.loads(head["notes"])  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise InputError(f"{self.path} is damaged: {error}; start anew with --restart") from None

    def remove(self) -> None:
        """Remove the state. Raises InputError where that cannot be done."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be removed: {error.strerror}") from None


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raises InputError where that cannot be done."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def packed(network: nn.Module, best: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name every tensor of a training."""
    tensors = {f"network.{key}": one for key, one in network.state_dict().items()}
    tensors |= {f"best.{key}": one for key, one in best.items()}
    for number, entry in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{key}": one for key, one in entry.items()}
    return tensors


def unpack(tensors: dict[str, Tensor], network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Put the tensors back where they were, and return those of the best model."""
    network.load_state_dict(_under(tensors, "network."))
    entries: dict[int, dict[str, Tensor]] = {}
    for key, one in _under(tensors, "optimiser.").items():
        number, name = key.split(".", 1)
        entries.setdefault(int(number), {})[name] = one
    if entries:
        optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
    return _under(tensors, "best.")


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): one for key, one in tensors.items() if key.startswith(prefix)}
