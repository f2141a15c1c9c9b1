"""Decoding pages of features against the loops that everybody writes first, and against only copying the bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from bench.harness import Result, medians
from pfstore.sources.encodings import Encoding, parse_encoding
from pfstore.sources.encodings.raw import sent

DIMENSION, PAGE = 512, 1024

Peers: TypeAlias = Mapping[str, tuple[Callable[[Sequence[Any]], object], Sequence[Any]]]
"""What does a page of values, and all its values, by name; the first is the yardstick."""


def run(*, big: bool) -> list[Result]:
    """Decode features of 512 numbers, page after page, in the ways that stores write them."""
    rows = 16 * PAGE if big else 2 * PAGE
    features = np.random.default_rng(0).normal(size=(rows, DIMENSION)) / DIMENSION**0.5
    singles = features.astype(np.float32)
    # numpy writes a float32 as pgvector does: with no more digits than tell it from all others.
    shortest = [f"[{','.join(map(str, row))}]" for row in singles]
    return [
        *_texts("doubles", [json.dumps(row) for row in features.tolist()], features.tolist()),
        *_texts("float32", shortest, singles.tolist()),
        *_wrapped(singles),
        *_raw(features),
        *_sent(singles),
    ]


def _texts(kind: str, texts: list[str], lists: list[list[float]]) -> list[Result]:
    """Texts and lists against parsing the same numbers from JSON row by row."""
    peers: Peers = {
        "json.loads by row": (partial(_by_row, lambda text: np.asarray(json.loads(text), dtype=np.float32)), texts),
        "orjson.loads by row": (partial(_by_row, lambda text: np.asarray(orjson.loads(text), dtype=np.float32)), texts),
    }
    arrays = [f"{{{text[1:-1]}}}" for text in texts]
    return [
        _compare(f"JSON of {kind}", parse_encoding("json"), texts, peers),
        _compare(f"pgvector text of {kind}", parse_encoding("pgvector"), texts, peers),
        _compare(f"PostgreSQL array text of {kind}", parse_encoding("array"), arrays, peers),
        _compare(f"lists of {kind}", parse_encoding("array"), lists, peers),
    ]


def _wrapped(singles: NDArray[np.float32]) -> list[Result]:
    """Hexadecimal and base64 text against unpacking it row by row."""
    in_hex = [row.tobytes().hex() for row in singles]
    in_base64 = [base64.b64encode(row.tobytes()).decode() for row in singles]
    unhex = partial(_by_row, lambda text: np.frombuffer(bytes.fromhex(text), np.float32))
    unbase64 = partial(_by_row, lambda text: np.frombuffer(base64.b64decode(text, validate=True), np.float32))
    return [
        _compare("hex", parse_encoding("hex+float32-le"), in_hex, {"bytes.fromhex by row": (unhex, in_hex)}),
        _compare("base64", parse_encoding("base64+float32-le"), in_base64, {"b64decode by row": (unbase64, in_base64)}),
    ]


def _raw(features: NDArray[np.float64]) -> list[Result]:
    """Raw numbers against copying their bytes."""
    results = []
    for name, dtype in (("float32-le", "<f4"), ("float32-be", ">f4"), ("float64-le", "<f8"), ("float64-be", ">f8")):
        values = [row.tobytes() for row in features.astype(dtype)]
        results.append(_compare(name, parse_encoding(name), values, _copies(values)))
    return results


def _sent(singles: NDArray[np.float32]) -> list[Result]:
    """What PostgreSQL sends for vectors and arrays against copying its bytes."""
    results = []
    vectors = [b"\2\0\0\0" + row.tobytes() for row in singles.astype(">f4")]
    results.append(_compare("vector as sent", Encoding("pgvector", sent("vector")), vectors, _copies(vectors)))
    for kind, number in (("_float4", ">f4"), ("_float8", ">f8")):
        entries = np.empty(singles.shape, dtype=[("length", ">i4"), ("value", number)])
        entries["length"], entries["value"] = np.dtype(number).itemsize, singles
        header = np.array([1, 0, 0, DIMENSION, 1], dtype=">i4").tobytes()
        arrays = [header + row.tobytes() for row in entries]
        results.append(_compare(f"{kind} as sent", Encoding("array", sent(kind)), arrays, _copies(arrays)))
    return results


def _copies(values: list[bytes]) -> Peers:
    return {
        "np.concatenate": (lambda page: np.concatenate([np.frombuffer(value, np.uint8) for value in page]), values),
        "bytes.join": (b"".join, values),
    }


def _compare(title: str, encoding: Encoding, values: Sequence[Any], peers: Peers) -> Result:
    spoiled = list(values)
    spoiled[::PAGE] = [None] * len(spoiled[::PAGE])
    spoiled[1::PAGE] = [value[:-1] for value in spoiled[1::PAGE]]
    contestants = {
        **peers,
        "pfstore": (encoding.decode_many, values),
        "pfstore, two bad rows a page": (encoding.decode_many, spoiled),
    }
    seconds = medians({name: partial(_paged, *contestant) for name, contestant in contestants.items()})
    return Result(f"decoding {title}", "rows", len(values), seconds, next(iter(peers)))


def _paged(decode: Callable[[Sequence[Any]], object], values: Sequence[Any]) -> None:
    for start in range(0, len(values), PAGE):
        decode(values[start : start + PAGE])


def _by_row(decode: Callable[[Any], object], values: Sequence[Any]) -> list[object]:
    return [decode(value) for value in values]
