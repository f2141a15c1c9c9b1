"""Training of a fusion model from the first look at the data to the file that `model import` takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from pfstore.errors import BusyError
from pfstore.fusion import (
    BASELINES,
    Fuser,
    Nan,
    NanModel,
    NetworkModel,
    ProxyFusion,
    ProxyFusionModel,
    load_model,
    to_bytes,
)
from pfstore.fusion.devices import device_of
from pfstore.fusion.normalisation import Normalisation
from pfstore.training.card import Outcome, Standing, card, software
from pfstore.training.data import TrainingData
from pfstore.training.drawing import Drawing
from pfstore.training.loop import Observer, Trainer
from pfstore.training.options import Options
from pfstore.training.preparing import Split, check_ready, left_out, normalisation_of, split
from pfstore.training.redundancy import Redundancy, redundancy
from pfstore.training.state import SUFFIX, StateFile, replace_file
from pfstore.training.validating import Validation

BOOTSTRAP = 1000
_ORIGIN = "trained by pfstore"


@dataclass(frozen=True)
class Trained:
    """What a training gave: the model with its card, and how it went."""

    model: NetworkModel
    outcome: Outcome


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

    The same data and options give the same file, byte for byte on one kind of machine's CPU, whatever the order of the
    subjects. Interrupted, the same call goes on from the last validation, kept beside the file, and ends in that file.

    extractor: the label of the features, kept in the card. label: what the data are called there. restart: forget an
    unfinished training. overwrite: the file may be there.

    Raises InputError where the data are too few or out of proportion or the file cannot be written, ConflictError where
    it is there or an unfinished training had other data or options, BusyError where another training is writing it,
    ConfigError for a device that is not here.
    """
    check_ready(out, options, overwrite=overwrite)
    with _alone(out):
        ordered = data.ordered()
        digest = ordered.digest()
        parted = split(ordered, options)
        state = StateFile(out.with_name(out.name + SUFFIX), _identity(digest, options))
        if restart:
            state.remove()
        normalisation = normalisation_of(parted.train, options)
        drawn = Validation.of(parted.validation, _drawing(options), options.seed)
        # Before hours are spent: what no baseline can fuse, no model can.
        baselines = [_standing(name, load_model(name), drawn) for name in BASELINES]
        trainer = _trainer(parted, options, normalisation, drawn, state)
        early = trainer.run(observe)
        bare = _wrapped(trainer.network, normalisation)
        standings = [_standing(options.method, bare, drawn), *baselines]
        outcome = Outcome(
            trainer.curve[-1].step,
            early,
            trainer.best,
            trainer.curve,
            standings,
            _redundancy(bare, drawn),
            [*left_out(ordered), *_judged(standings, len(drawn.mated))],
        )
        contract = {
            "extractor": extractor,
            "dimension": data.batch.dimension,
            "normalisation": str(normalisation),
            "label": label,
        }
        told = card(outcome, ordered, digest, options, parted.counts, contract)
        model = _wrapped(trainer.network, normalisation, told)
        replace_file(out, to_bytes(model))
        state.remove()
    return Trained(model, outcome)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other trainings of this file away. Raises BusyError where one is at it."""
    path = out.with_name(f".{out.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(f"another training is writing {out}: wait for it, or name another file") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _drawing(options: Options) -> Drawing:
    return Drawing(media=options.media, most=options.most_features)


def _trainer(
    parted: Split, options: Options, normalisation: Normalisation, drawn: Validation, state: StateFile
) -> Trainer:
    return Trainer(
        _network(parted.train.batch.dimension, options).to(device_of(options.device)),
        parted.train.prepared(lambda features: normalisation.apply(torch.from_numpy(features)).numpy()),
        drawn,
        _drawing(options),
        options,
        lambda network: _wrapped(network, normalisation),
        state,
    )


def _network(dimension: int, options: Options) -> ProxyFusion | Nan:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if options.method == "nan":
            return Nan(dimension)
        return ProxyFusion(dimension, options.experts, options.domain, options.blocks, options.dropout)


def _wrapped(
    network: ProxyFusion | Nan, normalisation: Normalisation, told: Mapping[str, Any] | None = None
) -> NetworkModel:
    if isinstance(network, ProxyFusion):
        return ProxyFusionModel(network, str(normalisation), _ORIGIN, told).to("cpu")
    return NanModel(network, str(normalisation), _ORIGIN, told).to("cpu")


def _standing(name: str, fuser: Fuser, drawn: Validation) -> Standing:
    at = drawn.figures(fuser, BOOTSTRAP)[-1]
    return Standing(name, at.target, at.fnmr)


def _redundancy(model: NetworkModel, drawn: Validation) -> Redundancy | None:
    if isinstance(model, ProxyFusionModel) and model.blocks > 1:
        return redundancy(model, drawn, BOOTSTRAP)
    return None


def _judged(standings: Sequence[Standing], held_out: int) -> list[str]:
    """Say where the held-out subjects do not show that the model is better than the best baseline."""
    own, *baselines = standings
    best = min(baselines, key=lambda one: one.fnmr.value)
    subjects = f"{held_out:,} held-out subjects"
    rates = f"FNMR {own.fnmr.value:.4f} against {best.fnmr.value:.4f} at FMR {own.fmr:g}"
    if own.fnmr.value > best.fnmr.value:
        overlap = ", intervals overlap" if own.fnmr.low <= best.fnmr.high else ""
        return [
            f"on {subjects} the model is no better than {best.label} ({rates}{overlap}): use {best.label}, "
            "or train it longer or on more people"
        ]
    if own.fnmr.high >= best.fnmr.low:
        return [
            f"{subjects} are too few to tell that the model is better than {best.label} ({rates}, intervals overlap): "
            "evaluate it on more before it is used"
        ]
    return []


def _identity(digest: str, options: Options) -> str:
    told = {"data": digest, "options": options.as_dict(), "parts": options.parts.as_dict(), "software": software()}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
