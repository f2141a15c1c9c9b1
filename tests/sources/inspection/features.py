"""Columns of features, real and made up, in every encoding."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pfstore.features import Floats
from pfstore.synthetic import Population
from tests.conftest import REALDATA

Writer: TypeAlias = Callable[[Floats], Any]
ROWS = 150
"""In a column."""


def _unit(features: NDArray[np.floating]) -> Floats:
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), dtype=np.float32)


def _synthetic(dimension: int) -> Floats:
    people = Population(subjects=40, dimension=dimension, features_per_subject=12, dtype="float16")
    return np.concatenate([faces.features for faces in people.faces()]).astype(np.float32)[:ROWS]


def _real(name: str, dimension: int) -> Floats:
    """Return real features where they are beside the project, else made-up ones of the same type."""
    path = REALDATA / name
    if not path.exists():
        return _synthetic(dimension)
    with np.load(path) as data:
        features = data["features"]
    step = len(features) // ROWS
    return np.ascontiguousarray(features[::step][:ROWS, :dimension], dtype=np.float32)


def _dlib(random: np.random.Generator) -> Floats:
    """As dlib's: 128 values about a mean that all people share, norm 1.4."""
    mean = random.standard_normal(128) * 1.28
    drawn = mean + random.standard_normal((ROWS, 128)) * 0.55
    return _unit(drawn) * random.normal(1.4, 0.03, (ROWS, 1)).astype(np.float32)


def _rectified(random: np.random.Generator, dimension: int) -> Floats:
    drawn = random.standard_normal((ROWS, dimension)) - random.random(dimension)
    return np.maximum(drawn, 0).astype(np.float32)


def _in_all_digits(features: Floats) -> Floats:
    """Fill the digits that a cast from float16 left zero, so that all bits of a float32 tell something."""
    random = np.random.default_rng(7)
    return (features * (1 + random.uniform(-2e-4, 2e-4, features.shape))).astype(np.float32)


@cache
def features() -> Mapping[str, Floats]:
    """[ROWS, D] features by what they are."""
    random = np.random.default_rng(3)
    arcface, mobileface = _real("lfw_arcface.npz", 512), _real("lfw_mobileface.npz", 256)
    return {
        "arcface-512": _in_all_digits(arcface),
        "arcface-512-halves": arcface,
        "arcface-512-unit": _unit(arcface),
        "arcface-128": np.ascontiguousarray(_in_all_digits(arcface)[:, :128]),
        "arcface-64-unit": _unit(_in_all_digits(arcface)[:, 64:128]),
        "arcface-500": np.ascontiguousarray(_in_all_digits(arcface)[:, 12:]),
        "mobileface-256": _in_all_digits(mobileface),
        "mobileface-256-halves": mobileface,
        "mobileface-192": np.ascontiguousarray(_in_all_digits(mobileface)[:, :192]),
        "synthetic-1024": _synthetic(1024),
        "synthetic-4096-unit": _unit(_synthetic(4096)),
        "dlib-128": _dlib(random),
        "vgg-2622": _rectified(random, 2622),
        "rectified-2048-unit": _unit(_rectified(random, 2048)),
    }


def _bytes(dtype: str) -> Writer:
    return lambda feature: feature.astype(dtype).tobytes()


def _after(header: bytes, dtype: str) -> Writer:
    return lambda feature: header + feature.astype(dtype).tobytes()


def _text(numbers: Floats, form: str = "%.8g") -> list[str]:
    return [form % number for number in numbers.tolist()]


def _npy(feature: Floats) -> bytes:
    stream = io.BytesIO()
    np.save(stream, feature)
    return stream.getvalue()


def _qcompress(feature: Floats) -> bytes:
    data = feature.astype("<f4").tobytes()
    return struct.pack(">I", len(data)) + zlib.compress(data)


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def message(field: int, dtype: str) -> Writer:
    """Write a protobuf message: the feature packed, after an integer and a text, before another integer."""

    def write(feature: Floats) -> bytes:
        data = feature.astype(dtype).tobytes()
        before = b"\xf0\x01\x05" + b"\xfa\x01\x04name"  # fields 30 and 31
        return before + varint(field << 3 | 2) + varint(len(data)) + data + b"\xf0\x01\x07"

    return write


def _header(feature: Floats) -> bytes:
    """A size, a version, a quality and a check sum, each of four bytes."""
    data = feature.astype("<f4").tobytes()
    quality = float(abs(feature[0]) % 1)
    return struct.pack("<IIfI", len(feature), 3, quality, zlib.crc32(data)) + data


WRITTEN: Mapping[str, tuple[str, Writer]] = {
    "float16-le": ("float16-le", _bytes("<f2")),
    "float16-be": ("float16-be", _bytes(">f2")),
    "float32-le": ("float32-le", _bytes("<f4")),
    "float32-be": ("float32-be", _bytes(">f4")),
    "float64-le": ("float64-le", _bytes("<f8")),
    "float64-be": ("float64-be", _bytes(">f8")),
    "float32 in a memoryview": ("float32-le", lambda feature: memoryview(feature.astype("<f4").tobytes())),
    "float32 after its size": ("float32-le@4", lambda f: struct.pack("<I", len(f)) + f.astype("<f4").tobytes()),
    "float32-be after its size": ("float32-be@4", lambda f: struct.pack(">I", len(f)) + f.astype(">f4").tobytes()),
    "float32 after magic and size": ("float32-le@8", lambda f: b"FEAT" + struct.pack("<I", len(f)) + f.tobytes()),
    "float32 after 16 bytes": ("float32-le@16", _header),
    "float32 after 20 bytes": ("float32-le@20", _after(b"\x00\x00\x00\x01" * 5, "<f4")),
    "float64 after 4 bytes": ("float64-le@4", _after(b"\x02\x00\x00\x00", "<f8")),
    "float64-be after 16 bytes": ("float64-be@16", _after(b"version 1.0\0\0\0\0\0", ">f8")),
    "float64 after 20 bytes": ("float64-le@20", _after(bytes(range(20)), "<f8")),
    "float16 after 8 bytes": ("float16-le@8", lambda f: struct.pack("<II", 1, len(f)) + f.astype("<f2").tobytes()),
    "float16-be after 4 bytes": ("float16-be@4", lambda f: struct.pack(">HH", len(f), 0) + f.astype(">f2").tobytes()),
    "a float[] of Java": (
        "float32-be@27",
        lambda f: (
            bytes.fromhex("aced0005757200025b460b9c818922e00c420200007870")
            + struct.pack(">I", len(f))
            + f.astype(">f4").tobytes()
        ),
    ),
    "hex of float64": ("hex+float64-le", lambda f: f.astype("<f8").tobytes().hex()),
    "HEX of float32": ("hex+float32-le", lambda f: f.astype("<f4").tobytes().hex().upper()),
    "0x of float32-be": ("hex+float32-be", lambda f: "0x" + f.astype(">f4").tobytes().hex()),
    "\\x of float32": ("hex+float32-le", lambda f: "\\x" + f.astype("<f4").tobytes().hex()),
    "hex of float16 in bytes": ("hex+float16-le", lambda f: f.astype("<f2").tobytes().hex().encode()),
    "base64 of float32": ("base64+float32-le", lambda f: base64.b64encode(f.astype("<f4").tobytes()).decode()),
    "base64 of float32-be": ("base64+float32-be", lambda f: base64.b64encode(f.astype(">f4").tobytes()).decode()),
    "base64 of float64": ("base64+float64-le", lambda f: base64.b64encode(f.astype("<f8").tobytes()).decode()),
    "base64 of float16, bytes": ("base64+float16-le", lambda f: base64.b64encode(f.astype("<f2").tobytes())),
    "base64 in lines": ("base64+float32-le", lambda f: base64.encodebytes(f.astype("<f4").tobytes()).decode()),
    "base64 after its size": (
        "base64+float32-le@4",
        lambda f: base64.b64encode(struct.pack("<I", len(f)) + f.astype("<f4").tobytes()).decode(),
    ),
    "base64 of zlib": ("base64+zlib+float32-le", lambda f: base64.b64encode(zlib.compress(f.tobytes())).decode()),
    "json": ("json", lambda f: json.dumps(f.tolist())),
    "json in bytes": ("json", lambda f: json.dumps(f.tolist(), separators=(",", ":")).encode()),
    "json of six decimals": ("json", lambda f: "[" + ", ".join(_text(f, "%.6f")) + "]"),
    "json, nested": ("json", lambda f: json.dumps([f.tolist()])),
    "json, nested, with null": ("json", lambda f: json.dumps([f.tolist(), None])),
    "json of strings": ("json", lambda f: json.dumps(_text(f))),
    "json of two lists": ("json:0", lambda f: json.dumps([f.tolist(), [1, 2, 3]])),
    "json at a path": ("json:embeddings", lambda f: json.dumps({"id": 5, "embeddings": _text(f)})),
    "json at a long path": (
        "json:data.vec",
        lambda f: json.dumps({"v": 1, "data": {"box": [1, 2], "vec": f.tolist()}}),
    ),
    "json in a list of objects": ("json:faces.0.vector", lambda f: json.dumps({"faces": [{"vector": f.tolist()}]})),
    "json, parsed": ("json:data.vec", lambda f: {"data": {"vec": f.tolist()}}),
    "json, parsed, nested": ("json", lambda f: [f.tolist()]),
    "pgvector": ("pgvector", lambda f: "[" + ",".join(_text(f)) + "]"),
    "pgvector, parsed": ("pgvector", lambda f: f),
    "array": ("array", lambda f: f.tolist()),
    "array in text": ("array", lambda f: "{" + ",".join(_text(f)) + "}"),
    "zlib": ("zlib+float32-le", lambda f: zlib.compress(f.astype("<f4").tobytes())),
    "zlib of float64": ("zlib+float64-le", lambda f: zlib.compress(f.astype("<f8").tobytes(), 9)),
    "zlib of json": ("zlib+json", lambda f: zlib.compress(json.dumps(f.tolist()).encode(), 1)),
    "qcompress": ("qcompress+float32-le", _qcompress),
    "protobuf of double": ("protobuf:1:double", message(1, "<f8")),
    "protobuf of float": ("protobuf:3:float", message(3, "<f4")),
    "protobuf of float, field 17": ("protobuf:17:float", message(17, "<f4")),
    "npy": ("npy", _npy),
    "npy of float64": ("npy", lambda f: _npy(f.astype(np.float64))),
}
"""How features are written: the encoding that must be found, and what writes one feature, [D] float32."""

PICKLED: Mapping[str, Writer] = {
    "array": pickle.dumps,
    "array, protocol 2": lambda f: pickle.dumps(f.astype(np.float64), 2),
    "array, protocol 0": lambda f: pickle.dumps(f, 0),
    "list": lambda f: pickle.dumps(f.tolist()),
}


def column(kind: str, written: str) -> list[Any]:
    """Return a column of these features, so written."""
    write = WRITTEN[written][1]
    return [write(feature) for feature in features()[kind]]
