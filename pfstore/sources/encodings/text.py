"""Features written as text or lists: JSON, pgvector's and PostgreSQL's array notation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from pfstore.features import Floats
from pfstore.sources.base import Reason
from pfstore.sources.encodings.values import Undecodable, as_text, numbers, plain_numbers, written_numbers


@dataclass(frozen=True)
class Json:
    """A JSON list of numbers, found by a path of names and positions; a list of one list is taken as that."""

    path: tuple[str, ...] = ()

    def decode(self, value: Any) -> Floats:
        """Return the numbers [D] of one value, JSON or already parsed. Raises Undecodable."""
        found = value if isinstance(value, list | dict) else self._parsed(value)
        for step in self.path:
            found = _step(found, step)
        return _list_of_numbers(found)

    def _parsed(self, value: Any) -> Any:
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            raise Undecodable("not JSON") from None


class PgVector:
    """The value of a vector or halfvec column: its text "[1,2]", or a list or array of a driver that knows it."""

    def decode(self, value: Any) -> Floats:
        """Return the numbers [D] of one value. Raises Undecodable."""
        if isinstance(value, (list, np.ndarray)):
            return numbers(value)
        text = as_text(value)
        if not text.startswith("["):
            raise Undecodable('not like "[1,2]"')
        return Json().decode(text)


class Array:
    """A list of numbers as the driver gives it, or PostgreSQL's text of one, "{1,2}"."""

    def decode(self, value: Any) -> Floats:
        """Return the numbers [D] of one value. Raises Undecodable."""
        if isinstance(value, (list, tuple, np.ndarray)):
            return numbers(value)
        text = as_text(value).strip()
        if not (text.startswith("{") and text.endswith("}")):
            raise Undecodable('not like "{1,2}"')
        inner = text[1:-1].strip()
        plain = written_numbers(inner)
        if plain is not None:
            return plain
        return numbers(inner.split(",") if inner else [])


def _step(found: Any, step: str) -> Any:
    if isinstance(found, dict) and step in found:
        return found[step]
    if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
        return found[int(step)]
    if isinstance(found, list) and not found:
        raise Undecodable("no values", Reason.EMPTY)
    raise Undecodable(f"JSON without {step!r}")


def _list_of_numbers(found: Any) -> Floats:
    while isinstance(found, list):
        if (plain := plain_numbers(found)) is not None:
            return plain
        if not any(isinstance(item, list) for item in found):
            return numbers(found)
        lists = [item for item in found if item is not None]
        if len(lists) != 1:
            raise Undecodable(f"{len(lists)} lists; choose one in the encoding, as json:0")
        found = lists[0]
    if found is None:
        raise Undecodable("null", Reason.EMPTY)
    raise Undecodable(f"JSON {type(found).__name__} instead of a list")
