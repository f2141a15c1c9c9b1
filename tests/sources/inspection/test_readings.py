"""Features are found in every encoding, for what they are, and nothing else is taken for features."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from pfstore.sources.encodings import parse_encoding
from pfstore.sources.inspection.readings import FITS, Reading, readings
from tests.sources.inspection import others
from tests.sources.inspection.features import PICKLED, WRITTEN, column, features

ARCFACE = "arcface-512"
KINDS = sorted(features())
LISTS = {"json", "pgvector", "array"}
"""Readings of a list in text or from a driver, which only the column's type can tell apart."""


def fitting(values: list[Any], **options: Any) -> list[Reading]:
    return [reading for reading in readings(values, **options) if reading.fits]


def assert_found(values: list[Any], encoding: str, dimension: int) -> Reading:
    found = {reading.encoding: reading for reading in fitting(values)}
    assert encoding in found
    wrappers, _, leaf = encoding.rpartition("+")
    alike = {f"{wrappers}+{one}" if wrappers else one for one in LISTS} if leaf in LISTS else {encoding}
    assert set(found) <= alike
    assert found[encoding].dimension == dimension
    return found[encoding]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("kind", [ARCFACE, "dlib-128"])
def test_features_are_found_however_they_are_written(kind: str, written: str) -> None:
    reading = assert_found(column(kind, written), WRITTEN[written][0], features()[kind].shape[1])
    assert reading.score > 0.95
    assert reading.against == []


@pytest.mark.parametrize("written", ["float32-be", "hex of float64", "json"])
@pytest.mark.parametrize("kind", KINDS)
def test_features_of_all_kinds_are_found(kind: str, written: str) -> None:
    reading = assert_found(column(kind, written), WRITTEN[written][0], features()[kind].shape[1])
    norms = np.linalg.norm(features()[kind].astype(np.float64), axis=1)
    np.testing.assert_allclose(reading.norms, np.percentile(norms, (5, 50, 95)), rtol=1e-5)


@pytest.mark.parametrize("name", others.OTHERS)
def test_nothing_else_is_taken_for_features(name: str) -> None:
    found = readings(others.column(name))
    assert [reading.encoding for reading in found if reading.fits] == []
    assert all(reading.against for reading in found)


@pytest.mark.parametrize("rows", [8, 1000])
def test_random_bytes_of_any_length_are_no_features(rows: int) -> None:
    random = np.random.default_rng(rows)
    for length in range(64, 4096, 212):
        assert fitting([random.bytes(length) for _ in range(rows)]) == []


def test_what_is_proposed_is_what_a_backfill_reads() -> None:
    values = column(ARCFACE, "base64 after its size")
    best = readings(values)[0]
    decoded = parse_encoding(best.encoding).decode_many(values)
    np.testing.assert_array_equal(np.array(decoded.features), features()[ARCFACE])


def test_the_evidence_is_for_people() -> None:
    best, *rest = readings(column(ARCFACE, "base64 after its size"))
    assert best.evidence.startswith("512 float32 little-endian after 4 bytes in base64, norms 1")
    assert best.evidence.endswith(" % negative")
    swapped = next(one for one in rest if one.encoding == "base64+float32-be@4")
    assert "powers of two" in swapped.against[0] or "not finite" in swapped.against[0]
    assert sorted(rest, key=lambda one: -one.score) == rest


DAMAGE: dict[str, Callable[[Any, int], Any]] = {
    "most are NULL": lambda value, row: value if row % 3 == 0 else None,
    "most are empty": lambda value, row: value if row % 3 == 0 else type(value)(),
    "some are cut off": lambda value, row: value[: len(value) * 2 // 3] if row % 6 == 0 else value,
    "some are something else": lambda value, row: type(value)(value[:1] * 77) if row % 8 == 0 else value,
}


@pytest.mark.parametrize("written", ["float32-le", "hex of float64", "json", "base64 of zlib"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", [ARCFACE, "vgg-2622"])
def test_damaged_columns_are_read(kind: str, damage: str, written: str) -> None:
    values = [DAMAGE[damage](value, row) for row, value in enumerate(column(kind, written))]
    reading = assert_found(values, WRITTEN[written][0], features()[kind].shape[1])
    assert reading.decoded + reading.empty + reading.undecodable == len(values)
    assert reading.empty == sum(value is None or len(value) == 0 for value in values)


@pytest.mark.parametrize("written", ["float32-le", "json"])
def test_where_most_is_damaged_nothing_is_believed(written: str) -> None:
    values = column(ARCFACE, written)
    cut = [value if row % 2 else value[:-1] for row, value in enumerate(values)]
    reading = next(one for one in readings(cut) if one.encoding == WRITTEN[written][0])
    assert reading.against == ["75 of 150 values do not decode"]
    assert not reading.fits


def test_where_most_is_not_finite_nothing_is_believed() -> None:
    rows = features()[ARCFACE].copy()
    rows[::2, 100] = np.nan
    found = {one.encoding: one for one in readings([row.tobytes() for row in rows])}
    assert found["float32-le"].against == ["75 of 150 rows hold numbers that are not finite"]


@pytest.mark.parametrize("written", ["float32-le", "base64 of float32", "hex of float64", "json", "zlib", "array"])
def test_placeholders_are_no_evidence(written: str) -> None:
    write = WRITTEN[written][1]
    zeros = write(np.zeros(512, dtype=np.float32))
    values = [value if row % 10 == 0 else zeros for row, value in enumerate(column(ARCFACE, written))]
    assert_found(values, WRITTEN[written][0], 512)


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("rows", [1, 5])
def test_few_rows_are_enough(written: str, rows: int) -> None:
    assert_found(column("arcface-500", written)[:rows], WRITTEN[written][0], 500)


@pytest.mark.parametrize("written", ["float32-le", "float16-be", "json", "array", "float32 after its size"])
def test_two_dimensions_in_one_column(written: str) -> None:
    write = WRITTEN[written][1]
    values = [write(row if i % 3 else row[:128]) for i, row in enumerate(features()[ARCFACE])]
    reading = assert_found(values, WRITTEN[written][0], 512)
    assert reading.dimensions == {512: 100, 128: 50}
    assert "512" in reading.evidence
    assert "in other rows 128" in reading.evidence


def test_lists_that_are_now_one_and_now_two() -> None:
    vectors = features()[ARCFACE].tolist()
    values = [json.dumps([vector] if row % 2 else [vector, vector]) for row, vector in enumerate(vectors)]
    assert [reading.encoding for reading in fitting(values)] == ["json:0"]


def test_decimals_of_a_driver_are_numbers() -> None:
    values = [[Decimal(f"{number:.6f}") for number in vector.tolist()] for vector in features()["dlib-128"]]
    assert_found(values, "array", 128)


def test_a_known_dimension_tells_a_header_from_numbers() -> None:
    random = np.random.default_rng(1)
    quality = random.normal(0, 1, (150, 4)).astype(np.float32)
    values = [head.tobytes() + row.tobytes() for head, row in zip(quality, features()[ARCFACE], strict=True)]
    assert_found(values, "float32-le@16", 512)


def test_what_follows_a_feature_speaks_against_it() -> None:
    values = [value + bytes([row, 0, 0, 0]) for row, value in enumerate(column(ARCFACE, "float32-le"))]
    found = readings(values)
    assert not any(reading.fits for reading in found)
    assert any("something comes after the feature" in reason for one in found for reason in one.against)


def test_every_bit_of_another_width_is_told() -> None:
    for narrow in (np.float16, np.float32):
        wide = features()[ARCFACE].astype(narrow).astype(np.float64)
        found = {one.encoding: one for one in readings([row.tobytes() for row in wide])}
        assert found["float64-le"].fits
        assert found["float32-le"].dimension == 1024
        assert not found["float32-le"].fits


@pytest.mark.parametrize("pickled", PICKLED)
def test_pickles_stay_closed_unless_asked_for(pickled: str) -> None:
    values = [PICKLED[pickled](row) for row in features()[ARCFACE]]
    assert fitting(values) == []
    closed = next(one for one in readings(values) if one.encoding == "pickle")
    assert closed.decoded == 0
    assert math.isnan(closed.norms[0])
    assert closed.against == ["a pickle, which is not opened unless allow_pickle = true"]
    assert [one.encoding for one in fitting(values, allow_pickle=True)] == ["pickle"]


@pytest.mark.parametrize(
    "values", [[], [None] * 9, [""], [b""], [{}], [[]], ["[]"] * 40, [[[]]], [["a"] * 40], [b"a" * 40]]
)
def test_nothing_is_no_feature(values: list[Any]) -> None:
    assert fitting(values) == []


@pytest.mark.parametrize(
    "value",
    [
        "[" * 5000 + "]" * 5000,
        '{"a":' * 900 + "1" + "}" * 900,
        "A" * (1 << 21),
        " " * 200_000 + "!",
        "AAAA" * 50_000 + "!",
        b"\x78\x9c" + b"\0" * 5000,
        b"\x80\x04" + b"." * 5000,
        b"\x93NUMPY" + b"\xff" * 5000,
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\x01" * 5000,
        "\ud800" * 100,
        "١" * 512,
    ],
    ids=lambda value: f"{type(value).__name__}-{len(value)}-{value[:2]!r}",
)
def test_hostile_values_end_soon(value: Any) -> None:
    started = time.monotonic()
    assert fitting([value] * 50, allow_pickle=True) == []
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("written", ["float32-le", "hex of float64", "base64 of zlib", "json of strings"])
def test_a_thousand_rows_take_a_second_or_so(written: str) -> None:
    values = column(ARCFACE, written) * 7
    started = time.process_time()
    assert readings(values)[0].score >= FITS
    assert time.process_time() - started < 3
