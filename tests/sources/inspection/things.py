"""What is in the columns of other systems: pictures, sound, texts, shapes, measurements."""

from __future__ import annotations

import struct
import zlib
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.sources.inspection.features import varint

Random: TypeAlias = np.random.Generator

ENGLISH = (
    "the face of a person seen at gate seven on monday morning was not known to anyone who works here in this house"
)
RUSSIAN = "лицо человека у седьмых ворот утром в понедельник никому из работающих здесь не было знакомо"
CHINESE = "星期一早上七号门的人脸没有人认识他在这里工作很久了可是今天没有带工作证所以不能进门请联系保安部门处理"


def jpeg(random: Random, size: int) -> bytes:
    """Bytes that begin, run and end like a JPEG picture."""
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + random.bytes(size) + b"\xff\xd9"


def png(random: Random, side: int = 24) -> bytes:
    """Return a real PNG picture of noise."""
    rows = b"".join(b"\0" + random.bytes(3 * side) for _ in range(side))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def sentence(random: Random, words: str, size: int) -> str:
    """Return so many letters of a text of these words."""
    return " ".join(random.choice(words.split(), size).tolist())[:size]


def grey(random: Random, side: int = 32) -> NDArray[np.float64]:
    """[side, side] in [0, 1]: a smooth picture with some noise."""
    x, y = np.meshgrid(*[np.linspace(0, 3, side)] * 2)
    phase = random.random(4) * 6
    wave = 0.5 + 0.25 * np.sin(x * phase[0] + phase[1]) + 0.2 * np.cos(y * phase[2] + phase[3])
    return np.asarray(np.clip(wave + random.normal(0, 0.02, wave.shape), 0, 1))


def sound(random: Random, size: int, height: float = 8000.0) -> NDArray[np.float64]:
    """[size] of four tones and some noise."""
    time = np.arange(size)[:, None] / 16_000
    tones = np.sin(2 * np.pi * random.uniform(80, 900, 4) * time + random.random(4) * 6).sum(axis=1)
    return np.asarray(tones * height / 4 + random.normal(0, height / 100, size))


def alaw(random: Random, size: int, height: float) -> bytes:
    """Sound in a byte each: the sign, a power of two and four bits, every other bit turned over."""
    values = np.clip(sound(random, size, height) / 16, -2000, 2000)
    segments = np.maximum(0, np.floor(np.log2(np.maximum(np.abs(values), 1))) - 3).astype(int)
    steps = (np.abs(values) / 2.0 ** np.maximum(1, segments)).astype(int) & 0x0F
    coded = (values > 0) * 0x80 | segments << 4 | steps
    return bytes((coded ^ 0x55).astype(np.uint8))


def landmarks(random: Random) -> NDArray[np.float64]:
    """[68, 2] pixels: the outline of a face somewhere in a picture."""
    angle = np.linspace(0, 4 * np.pi, 68)
    shape = np.stack([np.cos(angle), np.sin(angle)], axis=1) * random.uniform(40, 120)
    return random.uniform(200, 600, 2) + shape + random.normal(0, 2, (68, 2))


def basket(random: Random) -> dict[str, Any]:
    """Return what somebody wants to buy, with a list of numbers in it."""
    lines = [
        {
            "sku": f"A-{random.integers(9999)}",
            "quantity": int(random.integers(1, 9)),
            "price": float(random.integers(9999)) / 100,
        }
        for _ in range(random.integers(1, 60))
    ]
    return {"id": int(random.integers(1_000_000)), "lines": lines, "prices": [line["price"] for line in lines]}


def order(random: Random) -> bytes:
    """A protobuf message of an order: a number, a name, amounts packed as double, and counts packed."""
    name = sentence(random, ENGLISH, 60).encode()
    amounts = (np.sort(random.integers(1, 99_999, 40)) / 100).astype("<f8").tobytes()
    counts = random.integers(0, 100, 70).astype(np.uint8).tobytes()
    fields = [(2, name), (3, amounts), (4, counts)]
    packed = b"".join(varint(field << 3 | 2) + varint(len(data)) + data for field, data in fields)
    return b"\x08" + varint(int(random.integers(1_000_000))) + packed


def walk(random: Random, size: int) -> NDArray[np.float64]:
    """[size]: each a random step from the one before."""
    return np.cumsum(random.normal(0, 1, size))


def solar_day(random: Random) -> list[float]:
    """96 quarter hours of a solar plant: zero at night."""
    hours = np.linspace(0, 24, 96)
    power = np.sin((hours - 6) / 12 * np.pi) * random.uniform(2, 9) + random.normal(0, 0.1, 96)
    return [max(0.0, one) for one in power.tolist()]


def one_hot(random: Random, size: int) -> NDArray[np.float32]:
    """[size]: zeros and a one."""
    return np.asarray(np.eye(size, dtype=np.float32)[random.integers(size)])


def wkb(random: Random, points: int) -> bytes:
    """A line in well-known binary, about the same place."""
    line = np.array([13.4, 52.5]) + np.cumsum(random.normal(0, 1e-3, (points, 2)), axis=0)
    return struct.pack("<BII", 1, 2, points) + line.astype("<f8").tobytes()


def histogram(random: Random) -> NDArray[np.int64]:
    """[128] counts of 4000 grey values."""
    centre = random.uniform(20, 100)
    return np.histogram(random.normal(centre, 15, 4000), bins=128, range=(0, 128))[0]
