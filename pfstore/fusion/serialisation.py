"""The form in which models are stored and moved: safetensors, byte for byte the same for the same model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pfstore.errors import ModelError
from pfstore.fusion.checkpoints import Checkpoint, build_nan, build_proxyfusion, parse_safetensors
from pfstore.fusion.fuser import Fuser
from pfstore.fusion.model import IMPORTED, NanModel, NetworkModel, ProxyFusionModel, canonical
from pfstore.fusion.nan import Nan
from pfstore.fusion.normalisation import Normalisation
from pfstore.fusion.proxyfusion import ProxyFusion

FORMAT = "1"
DEFAULT_SELECTED = 4
# What metadata without a kind stands for, as in published checkpoints; to_bytes names it no more than they do.
USUAL_KIND = "proxyfusion"


def to_bytes(model: Fuser) -> bytes:
    """Write the model as safetensors: float32 weights, and in the metadata what a checkpoint does not say.

    The metadata: format_version, normalisation, origin; experts_selected of a ProxyFusion network, kind of any
    other; card, the model card as JSON with sorted keys, where there is one.

    Written here and not by the safetensors library, which puts the metadata in an order that changes from
    run to run, so that a digest over it would too. Raises ModelError for a model that has no weights.
    """
    if not isinstance(model, NetworkModel):
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


def from_bytes(data: bytes) -> NetworkModel:
    """Read the model in safetensors bytes, as to_bytes wrote them. Raises ModelError if they hold none."""
    return as_model(parse_safetensors(data, "the stored model"), "the stored model", None, None)


def as_model(
    checkpoint: Checkpoint, label: str, experts_selected: int | None, normalisation: str | None
) -> NetworkModel:
    """Make the model of a checkpoint, under the settings given, else its metadata's, else the usual ones.

    The usual ones: ProxyFusion, 4 experts, or all if there are fewer, and "raw". Raises ModelError if the kind
    is unknown, if the weights are not those of its network, or if a setting given contradicts the metadata.
    """
    metadata = checkpoint.metadata
    if metadata.get("format_version", FORMAT) != FORMAT:
        raise ModelError(f"{label} is of format {metadata['format_version']}, this version reads {FORMAT}: upgrade")
    kind = metadata.get("kind", USUAL_KIND)
    if kind not in _KINDS:
        raise ModelError(f"{label} is of kind {kind!r}, this version knows {' and '.join(_KINDS)}: upgrade")
    made, build = _KINDS[kind]
    stated, stored = _canonical(normalisation), _canonical(metadata.get("normalisation"))
    agreed = _agreed("normalisation", stated, stored, label) or "raw"
    network = build(checkpoint, label, experts_selected)
    return made(network, agreed, metadata.get("origin", IMPORTED), _card(metadata.get("card"), label))


def _metadata(model: NetworkModel) -> dict[str, str]:
    metadata = {"format_version": FORMAT, "normalisation": model.normalisation, "origin": model.origin}
    metadata |= {"experts_selected": str(model.blocks)} if model.kind == USUAL_KIND else {"kind": model.kind}
    metadata |= {} if model.card_text is None else {"card": model.card_text}
    return dict(sorted(metadata.items()))


def _proxyfusion(checkpoint: Checkpoint, label: str, experts_selected: int | None) -> ProxyFusion:
    weights, metadata = checkpoint
    stated = _agreed("experts_selected", _text(experts_selected), metadata.get("experts_selected"), label)
    return build_proxyfusion(weights, _selected(stated, len(weights.get("proxies_p", ())), label), label)


def _nan(checkpoint: Checkpoint, label: str, experts_selected: int | None) -> Nan:
    if experts_selected not in (None, 1):
        raise ModelError(f"{label} is a NAN model, which has no experts: leave experts_selected out")
    return build_nan(checkpoint.weights, label)


_KINDS: dict[str, tuple[Callable[..., NetworkModel], Callable[[Checkpoint, str, int | None], ProxyFusion | Nan]]] = {
    USUAL_KIND: (ProxyFusionModel, _proxyfusion),
    "nan": (NanModel, _nan),
}


def _card(text: str | None, label: str) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{label} holds a model card that is not JSON: {error}; leave the card out") from error
    if not isinstance(card, dict):
        raise ModelError(f"{label} holds a model card that is no JSON object; leave the card out")
    try:
        canonical(card)
    except ModelError as error:
        raise ModelError(f"{label}: {error}") from error
    return card


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
