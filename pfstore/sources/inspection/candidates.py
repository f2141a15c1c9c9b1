"""Which encodings are worth trying on a column, told from the length and the beginning of a few of its values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any

import numpy as np
import orjson

from pfstore.sources.encodings import Undecodable, parse_encoding, raw
from pfstore.sources.encodings.values import MAX_BYTES
from pfstore.sources.encodings.wrappers import WRAPPERS

SHORTEST, LONGEST = 32, 8192
"""The dimensions that a face feature may have."""

OFFSETS = (0, 1, 2, 4, 8, 12, 16, 20, 24, 27, 32)
"""Bytes of the headers that are looked for before raw numbers; 27 are Java's before a float[] or double[]."""

_PICKLES = (*(b"\x80%c" % protocol for protocol in range(2, 6)), b"cnumpy", b"(lp", b"]q")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_HEX = re.compile(r"(?:0[xX]|\\x)?(?:[0-9a-fA-F]{2})+")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}")
_MOST_WRAPPERS = 2
_FIELDS = range(1, 32)
_DEPTH, _KEYS, _PATHS = 5, 64, 8  # how far into JSON is looked, and what is tried of it


def candidates(values: Sequence[Any]) -> list[str]:
    """Return the encodings that some of these values may be in, of equals the plainer one first."""
    return list(dict.fromkeys(_encodings(values, 0)))


def could_hold_numbers(value: Any) -> bool:
    """Whether a value is of a kind and a length that SHORTEST numbers need; a short placeholder is not."""
    if isinstance(value, dict):
        return True
    if isinstance(value, list | tuple | np.ndarray):
        return len(value) >= SHORTEST or any(isinstance(item, list | dict) for item in value)
    return isinstance(value, str | bytes | bytearray | memoryview) and SHORTEST <= len(value) <= MAX_BYTES


def _encodings(values: Sequence[Any], wrappers: int) -> Iterator[str]:
    parsed: list[Any] = []
    texts: list[str] = []
    blobs: list[bytes] = []
    for value in values:
        if isinstance(value, list | tuple | dict | np.ndarray):
            parsed.append(value)
        elif (text := _text(value)) is not None:
            texts.append(text)
        else:
            blobs.append(bytes(value))
    enough = max(1, len(values) // 4)
    if len(parsed) >= enough:
        yield from _of_parsed(parsed)
    if len(texts) >= enough:
        yield from _of_texts(texts, wrappers)
    if len(blobs) >= enough:
        yield from _of_blobs(blobs, wrappers)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    data = bytes(value)
    try:
        return None if _CONTROL.search(data) else data.decode()
    except UnicodeDecodeError:
        return None


def _of_parsed(values: Sequence[Any]) -> Iterator[str]:
    if any(isinstance(value, np.ndarray) for value in values):
        yield from ("pgvector", "array")
        return
    if any(_is_numbers(value) for value in values):
        yield "array"
    yield from _paths(values)
    if any(_is_numbers(value) for value in values):
        yield "pgvector"


def _of_texts(texts: Sequence[str], wrappers: int) -> Iterator[str]:
    yield from _paths([document for text in texts if (document := _json(text)) is not None])
    if any(text.startswith("[") for text in texts):
        yield "pgvector"
    if any(text.lstrip().startswith("{") and _json(text) is None for text in texts):
        yield "array"
    in_hex = [text for text in texts if _HEX.fullmatch(text)]
    # Hexadecimal digits are letters of base64, too, but only a placeholder's base64 has no others.
    if 2 * len(in_hex) > len(texts):
        yield from _inside("hex", in_hex, wrappers)
    else:
        yield from _inside("base64", [text for text in texts if _BASE64.fullmatch(text.strip())], wrappers)


def _of_blobs(blobs: Sequence[bytes], wrappers: int) -> Iterator[str]:
    if any(blob.startswith(b"\x93NUMPY") for blob in blobs):
        yield "npy"
    if any(blob.startswith(_PICKLES) and blob.endswith(b".") for blob in blobs):
        yield "pickle"
    in_zlib = [blob for blob in blobs if _is_zlib(blob)]
    in_qt = [blob for blob in blobs if _is_zlib(blob[4:])]
    yield from _inside("zlib", in_zlib, wrappers)
    yield from _inside("qcompress", in_qt, wrappers)
    if len(in_zlib) + len(in_qt) < len(blobs):
        yield from _protobuf(blobs[:8])
        yield from _raw(blobs)


def _inside(wrapper: str, values: Sequence[Any], wrappers: int) -> Iterator[str]:
    if wrappers == _MOST_WRAPPERS:
        return
    unpacked = []
    for value in values:
        try:
            unpacked.append(WRAPPERS[wrapper](value))
        except Undecodable:
            continue
    kept = [value for value in unpacked if could_hold_numbers(value)]
    for encoding in _encodings(kept, wrappers + 1) if kept else ():
        yield f"{wrapper}+{encoding}"


def _is_zlib(data: bytes) -> bool:
    return len(data) > 2 and data[0] == 0x78 and int.from_bytes(data[:2], "big") % 31 == 0


def _protobuf(blobs: Sequence[bytes]) -> Iterator[str]:
    for field in _FIELDS:
        for kind in ("double", "float"):
            encoding = f"protobuf:{field}:{kind}"
            if any(_dimension(encoding, blob) >= SHORTEST for blob in blobs):
                yield encoding


def _dimension(encoding: str, value: Any) -> int:
    try:
        return len(parse_encoding(encoding).decode(value))
    except Undecodable:
        return 0


def _raw(blobs: Sequence[bytes]) -> Iterator[str]:
    lengths = [length for length, _ in Counter(map(len, blobs)).most_common(3)]
    for offset in OFFSETS:
        for name in raw.NAMES:
            size = int(name[5:7]) // 8
            if any((length - offset) % size == 0 and _plausible((length - offset) // size) for length in lengths):
                yield f"{name}@{offset}" if offset else name


def _plausible(dimension: int) -> bool:
    return SHORTEST <= dimension <= LONGEST


def _json(text: str) -> Any:
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _paths(documents: Sequence[Any]) -> Iterator[str]:
    counts = Counter(path for document in documents for path in dict.fromkeys(_lists(document, (), _DEPTH)))
    for path, _ in counts.most_common(_PATHS):
        yield "json:" + ".".join(path) if path else "json"


def _lists(found: Any, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, ...]]:
    """Yield the paths to lists of numbers that the encoding json can name; it sees through a list of one list."""
    if _is_numbers(found):
        yield path
    elif depth == 0:
        return
    elif isinstance(found, list) and _holds_one_list(found):
        yield from _lists(next(item for item in found if item is not None), path, depth - 1)
    elif isinstance(found, list | dict):
        inner = found.items() if isinstance(found, dict) else enumerate(found[:2])
        for key, item in islice(inner, _KEYS):
            # Dots are what separates the steps of a path.
            if (step := str(key)) and "." not in step:
                yield from _lists(item, (*path, step), depth - 1)


def _holds_one_list(found: list[Any]) -> bool:
    there = [item for item in found if item is not None]
    return len(there) == 1 and isinstance(there[0], list)


def _is_numbers(found: Any) -> bool:
    if not isinstance(found, list | tuple) or len(found) < SHORTEST:
        return False
    return all(_is_number(item) for item in found[:8])


def _is_number(item: Any) -> bool:
    if isinstance(item, str):
        try:
            float(item)
        except ValueError:
            return False
        return True
    return isinstance(item, int | float | Decimal | np.number) and not isinstance(item, bool)
