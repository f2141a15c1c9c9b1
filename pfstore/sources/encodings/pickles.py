"""Pickled features, read without running them (see pfstore.sources.pickled)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pfstore.features import Floats
from pfstore.sources import pickled
from pfstore.sources.base import Reason
from pfstore.sources.encodings.values import Undecodable, as_bytes, check_present, check_shape, numbers

_LONGEST_NUMBER = 64


class Pickle:
    """A pickled numpy array of shape [D] or [1, D], or a list of numbers; everything else is refused."""

    def decode(self, value: Any) -> Floats:
        """Return the numbers [D] of one value. Raises Undecodable, without having run any of it."""
        try:
            return vector(pickled.load(as_bytes(value)))
        except pickled.Refused as refused:
            raise Undecodable(f"a pickle of something else than numbers: it {refused}") from None
        except pickled.Damaged as damaged:
            raise Undecodable(f"not a pickle of numbers: {damaged}") from None


def vector(value: Any) -> Floats:
    """Return one unpickled feature as [D] float32: an array of shape [D] or [1, D], or a list of numbers.

    Raises Undecodable, with the reason EMPTY for None and for no values.
    """
    if value is None:
        raise Undecodable("None", Reason.EMPTY)
    if isinstance(value, np.ndarray):
        check_shape(value.shape)
        if value.dtype.kind in "fiu":
            return numbers(value.ravel())
        if value.dtype.kind != "O":
            raise Undecodable("a pickled array of something else than numbers")
        value = value.ravel().tolist()
    if not isinstance(value, list | tuple):
        raise Undecodable(f"a pickled {type(value).__name__} instead of numbers")
    check_present(value)
    # A list may hold another that holds it, or so many that no machine could look at them all.
    if not {*map(type, value)} <= {int, float, bool, str}:
        raise Undecodable("not all values are numbers: a pickle of something else than numbers")
    # One long text may be named many times.
    if any(isinstance(one, str) and len(one) > _LONGEST_NUMBER for one in value):
        raise Undecodable(f"a text of more than {_LONGEST_NUMBER} characters among the values")
    return numbers(value)
