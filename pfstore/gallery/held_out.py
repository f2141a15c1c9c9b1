"""What model cards tell of two models' errors on held-out people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pfstore.gallery import models
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.models import BASELINE, Model


@dataclass(frozen=True)
class Figure:
    """What a model card tells of held-out people: FNMR at FMR `fmr`. low, high: its interval, where there is one."""

    fmr: float
    fnmr: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class HeldOut:
    """What the model cards say of both models at one FMR. same_people: the cards show that they are the same people."""

    new: Figure
    old: Figure
    same_people: bool

    @property
    def is_worse(self) -> bool:
        """Whether the new model makes more errors, by more than the intervals allow where there are any."""
        if self.new.low is None or self.old.high is None:
            return self.new.fnmr > self.old.fnmr
        return self.new.low > self.old.high


def held_out(connection: Connection, new: Version, old: Version) -> HeldOut | None:
    """Return what the cards of two versions' models tell at the same FMR; None where one of them tells nothing."""
    first, second = models.find(connection, new.model_digest), models.find(connection, old.model_digest)
    # A baseline has no card, but the card of a model tells how baselines fare on the same people.
    cards = _card(first) or _card(second), _card(second) or _card(first)
    own, other = _figure(first, new, cards[0]), _figure(second, old, cards[1])
    if own is None or other is None or own.fmr != other.fmr:
        return None
    people = _people(cards[0])
    return HeldOut(own, other, cards[0] == cards[1] or (people is not None and people == _people(cards[1])))


def _card(model: Model) -> dict[str, Any]:
    return _mapping(model.details.get("card"))


def _people(card: dict[str, Any]) -> Any:
    """Return what two cards must have in common to be of the same held-out people."""
    digest, parts = _mapping(card.get("data")).get("digest"), card.get("parts")
    return (digest, parts) if digest and parts else None


def _figure(model: Model, version: Version, card: dict[str, Any]) -> Figure | None:
    """Return what a card tells of a model as a version uses it: not compact, on the card's extractor."""
    if version.compact or _mapping(card.get("contract")).get("extractor") != version.extractor:
        return None
    rows = _mappings(card.get("validation"))
    if model.kind == BASELINE:
        found = [row for row in rows[1:] if row.get("method") == model.name]
    elif not _card(model):
        found = []
    elif _mapping(card.get("options")).get("selected", model.blocks) == model.blocks:
        found = rows[:1]
    else:
        settings = _mappings(_mapping(card.get("redundancy")).get("settings"))
        found = [row for row in settings if row.get("experts_selected") == model.blocks]
    return _figure_of(found[0]) if found else None


def _figure_of(row: dict[str, Any]) -> Figure | None:
    """Read a figure. A card may be anybody's, so it may say anything."""
    fmr, fnmr, low, high = (_rate(row.get(name)) for name in ("fmr", "fnmr", "low", "high"))
    return None if fmr is None or fnmr is None else Figure(fmr, fnmr, low, high)


def _rate(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [_mapping(one) for one in value] if isinstance(value, list) else []
