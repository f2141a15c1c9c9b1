"""What is compared side by side: each model under each strategy, as one method with a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pfstore.errors import ContractError
from pfstore.evaluation.protocols.experiment import Experiment
from pfstore.fusion import BASELINES, Compact, Fuser, NetworkModel, compacted, load_model
from pfstore.fusion.compact import whole

Strategy: TypeAlias = Literal["media", "set"]

STRATEGIES: tuple[Strategy, ...] = ("media", "set")
EVERY_BASELINE = "baselines"
_COMPACT = ", compact"


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
    compact: bool = False,
    experts_selected: int | None = None,
    normalisation: str | None = None,
) -> list[Method]:
    """Load models, each a baseline's name, "baselines" for all of them, or a model's file, under each strategy.

    compact: with the compact form of each model of several blocks after it. experts_selected, normalisation: of the
    files that do not tell them, as published checkpoints do not. A model given twice counts once. Raises ModelError for
    what is no model, ContractError where all are of one block, so that none has a compact form.
    """
    names = [name for given in models for name in (BASELINES if given == EVERY_BASELINE else (given,))]
    unique = list(dict.fromkeys(names))
    labels = _labels(unique)
    methods = []
    for name in unique:
        settings = {} if name in BASELINES else {"experts_selected": experts_selected, "normalisation": normalisation}
        fuser = load_model(name, **settings)  # type: ignore[arg-type]
        forms = {labels[name]: fuser}
        if compact and fuser.blocks > 1:
            forms[f"{labels[name]}{_COMPACT}"] = compacted(fuser)
        methods += [
            Method(f"{label}{_suffix(strategies, one)}", form, one)
            for label, form in forms.items()
            for one in strategies
        ]
    if compact and not any(isinstance(one.fuser, Compact) for one in methods):
        raise ContractError(
            f"{', '.join(labels.values())}: none has several blocks, and so none a compact form: leave that out"
        )
    return methods


def fitting(methods: Sequence[Method], experiment: Experiment) -> list[Method]:
    """Return the methods that differ on an experiment.

    Where no reference has several media, "media" has nothing to tell apart: of models that are there under both
    strategies "set" alone stays.
    """
    if _has_media(experiment):
        return list(methods)
    at_once = {_form(one) for one in methods if one.strategy == "set" and one.label != _form(one)}
    kept = [one for one in methods if one.strategy == "set" or _form(one) not in at_once]
    return [replace(one, label=_form(one)) if _form(one) in at_once else one for one in kept]


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
        card = card_of(fuser)
        if card is None or _extractor(fuser) != experiment.extractor:
            continue
        if part == "test" and card.get("parts") == parts:
            continue
        warnings.append(
            f"{label} was trained on features of the same extractor, and the subjects here are not the test part of "
            "its split: unless they come from elsewhere, it may have seen them in training"
        )
    return warnings


def card_of(fuser: Fuser) -> dict[str, Any] | None:
    """Return the card of a network, compact or not; None where there is none."""
    full = whole(fuser)
    return full.card if isinstance(full, NetworkModel) else None


def _extractor(fuser: Fuser) -> str | None:
    card = card_of(fuser)
    # A card may be anybody's, so it may say anything.
    contract = card.get("contract") if card else None
    extractor = contract.get("extractor") if isinstance(contract, dict) else None
    return extractor if isinstance(extractor, str) else None


def _form(method: Method) -> str:
    """Name a model in one of its forms, under whatever strategy."""
    return method.label.removesuffix(f" ({method.strategy})")


def _model(method: Method) -> str:
    """Name a model, whatever its form."""
    return _form(method).removesuffix(_COMPACT) if isinstance(method.fuser, Compact) else _form(method)


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Name files by their own names, and by their folders too where two have one name, or one a compact form's."""
    stems = {name: name if name in BASELINES else _stem(name) for name in names}
    counts = Counter(stems.values()) + Counter(f"{stem}{_COMPACT}" for stem in stems.values())
    return {name: stem if counts[stem] == 1 else name for name, stem in stems.items()}


def _stem(name: str) -> str:
    file = Path(name).name
    return next((file.removesuffix(end) for end in (".safetensors", ".pth.tar", ".pth") if file.endswith(end)), file)


def _suffix(strategies: Sequence[Strategy], strategy: Strategy) -> str:
    return f" ({strategy})" if len(strategies) > 1 else ""
