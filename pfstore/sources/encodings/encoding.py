"""The grammar of encodings: wrappers and a leaf joined by "+", outermost first, as in "hex+float64-le"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from pfstore.config import nearest
from pfstore.errors import ConfigError
from pfstore.features import Floats
from pfstore.sources.assembly import Fault, Vectors
from pfstore.sources.encodings import raw
from pfstore.sources.encodings.binary import Npy, Protobuf
from pfstore.sources.encodings.pickles import Pickle
from pfstore.sources.encodings.text import Array, Json, PgVector
from pfstore.sources.encodings.values import MAX_BYTES, BlockLeaf, Leaf, Undecodable, check_present
from pfstore.sources.encodings.wrappers import WRAPPERS

_T = TypeVar("_T")

_SLOW = (Json, PgVector, Array, Pickle)
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

    @property
    def is_slow(self) -> bool:
        """Whether a value takes longer to decode than to be handed to another process: text and pickles."""
        return isinstance(self.leaf, _SLOW)

    def decode(self, value: Any) -> Floats:
        """Return the numbers of one value, [D] float32.

        Raises Undecodable where it is NULL or empty, damaged, too large, or not in this encoding.
        """
        return self._content(self._unwrapped(value))

    def decode_many(self, values: Sequence[Any]) -> Decoded:
        """Decode many values, just as decode does one; raw numbers of equal length at the speed of memory."""
        faults: dict[int, Fault] = {}
        if (whole := self._whole(values)) is not None:
            return Decoded(whole, faults)
        payloads = dict(enumerate(values))
        if self.wrappers:
            payloads = _each(self._unwrapped, payloads, faults)
        rows, block = self._block(payloads)
        if len(rows) == len(values):
            return Decoded(block, faults)
        rest = sorted(payloads.keys() - rows)
        single = _each(self._content, {i: payloads[i] for i in rest}, faults)
        return Decoded(_in_order(len(values), rows, block, single), faults)

    def _whole(self, values: Sequence[Any]) -> Floats | None:
        """Decode values that are bytes of one length, as nearly all pages hold; None where they are not."""
        if self.wrappers or not isinstance(self.leaf, BlockLeaf) or set(map(type, values)) != {bytes}:
            return None
        lengths = set(map(len, values))
        return self.leaf.decode_block(values) if len(lengths) == 1 and 0 < lengths.pop() <= MAX_BYTES else None

    def _unwrapped(self, value: Any) -> Any:
        for unwrap in self.wrappers:
            check_present(value)
            value = unwrap(value)
        return value

    def _content(self, payload: Any) -> Floats:
        check_present(payload)
        return self.leaf.decode(payload)

    def _block(self, payloads: Mapping[int, Any]) -> tuple[list[int], Floats]:
        """Decode at once what allows it: the positions of those payloads, and their features [positions, D]."""
        if isinstance(self.leaf, BlockLeaf):
            alike = _alike(payloads)
            block = self.leaf.decode_block(list(alike.values())) if alike else None
            if block is not None:
                return list(alike), block
        return [], np.empty((0, 0), dtype=np.float32)


def _each(decode: Callable[[Any], _T], values: Mapping[int, Any], faults: dict[int, Fault]) -> dict[int, _T]:
    """Decode values by their positions; those that cannot be decoded are entered into faults instead."""
    decoded = {}
    for i, value in values.items():
        try:
            decoded[i] = decode(value)
        except Undecodable as error:
            faults[i] = Fault(error.reason, error.detail)
    return decoded


def _alike(payloads: Mapping[int, Any]) -> Mapping[int, bytes]:
    """Return the payloads that are bytes and as long as most of those, if a feature may be that long."""
    if set(map(type, payloads.values())) != {bytes}:
        payloads = {i: payload for i, payload in payloads.items() if type(payload) is bytes}
    lengths = Counter(map(len, payloads.values()))
    length = max(lengths, key=lengths.__getitem__, default=0)
    if not 0 < length <= MAX_BYTES:
        return {}
    if len(lengths) > 1:
        return {i: payload for i, payload in payloads.items() if len(payload) == length}
    return payloads


def _in_order(count: int, rows: list[int], block: Floats, single: Mapping[int, Floats]) -> Vectors:
    """Put into their order the features decoded at once and one by one."""
    if rows and not single:
        spread = np.zeros((count, block.shape[1]), dtype=np.float32)
        spread[rows] = block
        return spread
    features: list[Floats | None] = [None] * count
    for i, feature in chain(zip(rows, block, strict=True), single.items()):
        features[i] = feature
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
