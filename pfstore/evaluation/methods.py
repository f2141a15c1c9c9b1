"""What is compared side by side: each model under each strategy, as one method with a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
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


def fitting(methods: Sequence[Method], experiment: Experiment) -> list[Method]:
    """Return the methods that differ on an experiment.

    Where no reference has several media, "media" has nothing to tell apart: of models that are there under both
    strategies "set" alone stays.
    """
    if _has_media(experiment):
        return list(methods)
    at_once = {_model(one) for one in methods if one.strategy == "set" and one.label != _model(one)}
    kept = [one for one in methods if one.strategy == "set" or _model(one) not in at_once]
    return [replace(one, label=_model(one)) if _model(one) in at_once else one for one in kept]


def _has_media(experiment: Experiment) -> bool:
    """Whether a reference has several media; yes where the facts do not tell."""
    facts = experiment.facts
    try:
        return bool(facts["media"]["references"] > facts["references"] - facts["failures"]["references"])
    except (KeyError, TypeError):
        return True


def check(methods: Sequence[Method], experiment: Experiment, *, ignore_extractor: bool = False) -> list[str]:
    """Check that the methods can be used on the features of an experiment; return what to be warned of.

    ignore_extractor: only warn of a model whose card names another extractor. Raises ContractError for that otherwise,
    and where a model takes another dimension.
    """
    warnings: dict[str, None] = {}
    for method in methods:
        if method.fuser.dimension not in (None, experiment.dimension):
            raise ContractError(
                f"{method.label} takes features of {method.fuser.dimension} values, {experiment.name} has "
                f"{experiment.dimension}: another extractor made them"
            )
        trained_on = _extractor(method.fuser)
        if trained_on and experiment.extractor and trained_on != experiment.extractor:
            named = method.label if not ignore_extractor else _model(method)
            said = (
                f"{named} was trained on features of {trained_on!r}, {experiment.name} has "
                f"{experiment.extractor!r}: its scores would mean nothing"
            )
            if not ignore_extractor:
                raise ContractError(f"{said}; to evaluate it all the same, say --ignore-extractor")
            warnings[said] = None
    return [*warnings, *_trained_on_these(methods, experiment)]


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
    stems = {name: name if name in BASELINES else _stem(name) for name in names}
    counts = Counter(stems.values())
    return {name: stem if counts[stem] == 1 else name for name, stem in stems.items()}


def _stem(name: str) -> str:
    file = Path(name).name
    return next((file.removesuffix(end) for end in (".safetensors", ".pth.tar", ".pth") if file.endswith(end)), file)


def _suffix(strategies: Sequence[Strategy], strategy: Strategy) -> str:
    return f" ({strategy})" if len(strategies) > 1 else ""
