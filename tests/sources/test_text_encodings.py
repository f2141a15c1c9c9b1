"""Text encodings: the fast way gives what the plain one does, a page what its values do, hostile text a fault."""

from __future__ import annotations

import base64
import json
import re
import struct
import tracemalloc
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfstore.features import Floats
from pfstore.sources.assembly import Fault
from pfstore.sources.base import Reason
from pfstore.sources.encodings import Encoding, Undecodable, parse_encoding

EDGES = ["0", "0.0", "-0", "-0.0", "-0e1", "1E5", "1e+5", "16777217", "9007199254740993", "7e-46", "1e-400", "1e39"]
EDGES += ["-1e39", "3.4028235677973366e38", "18446744073709551615", "18446744073709551616", "-9223372036854775809"]
ODDITIES = ["null", "NULL", "true", "false", "NaN", "-Infinity", "", "x", "{}", "[1]", '"1.5"', '"1]"', '""', "1,2"]
ODDITIES += ["1e400", "1" + "0" * 400, "01", "+1", ".5", "5.", "1_0", "1 2", "٣", "\ud800", "\0"]

written = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1, 1, width=32).map(lambda number: str(np.float32(number))),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(EDGES),
)
number_lists = st.lists(written, min_size=1, max_size=8)
commas = st.sampled_from([",", ", ", " ,\n"])


def as_float32(values: Sequence[Any]) -> Floats:
    with np.errstate(over="ignore"):
        return np.array([float(value) for value in values]).astype(np.float32)


def same_bits(feature: Floats, expected: Floats) -> bool:
    return feature.dtype == np.float32 and feature.tobytes() == expected.tobytes()


@given(number_lists, commas)
def test_json_numbers_are_rounded_as_python_rounds_them(items: list[str], comma: str) -> None:
    text = f"[{comma.join(items)}]"
    expected = as_float32(json.loads(text))
    for name, shape in (("json", "%s"), ("pgvector", "%s"), ("json", "[%s]"), ("json:a", '{"a":%s}')):
        assert same_bits(parse_encoding(name).decode(shape % text), expected)


@given(st.lists(written | st.sampled_from(["NaN", "Infinity", "1e400", "+1", ".5"]), min_size=1, max_size=8), commas)
def test_arrays_and_numeric_strings_are_read_as_float_reads_them(items: list[str], comma: str) -> None:
    expected = as_float32(items)
    assert same_bits(parse_encoding("array").decode(f"{{{comma.join(items)}}}"), expected)
    assert same_bits(parse_encoding("json").decode(json.dumps(items)), expected)


@given(st.lists(st.floats() | st.integers(-(2**70), 2**70) | st.floats(width=32).map(np.float32), min_size=1))
def test_lists_are_rounded_as_python_rounds_them(values: list[Any]) -> None:
    for name in ("json", "pgvector", "array"):
        np.testing.assert_array_equal(parse_encoding(name).decode(values), as_float32(values))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("array", "{1,true}"),
        ("array", "{false}"),
        ("array", '{"1",2}'),
        ("array", "{1],[2}"),
        ("json", '["true", "1"]'),
        ("json", '["1,2", "3"]'),
        ("json", '["1]", "[2"]'),
        ("json", '["1", ""]'),
    ],
)
def test_what_only_json_takes_for_numbers_is_refused(name: str, value: str) -> None:
    with pytest.raises(Undecodable, match="not all values are numbers"):
        parse_encoding(name).decode(value)


@pytest.mark.parametrize(
    ("name", "value"), [("array", "{-0,0,1}"), ("json", '["-0", "0", "1"]'), ("json", "[-0.0,0,1]")]
)
def test_the_sign_of_a_zero_is_kept(name: str, value: str) -> None:
    assert np.signbit(parse_encoding(name).decode(value)).tolist() == [True, False, False]


def outcome(encoding: Encoding, value: Any) -> Floats | Fault:
    try:
        return encoding.decode(value)
    except Undecodable as error:
        return Fault(error.reason, error.detail)


SHAPES = ["%s", "%s", " %s ", "[%s]", "[%s, null]", "[%s, [1]]", '{"a": %s}', "\ufeff%s", "%s\0"]


@st.composite
def stored(draw: st.DrawFn) -> Any:
    """What a column of text may hold, mostly a feature."""
    items = draw(st.lists(written | st.sampled_from(ODDITIES) if draw(st.booleans()) else written, max_size=6))
    inner = draw(commas).join(items)
    text = draw(st.sampled_from(SHAPES)) % draw(st.sampled_from(["[%s]", "{%s}"])) % inner
    text = text[: draw(st.sampled_from([None, None, -1]))]
    data = text.encode(errors="replace")
    return draw(st.sampled_from([text, data, memoryview(data), bytearray(data), zlib.compress(data), data.hex()]))


elements = st.floats() | st.integers() | st.sampled_from([None, True, "1.5", "x", b"1", [1.0], 10**400, np.ones(2)])
lists = st.lists(st.floats()) | st.lists(elements, max_size=4) | st.lists(st.lists(st.floats(), max_size=2), max_size=2)
values = stored() | lists | lists.map(tuple) | st.sampled_from([None, "", b"", 7, {"a": [1.0]}, "[" * 2000, {}])
NAMES = ["json", "json:a", "json:0", "pgvector", "array", "zlib+json", "hex+array"]


@given(st.sampled_from(NAMES), st.lists(values, max_size=6))
def test_a_page_decodes_as_its_values_do(name: str, page: list[Any]) -> None:
    encoding = parse_encoding(name)
    decoded = encoding.decode_many(page)
    assert len(decoded.features) == len(page)
    for i, value in enumerate(page):
        expected = outcome(encoding, value)
        assert decoded.faults.get(i) == (expected if isinstance(expected, Fault) else None)
        if not isinstance(expected, Fault):
            assert same_bits(np.asarray(decoded.features[i]), expected)


def nested(depth: int) -> list[Any]:
    inner: list[Any] = [1.0]
    for _ in range(depth):
        inner = [inner]
    return inner


def bomb(text: bytes) -> bytes:
    return zlib.compress(text * (1 << 24))


MILLION = ",".join(["1"] * 1_000_000)
HOSTILE: list[tuple[str, Any, str]] = [
    ("json", f"[{MILLION}]", "characters, more than"),
    ("zlib+json", zlib.compress(f"[{MILLION}]".encode()), "unpacks to more than"),
    ("json", f"[{MILLION[:1_000_001]}]", "500001 values, more than 16000"),
    ("array", f"{{{MILLION[:1_000_001]}}}", "500001 values, more than 16000"),
    ("array", f"{{{',' * 1_000_000}}}", "1000001 values, more than 16000"),
    ("json", [1.0] * 1_000_000, "1000000 values, more than 16000"),
    ("json", "[" * 100_000, "not JSON"),
    ("json", "[" * 100_000 + "]" * 100_000, "not JSON"),
    ("json", '{"a":' * 100_000, "not JSON"),
    ("pgvector", "[" * 100_000 + "]" * 100_000, "not JSON"),
    ("array", "{" * 100_000 + "}" * 100_000, "not all values are numbers"),
    ("array", nested(5_000), "not all values are numbers|dimensions"),
    ("pgvector", [np.ones(2), np.ones(2)], "2 dimensions"),
    ("json", "[" + "9" * 1_000_000 + "]", "not JSON"),
    ("zlib+json", bomb(b"[1,"), "unpacks to more than 1048576 bytes"),
    ("qcompress+json", struct.pack(">I", 1 << 24) + bomb(b"1"), "unpacks to more than 1048576 bytes"),
    ("zlib+zlib+json", zlib.compress(bomb(b"\0")), "unpacks to more than 1048576 bytes"),
    ("base64+zlib+json", base64.b64encode(bomb(b"\0")), "unpacks to more than 1048576 bytes"),
    ("hex+json", "5b" * (1 << 20), "2097152 characters, more than 1048576"),
    ("base64+json", b"WzFd" * (1 << 20), "4194304 bytes, more than 1048576"),
]


@pytest.mark.parametrize(("name", "value", "message"), HOSTILE, ids=[f"{i}-{row[0]}" for i, row in enumerate(HOSTILE)])
def test_hostile_text_is_a_fault_and_takes_little_memory(name: str, value: Any, message: str) -> None:
    encoding = parse_encoding(name)
    tracemalloc.start()
    try:
        decoded = encoding.decode_many([value, None])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoded.faults[0].reason is Reason.UNDECODABLE
    assert re.search(message, decoded.faults[0].detail)
    assert peak < 32 << 20


@pytest.mark.parametrize("depth", [1, 900, 1000, 1023, 5_000])
def test_a_list_in_lists_is_found_at_any_depth_that_json_has(depth: int) -> None:
    assert parse_encoding("json").decode(nested(depth)).tolist() == [1.0]
    if depth < 1024:
        assert parse_encoding("json").decode("[" * depth + "1" + "]" * depth).tolist() == [1.0]
