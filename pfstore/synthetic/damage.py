"""Rows that no store should hold and every old one does: what is planted, and how it must be counted."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import numpy as np

from pfstore.features import Floats
from pfstore.sources.base import Reason

Encoding: TypeAlias = Literal["float32-le", "json", "array"]
"""How features stand in a column: a blob of float32, JSON in text, or PostgreSQL's float8[]."""


class Damage(StrEnum):
    """A kind of bad row; `reason` is what it is to be rejected for."""

    NAN = "a value is not a number"
    INFINITE = "a value is infinite"
    ZERO = "all values are zero"
    SHORT = "half of the values are missing"
    TRUNCATED = "the blob ends within a value"
    EMPTY = "the feature has no bytes or values"
    NULL = "the feature is NULL"
    NOT_JSON = "the text is not JSON"
    NO_SUBJECT = "the subject is NULL"
    LOST_SUBJECT = "every feature of the subject is bad"

    @property
    def reason(self) -> Reason:
        """What a source rejects such rows for."""
        return _REASONS[self]


_REASONS = {
    Damage.NAN: Reason.NON_FINITE,
    Damage.INFINITE: Reason.NON_FINITE,
    Damage.ZERO: Reason.ZERO_NORM,
    Damage.SHORT: Reason.WRONG_DIMENSION,
    Damage.TRUNCATED: Reason.UNDECODABLE,
    Damage.EMPTY: Reason.EMPTY,
    Damage.NULL: Reason.EMPTY,
    Damage.NOT_JSON: Reason.UNDECODABLE,
    Damage.NO_SUBJECT: Reason.NO_SUBJECT,
    Damage.LOST_SUBJECT: Reason.ZERO_NORM,
}


def bad_features(feature: Floats) -> Iterator[tuple[Damage, Floats]]:
    """Yield what becomes of a good feature ([D] float32) by each kind of damage that an array of floats can hold."""
    for damage, value in ((Damage.NAN, np.nan), (Damage.INFINITE, np.inf)):
        spoilt = feature.copy()
        spoilt[len(feature) // 2] = value
        yield damage, spoilt
    yield Damage.ZERO, np.zeros_like(feature)
    yield Damage.SHORT, feature[: len(feature) // 2]


def bad_values(feature: Floats, encoding: Encoding) -> Iterator[tuple[Damage, Any]]:
    """Yield what becomes of a good feature ([D] float32) in a column of this encoding, by kind of damage."""
    for damage, spoilt in bad_features(feature):
        # JSON has no word for either.
        if encoding != "json" or damage not in (Damage.NAN, Damage.INFINITE):
            yield damage, encoded(spoilt, encoding)
    yield Damage.NULL, None
    if encoding == "float32-le":
        yield Damage.TRUNCATED, feature.tobytes()[:-2]
        yield Damage.EMPTY, b""
    elif encoding == "json":
        yield Damage.NOT_JSON, "[0.25, 0.5, not a number"
        yield Damage.EMPTY, "[]"
    else:
        yield Damage.EMPTY, []


def encoded(feature: Floats, encoding: Encoding) -> Any:
    """Return a feature ([D] float32) as the value of a column."""
    if encoding == "float32-le":
        return feature.astype("<f4", copy=False).tobytes()
    if encoding == "json":
        import orjson

        return orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return feature.tolist()
