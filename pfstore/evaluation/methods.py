"""What is compared side by side: each model under each strategy, as one method with a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pfstore.errors import ContractError
from pfstore.evaluation.protocols.experiment import Experiment
from pfstore.fusion import BASELINES, Fuser, NetworkModel, load_model

Strategy: TypeAlias = Literal["media", "set"]

STRATEGIES: tuple[Strategy, ...] = ("media", "set")
EVERY_BASELINE = "baselines"


@dataclass(frozen=True)
class Method:
    """A model under a strategy. label: unique among the methods of an evaluation."""

    label: str
    fuser: Fuser
    strategy: Strategy


def load_methods(
    models: Sequence[str],
    strategies: Sequence[Strategy] = STRATEGIES,
    *,
    experts_selected: int | None = None,
    normalisation: str | None = None,
) -> list[Method]:
    """Load models, each a baseline's name, "baselines" for all of them, or a model's file, under each strategy.

    experts_selected, normalisation: of the files that do not tell them, as published checkpoints do not. A model given
    twice counts once. Raises ModelError for what is no model.
    """
    names = [name for given in models for name in (BASELINES if given == EVERY_BASELINE else (given,))]
    unique = list(dict.fromkeys(names))
    labels = _labels(unique)
    methods = []
    for name in unique:
        settings = {} if name in BASELINES else {"experts_selected": experts_selected, "normalisation": normalisation}
        fuser = load_model(name, **settings)  # type: ignore[arg-type]
        methods += [Method(f"{labels[name]}{_suffix(strategies, one)}", fuser, one) for one in strategies]
    return methods


def check(methods: Sequence[Method], experiment: Experiment) -> list[str]:
    """Check that the methods can be used on the features of an experiment; return what to be warned of.

    Raises ContractError where a model takes another dimension, or its card names another extractor.
    """
    for method in methods:
        if method.fuser.dimension not in (None, experiment.dimension):
            raise ContractError(
                f"{method.label} takes features of {method.fuser.dimension} values, {experiment.name} has "
                f"{experiment.dimension}: another extractor made them"
            )
        trained_on = _extractor(method.fuser)
        if trained_on and experiment.extractor and trained_on != experiment.extractor:
            raise ContractError(
                f"{method.label} was trained on features of {trained_on!r}, {experiment.name} has "
                f"{experiment.extractor!r}: its scores would mean nothing"
            )
    return _trained_on_these(methods, experiment)


def _trained_on_these(methods: Sequence[Method], experiment: Experiment) -> list[str]:
    """Say where a model may have been trained on subjects that it is evaluated on."""
    part, parts = experiment.facts.get("part"), experiment.facts.get("parts")
    warnings = []
    for label, fuser in {_model(method): method.fuser for method in methods}.items():
        card = fuser.card if isinstance(fuser, NetworkModel) else None
        if card is None or _extractor(fuser) != experiment.extractor:
            continue
        if part == "test" and card.get("parts") == parts:
            continue
        warnings.append(
            f"{label} was trained on features of the same extractor, and the subjects here are not the test part of "
            "its split: unless they come from elsewhere, it may have seen them in training"
        )
    return warnings


def _extractor(fuser: Fuser) -> str | None:
    card = fuser.card if isinstance(fuser, NetworkModel) else None
    # A card may be anybody's, so it may say anything.
    contract = card.get("contract") if card else None
    extractor = contract.get("extractor") if isinstance(contract, dict) else None
    return extractor if isinstance(extractor, str) else None


def _model(method: Method) -> str:
    return method.label.removesuffix(f" ({method.strategy})")


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Name files by their own names, and by their folders too where two have one name."""
    stems = {name: name if name in BASELINES else Path(name).stem for name in names}
    counts = Counter(stems.values())
    return {name: stem if counts[stem] == 1 else name for name, stem in stems.items()}


def _suffix(strategies: Sequence[Strategy], strategy: Strategy) -> str:
    return f" ({strategy})" if len(strategies) > 1 else ""
