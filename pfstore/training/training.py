"""Training of a fusion model from the first look at the data to the file that `model import` takes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pfstore.errors import ConfigError, ConflictError, InputError
from pfstore.evaluation.results import Rate
from pfstore.features import Floats
from pfstore.fusion import BASELINES, Nan, NanModel, NetworkModel, ProxyFusion, ProxyFusionModel, load_model, to_bytes
from pfstore.fusion.normalisation import Normalisation
from pfstore.training.data import TrainingData
from pfstore.training.drawing import Drawing, usable
from pfstore.training.loop import Observer, Point, Trainer, device_of
from pfstore.training.options import Options
from pfstore.training.redundancy import Redundancy, redundancy
from pfstore.training.state import SUFFIX, StateFile
from pfstore.training.validating import Validation

BOOTSTRAP = 1000
NAMED = 5  # subjects that a message names; the others it counts
_PACKAGES = ("pfstore", "torch", "numpy", "pytorch-metric-learning")


@dataclass(frozen=True)
class Standing:
    """A model or baseline on the held-out subjects: FNMR at FMR `fmr`."""

    label: str
    fmr: float
    fnmr: Rate


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    model: with its card. ended_early, steps: how it ended. best: the point of its weights. standings: the model first,
    then the baselines. redundancy: of ProxyFusion. warnings: what its user should know, a sentence each.
    """

    model: NetworkModel
    steps: int
    ended_early: bool
    best: Point
    curve: Sequence[Point]
    standings: Sequence[Standing]
    redundancy: Redundancy | None
    warnings: Sequence[str]


@dataclass(frozen=True)
class Split:
    """The data of the subjects to train on and of those to validate on."""

    train: TrainingData
    validation: TrainingData
    counts: Mapping[str, int]


def split(data: TrainingData, options: Options) -> Split:
    """Part the subjects and check that there are enough of them.

    Raises InputError where fewer than two subjects of a part have what a pair takes: two media, or a probe and a
    medium of the gallery.
    """
    parts = {subject: options.parts.of(subject) for subject in data.subject_ids}
    pieces = {part: data.select(_in_part(parts, part)) for part in ("train", "validation")}
    counts = {part: sum(one == part for one in parts.values()) for part in ("train", "validation", "test")}
    need = "two media" if data.probes is None else "a probe and a medium of the gallery"
    for part, piece in pieces.items():
        paired = len(usable(piece)[0])
        if paired < 2:
            raise InputError(
                f"{paired} of the {counts[part]:,} subjects of the {part} part have {need}, as a pair takes, and at "
                f"least two must: of all {len(data.subject_ids):,} subjects {len(usable(data)[0]):,} have; "
                "take another source or other parts"
            )
    return Split(pieces["train"], pieces["validation"], counts)


def _in_part(parts: Mapping[str, str], part: str) -> Callable[[str], bool]:
    return lambda subject: parts[subject] == part


def train(
    data: TrainingData,
    options: Options,
    out: Path,
    *,
    extractor: str,
    label: str,
    restart: bool = False,
    overwrite: bool = False,
    observe: Observer = lambda _: None,
) -> Trained:
    """Train a model on some data and write it to a file, safetensors with a model card.

    The same data and options give the same file, byte for byte on one kind of machine's CPU. Interrupted, the same call
    goes on from the last validation, kept beside the file, and ends in that file too.

    extractor: the label of the features, kept in the card. label: what the data are called there. restart: forget an
    unfinished training. overwrite: the file may be there.

    Raises InputError where the data are too few or the file cannot be written, ConflictError where it is there or an
    unfinished training had other data or options, ConfigError for a device that is not here.
    """
    check_ready(out, options, overwrite=overwrite)
    device = device_of(options.device)
    parted = split(data, options)
    identity = _identity(data, options)
    state = StateFile(out.with_name(out.name + SUFFIX), identity)
    if restart:
        state.remove()
    warnings = _left_out(data)
    normalisation = _normalisation(parted.train.features, options)
    trainer = _trainer(parted, options, normalisation, state, device)
    early = trainer.run(observe)
    bare = _wrapped(trainer.network, normalisation)
    drawn = trainer.validation
    standings = [_standing(name, fuser, drawn) for name, fuser in _contestants(bare, options)]
    redundant = redundancy(bare, drawn, BOOTSTRAP) if isinstance(bare, ProxyFusionModel) and bare.blocks > 1 else None
    warnings += _judged(standings, drawn)
    card = _card(data, parted, options, trainer, standings, redundant, extractor, label, warnings, early)
    model = _wrapped(trainer.network, normalisation, card)
    _write(out, to_bytes(model))
    state.remove()
    return Trained(model, trainer.curve[-1].step, early, trainer.best, trainer.curve, standings, redundant, warnings)


def check_ready(out: Path, options: Options, *, overwrite: bool) -> None:
    """Check what can be checked before anything is read.

    Raises ConflictError where the file is there, InputError where it cannot be written, ConfigError where it is no
    model's by its name, the extra `train` is not installed or the device is not here.
    """
    if find_spec("pytorch_metric_learning") is None:
        raise ConfigError("training needs the extra train: pip install 'pfstore[train]'")
    device_of(options.device)
    if out.suffix != ".safetensors":
        raise ConfigError(f"{out}: a model's file ends in .safetensors")
    if out.exists() and not overwrite:
        raise ConflictError(f"{out} is there already: name another file, or say --overwrite")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"{out}: the folder {out.parent} is not there or cannot be written to")


def _trainer(
    parted: Split, options: Options, normalisation: Normalisation, state: StateFile, device: torch.device
) -> Trainer:
    drawing = Drawing(media=options.media, most=options.most_features)
    return Trainer(
        _network(parted.train.dimension, options).to(device),
        parted.train.prepared(lambda features: normalisation.apply(torch.from_numpy(features)).numpy()),
        Validation.of(parted.validation, drawing, options.seed),
        options,
        lambda network: _wrapped(network, normalisation),
        state,
    )


def _network(dimension: int, options: Options) -> ProxyFusion | Nan:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if options.method == "nan":
            return Nan(dimension)
        return ProxyFusion(dimension, options.experts, options.domain, options.selected, options.dropout)


def _wrapped(network: nn.Module, normalisation: Normalisation, card: Mapping[str, Any] | None = None) -> NetworkModel:
    if isinstance(network, ProxyFusion):
        return ProxyFusionModel(network, str(normalisation), "trained by pfstore", card).to("cpu")
    assert isinstance(network, Nan)
    return NanModel(network, str(normalisation), "trained by pfstore", card).to("cpu")


def _normalisation(features: Floats, options: Options) -> Normalisation:
    """Find the input scale in the features to train on ([N, D]): what brings the median norm to the options'."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    return Normalisation("scale", options.scale / float(np.median(norms)))


def _contestants(model: NetworkModel, options: Options) -> list[tuple[str, Any]]:
    return [(options.method, model), *((name, load_model(name)) for name in BASELINES)]


def _standing(name: str, fuser: Any, validation: Validation) -> Standing:
    at = validation.figures(fuser, BOOTSTRAP)[-1]
    return Standing(name, at.target, at.fnmr)


def _judged(standings: Sequence[Standing], validation: Validation) -> list[str]:
    """Say where the held-out subjects do not show that the model is better than the best baseline."""
    own, *baselines = standings
    best = min(baselines, key=lambda one: one.fnmr.value)
    subjects = f"{len(validation.mated):,} held-out subjects"
    rates = f"FNMR {own.fnmr.value:.4f} against {best.fnmr.value:.4f} at FMR {own.fmr:g}"
    if own.fnmr.value > best.fnmr.value:
        return [
            f"on {subjects} the model is worse than {best.label} ({rates}): there is too little to train on; "
            f"use {best.label}"
        ]
    if own.fnmr.high >= best.fnmr.low:
        return [
            f"{subjects} are too few to tell that the model is better than {best.label} ({rates}, intervals overlap): "
            "evaluate it on more before it is used"
        ]
    return []


def _left_out(data: TrainingData) -> list[str]:
    _, single = usable(data)
    if not len(single) or data.probes is None:
        return []
    named = ", ".join(repr(data.subject_ids[one]) for one in single[:NAMED].tolist())
    more = f" and {len(single) - NAMED:,} more" if len(single) > NAMED else ""
    return [f"{len(single):,} subjects lack a probe or a gallery and serve as non-mated alone: {named}{more}"]


def _identity(data: TrainingData, options: Options) -> str:
    told = {"data": data.digest(), "options": options.as_dict(), "parts": options.parts.as_dict()}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _card(
    data: TrainingData,
    parted: Split,
    options: Options,
    trainer: Trainer,
    standings: Sequence[Standing],
    redundant: Redundancy | None,
    extractor: str,
    label: str,
    warnings: Sequence[str],
    early: bool,
) -> dict[str, Any]:
    return {
        "contract": {
            "extractor": extractor,
            "dimension": data.dimension,
            "normalisation": str(_normalisation(parted.train.features, options)),
        },
        "data": {
            "label": label,
            "digest": data.digest(),
            "subjects": len(data.subject_ids),
            "media": len(data.media_offsets) - 1,
            "features": len(data.features),
            "counts": {key: int(count) for key, count in data.counts.items()},
        },
        "parts": options.parts.as_dict(),
        "part_subjects": dict(parted.counts),
        "options": options.as_dict(),
        "steps": trainer.curve[-1].step,
        "ended_early": early,
        "best": asdict(trainer.best),
        "curve": [asdict(point) for point in trainer.curve],
        "validation": [_plain(one) for one in standings],
        "redundancy": None if redundant is None else _plain_redundancy(redundant),
        "warnings": list(warnings),
        "software": {name: version(name) for name in _PACKAGES},
    }


def _plain_redundancy(found: Redundancy) -> dict[str, Any]:
    settings = [
        {"experts_selected": one.experts, "values": one.values, **_rate(one.fnmr), "fmr": one.fmr}
        for one in found.settings
    ]
    return {"cosine_of_blocks": round(found.cosine, 6), "settings": settings, "recommended": found.recommended}


def _plain(one: Standing) -> dict[str, Any]:
    return {"method": one.label, "fmr": one.fmr, **_rate(one.fnmr)}


def _rate(rate: Rate) -> dict[str, Any]:
    return {
        "fnmr": rate.value,
        "errors": int(rate.errors),
        "trials": int(rate.trials),
        "low": float(rate.low),
        "high": float(rate.high),
    }


def _write(out: Path, data: bytes) -> None:
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(out)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{out}: cannot be written: {error.strerror}") from None
