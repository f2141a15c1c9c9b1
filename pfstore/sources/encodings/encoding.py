"""The grammar of encodings: wrappers and a leaf joined by "+", outermost first, as in "hex+float64-le"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pfstore.config import nearest
from pfstore.errors import ConfigError
from pfstore.features import Floats
from pfstore.sources.assembly import Fault, Vectors
from pfstore.sources.encodings import raw
from pfstore.sources.encodings.binary import Npy, Protobuf
from pfstore.sources.encodings.pickles import Pickle
from pfstore.sources.encodings.text import Array, Json, PgVector
from pfstore.sources.encodings.values import MAX_BYTES, Leaf, Undecodable, check_present
from pfstore.sources.encodings.wrappers import WRAPPERS

_PROTOBUF = re.compile(r"protobuf:([1-9]\d*):(double|float)")
_KNOWN = [*WRAPPERS, *raw.NAMES, "json", "json:PATH", "pgvector", "array"]
_KNOWN += ["protobuf:FIELD:double", "protobuf:FIELD:float", "npy", "pickle"]


@dataclass(frozen=True)
class Decoded:
    """What many values gave. features: [n, D] or n vectors; faults: by position, where there is no feature."""

    features: Vectors
    faults: dict[int, Fault]


@dataclass(frozen=True)
class Encoding:
    """How one column's values become features.

    text: as the mapping writes it. wrappers: what unpacks a value, outermost first. leaf: gives its numbers.
    """

    text: str
    leaf: Leaf
    wrappers: tuple[Callable[[Any], bytes], ...] = field(default=())

    def decode(self, value: Any) -> Floats:
        """Return the numbers of one value, [D] float32.

        Raises Undecodable where it is NULL or empty, damaged, too large, or not in this encoding.
        """
        return self.leaf.decode(self._unwrapped(value))

    def decode_many(self, values: Sequence[Any]) -> Decoded:
        """Decode many values, just as decode does one; raw numbers of equal length at the speed of memory."""
        payloads: list[Any] = [None] * len(values)
        faults: dict[int, Fault] = {}
        for i, value in enumerate(values):
            try:
                payloads[i] = self._unwrapped(value)
            except Undecodable as error:
                faults[i] = Fault(error.reason, error.detail)
        block = self._block(payloads, faults)
        if block is not None:
            return Decoded(block, faults)
        return Decoded(self._one_by_one(payloads, faults), faults)

    def _unwrapped(self, value: Any) -> Any:
        check_present(value)
        for unwrap in self.wrappers:
            value = unwrap(value)
            check_present(value)
        return value

    def _block(self, payloads: list[Any], faults: dict[int, Fault]) -> Floats | None:
        """Decode [n, D] at once, with anything in the rows of faults; None where that cannot be done."""
        decode_block = getattr(self.leaf, "decode_block", None)
        good = [payload for payload in payloads if payload is not None]
        if decode_block is None or not good or {type(one) for one in good} != {bytes}:
            return None
        if len({len(one) for one in good}) != 1:
            return None
        block: Floats | None = decode_block(good)
        if block is None or not faults:
            return block
        spread = np.zeros((len(payloads), block.shape[1]), dtype=np.float32)
        spread[[i for i in range(len(payloads)) if i not in faults]] = block
        return spread

    def _one_by_one(self, payloads: list[Any], faults: dict[int, Fault]) -> list[Floats | None]:
        features: list[Floats | None] = [None] * len(payloads)
        for i, payload in enumerate(payloads):
            if i in faults:
                continue
            try:
                features[i] = self.leaf.decode(payload)
            except Undecodable as error:
                faults[i] = Fault(error.reason, error.detail)
        return features


def parse_encoding(text: str, allow_pickle: bool = False) -> Encoding:
    """Return the encoding of this name, such as "hex+float64-le", "float32-le@16" or "json:embeddings".

    Raises ConfigError where there is no such encoding, or for "pickle" unless allow_pickle.
    """
    wrappers, rest = [], text
    while (outer := rest.partition("+"))[0] in WRAPPERS:
        wrappers.append(WRAPPERS[outer[0]])
        rest = outer[2]
    if not rest and wrappers:
        raise ConfigError(f"the encoding {text!r} does not say what is inside, as in {text.strip('+')}+float32-le")
    leaf = _leaf(rest)
    if isinstance(leaf, Pickle) and not allow_pickle:
        raise ConfigError("the encoding pickle is off unless the source says allow_pickle = true")
    return Encoding(text, leaf, tuple(wrappers))


def _leaf(text: str) -> Leaf:
    simple: dict[str, Callable[[], Leaf]] = {"pgvector": PgVector, "array": Array, "npy": Npy, "pickle": Pickle}
    if text in simple:
        return simple[text]()
    name, at, offset = text.partition("@")
    if name in raw.NAMES and (not at or (offset.isdecimal() and int(offset) < MAX_BYTES)):
        return raw.raw(name, int(offset or 0))
    if match := _PROTOBUF.fullmatch(text):
        return Protobuf(int(match[1]), np.dtype("<f8" if match[2] == "double" else "<f4"))
    name, colon, path = text.partition(":")
    if name == "json" and bool(colon) == bool(path):
        return Json(tuple(path.split(".")) if path else ())
    raise ConfigError(f"unknown encoding {text!r}{nearest(text, _KNOWN)}")
