"""Columns of legacy databases that are no features, though some are numbers, and some of as many bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import uuid
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from tests.sources.inspection import things
from tests.sources.inspection.things import Random

_EPOCH = datetime(2021, 5, 1)

OTHERS: Mapping[str, Callable[[Random], Any]] = {
    "JPEG pictures": lambda r: things.jpeg(r, int(r.integers(800, 4000))),
    "JPEG pictures of one size": lambda r: things.jpeg(r, 2048 - 14),
    "PNG pictures": things.png,
    "zip archives": lambda r: b"PK\x03\x04\x14\0\0\0\x08\0" + r.bytes(1014),
    "random bytes, 32": lambda r: r.bytes(32),
    "random bytes, 64": lambda r: r.bytes(64),
    "random bytes, 128": lambda r: r.bytes(128),
    "random bytes, 512": lambda r: r.bytes(512),
    "random bytes, 2048": lambda r: r.bytes(2048),
    "random bytes, 4096": lambda r: r.bytes(4096),
    "random bytes, any length": lambda r: r.bytes(int(r.integers(4000))),
    "encrypted, padded to 16": lambda r: r.bytes(16 * int(r.integers(30, 40))),
    "text in UTF-8": lambda r: things.sentence(r, things.ENGLISH, 512).encode(),
    "text of any length": lambda r: things.sentence(r, things.ENGLISH, int(r.integers(20, 900))),
    "Russian in UTF-8": lambda r: things.sentence(r, things.RUSSIAN, 256).encode(),
    "Russian in UTF-16": lambda r: things.sentence(r, things.RUSSIAN, 512).encode("utf-16-le"),
    "Russian in CP1251": lambda r: things.sentence(r, things.RUSSIAN, 512).encode("cp1251"),
    "English in UTF-16": lambda r: things.sentence(r, things.ENGLISH, 512).encode("utf-16-be"),
    "English in UTF-16, 256": lambda r: things.sentence(r, things.ENGLISH, 256).encode("utf-16-le"),
    "Chinese in UTF-16": lambda r: "".join(r.choice(list(things.CHINESE), 256).tolist()).encode("utf-16-le"),
    "Chinese in UTF-8": lambda r: "".join(r.choice(list(things.CHINESE), 256).tolist()).encode(),
    "Chinese in GBK": lambda r: "".join(r.choice(list(things.CHINESE), 256).tolist()).encode("gbk"),
    "SHA-256": lambda r: hashlib.sha256(r.bytes(8)).digest(),
    "SHA-256 in hex": lambda r: hashlib.sha256(r.bytes(8)).hexdigest(),
    "SHA-512": lambda r: hashlib.sha512(r.bytes(8)).digest(),
    "SHA-512 in hex": lambda r: hashlib.sha512(r.bytes(8)).hexdigest(),
    "SHA-512 in base64": lambda r: base64.b64encode(hashlib.sha512(r.bytes(8)).digest()).decode(),
    "bcrypt": lambda r: "$2b$12$" + base64.b64encode(r.bytes(39)).decode().replace("+", "."),
    "PBKDF2": lambda r: f"pbkdf2:sha256:600000${r.bytes(8).hex()}${r.bytes(32).hex()}",
    "session tokens": lambda r: base64.urlsafe_b64encode(r.bytes(96)).decode(),
    "RSA keys in base64": lambda r: base64.b64encode(b"\x30\x82\x01\x22" + r.bytes(290)).decode(),
    "UUIDs": lambda r: str(uuid.UUID(bytes=r.bytes(16))),
    "UUIDs as objects": lambda r: uuid.UUID(bytes=r.bytes(16)),
    "times": lambda r: _EPOCH + timedelta(seconds=int(r.integers(100_000_000))),
    "whole numbers": lambda r: int(r.integers(1_000_000_000)),
    "numbers": lambda r: float(r.normal()),
    "baskets in JSON": lambda r: json.dumps(things.basket(r)),
    "baskets, parsed": things.basket,
    "addresses in JSON": lambda r: json.dumps(
        {
            "street": things.sentence(r, things.ENGLISH, 20),
            "no": int(r.integers(99)),
            "geo": r.normal(50, 1, 2).tolist(),
        }
    ),
    "points in JSON": lambda r: json.dumps({"type": "Point", "coordinates": r.uniform(-90, 90, 2).tolist()}),
    "lines in JSON": lambda r: json.dumps(
        {"type": "LineString", "coordinates": (50 + np.cumsum(r.normal(0, 1e-3, (80, 2)), axis=0)).tolist()}
    ),
    "boxes in JSON": lambda r: json.dumps(r.random(4).tolist()),
    "68 landmarks": lambda r: json.dumps(things.landmarks(r).tolist()),
    "68 landmarks, flat": lambda r: json.dumps(things.landmarks(r).ravel().tolist()),
    "68 landmarks, flat, whole": lambda r: json.dumps(things.landmarks(r).ravel().astype(int).tolist()),
    "68 landmarks, centred": lambda r: json.dumps(
        (things.landmarks(r) - things.landmarks(r).mean(axis=0)).ravel().tolist()
    ),
    "68 landmarks, x then y": lambda r: json.dumps((things.landmarks(r) / 800 - 0.5).T.ravel().tolist()),
    "68 landmarks as float32": lambda r: (things.landmarks(r) / 400 - 1).astype("<f4").tobytes(),
    "478 landmarks in space": lambda r: json.dumps(
        np.concatenate([np.repeat(things.landmarks(r) / 800, 7, axis=0), r.normal(0, 0.05, (476, 1))], axis=1)
        .ravel()
        .tolist()
    ),
    "64 points and confidences": lambda r: (
        np.concatenate([things.landmarks(r)[:64], r.random((64, 1))], axis=1).ravel().tolist()
    ),
    "prices": lambda r: (r.integers(99, 99_999, 128) / 100).tolist(),
    "prices with days off": lambda r: (r.integers(0, 9999, 365) * (r.random(365) > 0.3) / 100).tolist(),
    "profits and losses": lambda r: np.round(r.normal(0, 300, 64), 2).tolist(),
    "averages": lambda r: r.uniform(3, 9, 128).tolist(),
    "a year of stock": lambda r: r.integers(0, 50, 365).tolist(),
    "a year of stock in JSON": lambda r: json.dumps(r.integers(0, 50, 365).tolist()),
    "128 whole changes": lambda r: json.dumps(r.integers(-50, 50, 128).tolist()),
    "colour histograms": lambda r: json.dumps(things.histogram(r).tolist()),
    "colour histograms, shares": lambda r: json.dumps((things.histogram(r) / 4000).tolist()),
    "colour histograms as float32": lambda r: (things.histogram(r) / 4000).astype("<f4").tobytes(),
    "shares of 64 topics": lambda r: (lambda x: (x / x.sum()).astype("<f4").tobytes())(r.gamma(0.2, size=64)),
    "shares of what was bought": lambda r: (lambda n: (n / n.sum()).tolist())(r.poisson(r.gamma(0.7, 8, 64))),
    "noise of any length": lambda r: r.normal(0, 1, int(r.integers(40, 400))).astype("<f4").tobytes(),
    "almost the same vector": lambda r: (
        (np.random.default_rng(5).normal(0, 1, 128) + r.normal(0, 0.01, 128)).astype("<f4").tobytes()
    ),
    "half of each vector the same": lambda r: (
        np.insert(r.normal(0, 1, 64), 32, np.random.default_rng(5).normal(0, 1, 64)).astype("<f4").tobytes()
    ),
    "solar power": things.solar_day,
    "prices of a share": lambda r: (100 + things.walk(r, 256)).tolist(),
    "a random walk": lambda r: things.walk(r, 256).astype("<f4").tobytes(),
    "acceleration": lambda r: (things.sound(r, 384) / 8000).astype("<f4").tobytes(),
    "acceleration in space": lambda r: (
        np.stack([things.sound(r, 128) / 8000 + b for b in (0, 0.5, 9.8)], axis=1).astype("<f4").tobytes()
    ),
    "sound of 16 bits": lambda r: things.sound(r, 512).astype("<i2").tobytes(),
    "quiet sound of 16 bits": lambda r: things.sound(r, 512, 60).astype("<i2").tobytes(),
    "sound of 16 bits, big-endian": lambda r: things.sound(r, 512).astype(">i2").tobytes(),
    "sound of 8 bits": lambda r: (128 + things.sound(r, 512) / 100).astype(np.uint8).tobytes(),
    "sound of float32": lambda r: (things.sound(r, 512) / 8000).astype("<f4").tobytes(),
    "grey pictures of 32 x 32": lambda r: (things.grey(r) * 255).astype(np.uint8).tobytes(),
    "dark pictures of 32 x 32": lambda r: (things.grey(r) * 40).astype(np.uint8).tobytes(),
    "grey pictures of float32": lambda r: things.grey(r).astype("<f4").tobytes(),
    "normalised pictures of float32": lambda r: ((things.grey(r) - 0.5) / 0.25).astype("<f4").tobytes(),
    "black and white": lambda r: np.packbits(things.grey(r, 64) > 0.5).tobytes(),
    "lines in WKB": lambda r: things.wkb(r, 64),
    "lines in EWKB, hex": lambda r: things.wkb(r, 40).hex(),
    "points in WKB": lambda r: things.wkb(r, 1),
    "a track of float64": lambda r: things.wkb(r, 64)[9:],
    "a track of float64 in the west": lambda r: (
        (np.array([-0.1, 51.5]) + np.cumsum(r.normal(0, 1e-2, (64, 2)), axis=0)).astype("<f8").tobytes()
    ),
    "int32 in bytes": lambda r: r.integers(-1000, 1000, 128).astype("<i4").tobytes(),
    "int64 in bytes": lambda r: r.integers(0, 1_000_000, 64).astype("<i8").tobytes(),
    "int8 in bytes": lambda r: r.normal(0, 30, 512).astype(np.int8).tobytes(),
    "uint8 in bytes": lambda r: r.integers(0, 256, 128).astype(np.uint8).tobytes(),
    "codes of ±1": lambda r: r.choice([-1.0, 1.0], 128).astype("<f4").tobytes(),
    "protobuf of orders": things.order,
    "base64 of JPEG": lambda r: base64.b64encode(things.jpeg(r, 1000)).decode(),
    "zlib of text": lambda r: zlib.compress(things.sentence(r, things.ENGLISH, 900).encode()),
    "zlib of JSON": lambda r: zlib.compress(json.dumps(things.basket(r)).encode()),
    "zlib of pictures": lambda r: zlib.compress((things.grey(r) * 255).astype(np.uint8).tobytes()),
    "gzip": lambda r: b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + r.bytes(1014),
    "one constant vector": lambda _: np.full(128, 0.25, dtype="<f4").tobytes(),
    "the same vector": lambda _: np.random.default_rng(5).normal(0, 1, 128).astype("<f4").tobytes(),
    "three vectors": lambda r: np.random.default_rng(r.integers(3)).normal(0, 1, 128).astype("<f4").tobytes(),
    "zeros": lambda _: bytes(2048),
    "one-hot": lambda r: things.one_hot(r, 128).astype("<f4").tobytes(),
    "one-hot in JSON": lambda r: json.dumps(things.one_hot(r, 64).tolist()),
    "almost one-hot": lambda r: (things.one_hot(r, 128) * float(r.random())).astype("<f4").tobytes(),
    "a matrix of rotation": lambda _: np.eye(4).ravel().tolist(),
    "words padded with zeros": lambda r: (
        things.sentence(r, things.ENGLISH, int(r.integers(50, 300))).encode().ljust(512, b"\0")
    ),
    "sound in A-law": lambda r: things.alaw(r, 512, 8000),
    "quiet sound in A-law": lambda r: things.alaw(r, 512, 100),
    "noise in A-law": lambda r: (
        (r.integers(0, 16, 512) | 0x50 | (r.integers(0, 2, 512) << 7)).astype(np.uint8).tobytes()
    ),
    "sound in mu-law": lambda r: (255 - (things.sound(r, 512) / 70)).astype(np.int64).astype(np.uint8).tobytes(),
    "iris codes": lambda r: np.packbits(np.repeat(r.integers(0, 2, 512), 4)).tobytes(),
    "finger minutiae": lambda r: (
        b"FMR\0 20\0"
        + b"".join(struct.pack(">HHBB", *r.integers(0, 500, 2), *r.integers(0, 200, 2)) for _ in range(40))
    ),
    "pictures in RGBA": lambda r: (
        np.dstack([things.grey(r, 16) * 255] * 3 + [np.full((16, 16), 255)]).astype(np.uint8).tobytes()
    ),
    "pictures in RGB565": lambda r: (things.grey(r, 32) * 31).astype("<u2").tobytes(),
    "bits of a Bloom filter": lambda r: np.packbits(r.random(2048) < 0.05).tobytes(),
    "records of a C struct": lambda r: np.array(
        [(i, *r.normal(0, 50, 2), 1_600_000_000 + i) for i in range(32)], dtype="<i4,<f4,<f4,<i4"
    ).tobytes(),
    "boxes, padded": lambda r: (
        np.concatenate([np.column_stack([r.uniform(0, 900, (12, 4)), r.random(12)]).ravel(), np.zeros(68)])
        .astype("<f4")
        .tobytes()
    ),
    "points in space": lambda r: (
        np.column_stack([r.uniform(-20, 20, (64, 2)), r.uniform(0, 3, 64)]).astype("<f4").tobytes()
    ),
    "points on the ground": lambda r: (
        np.column_stack([r.normal(0, 9, (128, 2)), r.normal(0, 1, 128)]).astype("<f4").tobytes()
    ),
    "quaternions": lambda r: (lambda q: (q / np.linalg.norm(q, axis=1, keepdims=True)).astype("<f4").tobytes())(
        np.column_stack([np.full(32, 2.0), r.normal(0, 0.4, (32, 3))])
    ),
    "likelihoods of 1000 classes": lambda r: (lambda e: (e / e.sum()).tolist())(np.exp(r.normal(0, 2, 1000))),
    "an ECG": lambda r: (
        (np.exp(-(((np.linspace(0, 4, 512) + r.random()) % 1 - 0.5) ** 2) / 0.01) + r.normal(0, 0.02, 512))
        .astype("<f4")
        .tobytes()
    ),
    "a spectrum": lambda r: np.abs(np.fft.rfft(things.sound(r, 512)))[:256].astype("<f4").tobytes(),
    "a spectrum in decibels": lambda r: (20 * np.log10(np.abs(np.fft.rfft(things.sound(r, 512)))[:256])).tolist(),
    "a complex spectrum": lambda r: np.fft.rfft(things.sound(r, 512))[:128].astype("<c8").tobytes(),
    "certificates": lambda r: "-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(r.bytes(600)).decode(),
    "numbers with commas": lambda r: ",".join(f"{x:.4f}" for x in r.normal(0, 1, 128)),
    "rows of a serialised PHP array": lambda r: 'a:3:{i:0;s:4:"name";i:1;d:' + str(r.normal()) + ";i:2;b:1;}",
    "times as float64": lambda r: (1.6e9 + np.cumsum(r.exponential(60, 64))).astype("<f8").tobytes(),
    "times as JSON": lambda r: json.dumps((1.6e9 + np.cumsum(r.exponential(60, 64))).tolist()),
    "features with a check sum behind": lambda r: (lambda d: d + struct.pack("<I", zlib.crc32(d)))(
        r.normal(0, 1, 512).astype("<f4").tobytes()
    ),
    "empty": lambda _: b"",
    "NULL": lambda _: None,
}
"""What must not be taken for features: by what it is, what makes one value."""


def column(name: str, rows: int = 150) -> list[Any]:
    """Return a column of something else than features."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return [OTHERS[name](random) for _ in range(rows)]
