"""The form in which models are stored and moved: safetensors, byte for byte the same for the same model."""

from __future__ import annotations

import json

from pfstore.errors import ModelError
from pfstore.fusion.checkpoints import Checkpoint, build_network, parse_safetensors
from pfstore.fusion.fuser import Fuser
from pfstore.fusion.model import ProxyFusionModel
from pfstore.fusion.normalisation import Normalisation

FORMAT = "1"
DEFAULT_SELECTED = 4


def to_bytes(model: Fuser) -> bytes:
    """Write the model as safetensors: float32 weights, and in the metadata what a checkpoint does not say.

    Written here and not by the safetensors library, which puts the metadata in an order that changes from
    run to run, so that a digest over it would too. Raises ModelError for a model that has no weights.
    """
    if not isinstance(model, ProxyFusionModel):
        raise ModelError(f"the model {model.name} has no weights to store: it is known by its name")
    header: dict[str, object] = {"__metadata__": _metadata(model)}
    parts, end = [], 0
    for key, tensor in sorted(model.network.state_dict().items()):
        parts.append(tensor.cpu().float().numpy().astype("<f4", copy=False).tobytes())
        begin, end = end, end + len(parts[-1])
        header[key] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([len(head).to_bytes(8, "little"), head, *parts])


def from_bytes(data: bytes) -> ProxyFusionModel:
    """Read the model in safetensors bytes, as to_bytes wrote them. Raises ModelError if they hold none."""
    return as_model(parse_safetensors(data, "the stored model"), "the stored model", None, None)


def as_model(
    checkpoint: Checkpoint, label: str, experts_selected: int | None, normalisation: str | None
) -> ProxyFusionModel:
    """Make the model of a checkpoint, under the settings given, else its metadata's, else the usual ones.

    The usual ones: 4 experts, or all if there are fewer, and "raw". Raises ModelError if the weights are not
    those of a ProxyFusion network, or if a setting given contradicts the metadata.
    """
    weights, metadata = checkpoint
    if metadata.get("format_version", FORMAT) != FORMAT:
        raise ModelError(f"{label} is of format {metadata['format_version']}, this version reads {FORMAT}: upgrade")
    selected = _agreed("experts_selected", _text(experts_selected), metadata.get("experts_selected"), label)
    network = build_network(weights, _selected(selected, len(weights.get("proxies_p", ())), label), label)
    stated, stored = _canonical(normalisation), _canonical(metadata.get("normalisation"))
    agreed = _agreed("normalisation", stated, stored, label)
    return ProxyFusionModel(network, agreed or "raw", metadata.get("origin", "imported weights"))


def _metadata(model: ProxyFusionModel) -> dict[str, str]:
    return {
        "experts_selected": str(model.blocks),
        "format_version": FORMAT,
        "normalisation": model.normalisation,
        "origin": model.origin,
    }


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _canonical(normalisation: str | None) -> str | None:
    return None if normalisation is None else str(Normalisation.parse(normalisation))


def _agreed(setting: str, given: str | None, stored: str | None, label: str) -> str | None:
    if given is not None and stored is not None and given != stored:
        raise ModelError(f"{label} was made with {setting} {stored}, not {given}: leave {setting} out")
    return given if stored is None else stored


def _selected(stated: str | None, experts: int, label: str) -> int:
    if stated is None:
        return min(DEFAULT_SELECTED, experts)
    try:
        return int(stated)
    except ValueError as error:
        raise ModelError(f"{label} states experts_selected {stated!r}, which is no whole number") from error
