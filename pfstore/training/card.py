"""The model card: what a trained model was made of, how, and how it fares; the same for the same training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from pfstore.evaluation.results import Rate
from pfstore.training.data import TrainingData
from pfstore.training.loop import Point
from pfstore.training.options import Options
from pfstore.training.redundancy import Redundancy

_PACKAGES = ("pfstore", "torch", "numpy", "pytorch-metric-learning")


@dataclass(frozen=True)
class Standing:
    """A model or baseline on the held-out subjects: FNMR at FMR `fmr`."""

    label: str
    fmr: float
    fnmr: Rate


@dataclass(frozen=True)
class Outcome:
    """How a training went.

    steps, ended_early: how it ended. curve, best: its validations, and the one whose weights were taken. standings: the
    model first, then the baselines. redundancy: of ProxyFusion with several experts selected. warnings: what its user
    should know, a sentence each.
    """

    steps: int
    ended_early: bool
    best: Point
    curve: Sequence[Point]
    standings: Sequence[Standing]
    redundancy: Redundancy | None
    warnings: Sequence[str]


def software() -> dict[str, str]:
    """Return the versions that decide a training's result."""
    return {name: version(name) for name in _PACKAGES}


def card(
    outcome: Outcome,
    data: TrainingData,
    digest: str,
    options: Options,
    parts: Mapping[str, int],
    contract: dict[str, Any],
) -> dict[str, Any]:
    """Make the card, of JSON's types alone.

    digest: of the data. parts: subjects in each part. contract: extractor, dimension, normalisation, and the label of
    the data.
    """
    return {
        "contract": {key: contract[key] for key in ("extractor", "dimension", "normalisation")},
        "data": {
            "label": contract["label"],
            "digest": digest,
            "subjects": len(data.subjects),
            "media": len(data.batch.media_offsets) - 1,
            "features": len(data.batch.features),
            "counts": {key: int(count) for key, count in data.counts.items()},
        },
        "parts": options.parts.as_dict(),
        "part_subjects": dict(parts),
        "options": options.as_dict(),
        "steps": outcome.steps,
        "ended_early": outcome.ended_early,
        "best": asdict(outcome.best),
        "curve": [asdict(point) for point in outcome.curve],
        "validation": [{"method": one.label, "fmr": one.fmr, **_rate(one.fnmr)} for one in outcome.standings],
        "redundancy": None if outcome.redundancy is None else _redundancy(outcome.redundancy),
        "warnings": [*data.warnings, *outcome.warnings],
        "software": software(),
    }


def _redundancy(found: Redundancy) -> dict[str, Any]:
    settings = [
        {"experts_selected": one.experts, "values": one.values, "fmr": one.fmr, **_rate(one.fnmr)}
        for one in found.settings
    ]
    return {"cosine_of_blocks": round(found.cosine, 6), "settings": settings, "recommended": found.recommended}


def _rate(rate: Rate) -> dict[str, Any]:
    return {
        "fnmr": rate.value,
        "errors": int(rate.errors),
        "trials": int(rate.trials),
        "low": float(rate.low),
        "high": float(rate.high),
    }
