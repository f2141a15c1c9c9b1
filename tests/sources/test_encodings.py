"""Every encoding: what it reads, and how each kind of damage is answered."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pfstore.errors import ConfigError
from pfstore.sources.assembly import Fault
from pfstore.sources.base import Reason
from pfstore.sources.encodings import Encoding, Undecodable, parse_encoding
from pfstore.sources.encodings.raw import sent

VALUES = np.array([0.5, -1.25, 3.0, 1e-3], dtype=np.float16).astype(np.float64)


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def qcompress(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + zlib.compress(data)


def packed(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2, len(data)]) + data


def numbers_text(opening: str = "[", closing: str = "]") -> str:
    return opening + ",".join(map(repr, VALUES.tolist())) + closing


def as_type(dtype: str) -> bytes:
    return VALUES.astype(dtype).tobytes()


FLOAT32 = as_type("<f4")

GOOD: list[tuple[str, Any]] = [
    ("float16-le", as_type("<f2")),
    ("float16-be", as_type(">f2")),
    ("float32-le", FLOAT32),
    ("float32-be", as_type(">f4")),
    ("float64-le", as_type("<f8")),
    ("float64-be", as_type(">f8")),
    ("float32-le@16", b"h" * 16 + FLOAT32),
    ("float32-le@3", b"hdr" + FLOAT32),
    ("float32-le", bytearray(FLOAT32)),
    ("float32-le", memoryview(FLOAT32)),
    ("hex+float64-le", as_type("<f8").hex()),
    ("hex+float64-le", as_type("<f8").hex().upper().encode()),
    ("hex+float64-le", "\\x" + as_type("<f8").hex()),
    ("hex+float64-le", "0x" + as_type("<f8").hex()),
    ("base64+float32-le", base64.b64encode(FLOAT32)),
    ("base64+float32-le", base64.encodebytes(FLOAT32).decode()),
    ("base64+float32-le", base64.urlsafe_b64encode(FLOAT32).decode()),
    ("zlib+float32-le", zlib.compress(FLOAT32)),
    ("qcompress+float32-le", qcompress(FLOAT32)),
    ("base64+zlib+json", base64.b64encode(zlib.compress(numbers_text().encode()))),
    ("json", numbers_text()),
    ("json", numbers_text().encode()),
    ("json", memoryview(numbers_text().encode())),
    ("json", VALUES.tolist()),
    ("json", json.dumps([str(value) for value in VALUES])),
    ("json", f"[{numbers_text()}]"),
    ("json", f"[{numbers_text()}, null]"),
    ("json:0", f"[{numbers_text()}, [1, 2]]"),
    ("json:embeddings", json.dumps({"embeddings": [str(value) for value in VALUES]})),
    ("json:faces.0.vector", json.dumps({"faces": [{"vector": VALUES.tolist()}]})),
    ("json:a+b", json.dumps({"a+b": VALUES.tolist()})),
    ("pgvector", numbers_text()),
    ("pgvector", VALUES.tolist()),
    ("pgvector", VALUES.astype(np.float32)),
    ("array", numbers_text("{", "}")),
    ("array", VALUES.tolist()),
    ("array", tuple(VALUES.tolist())),
    ("protobuf:1:double", packed(1, as_type("<f8"))),
    ("protobuf:2:float", b"\x08\x96\x01" + packed(3, b"text") + packed(2, FLOAT32)),
    ("protobuf:2:float", packed(2, FLOAT32[:8]) + packed(2, FLOAT32[8:])),
    ("protobuf:1:float", b"".join(b"\x0d" + FLOAT32[i : i + 4] for i in range(0, 16, 4))),
    ("protobuf:1:double", b"".join(b"\x09" + as_type("<f8")[i : i + 8] for i in range(0, 32, 8))),
    ("npy", npy(VALUES)),
    ("npy", npy(VALUES.astype(">f4"))),
    ("npy", npy(VALUES.astype(np.float16)[np.newaxis])),
]


@pytest.mark.parametrize(("name", "value"), GOOD, ids=[f"{number}-{name}" for number, (name, _) in enumerate(GOOD)])
def test_an_encoding_gives_the_numbers(name: str, value: Any) -> None:
    feature = parse_encoding(name).decode(value)
    assert feature.dtype == np.float32
    assert feature.tolist() == VALUES.astype(np.float32).tolist()


@pytest.mark.parametrize("name", sorted({name for name, _ in GOOD}))
@pytest.mark.parametrize("value", [None, b"", "", [], bytearray(), memoryview(b"")])
def test_nothing_is_empty(name: str, value: Any) -> None:
    with pytest.raises(Undecodable) as error:
        parse_encoding(name).decode(value)
    assert error.value.reason is Reason.EMPTY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("float32-le@4", b"head"),
        ("zlib+float32-le", zlib.compress(b"")),
        ("qcompress+float32-le", qcompress(b"")),
        ("json", "[]"),
        ("json", "null"),
        ("json", "[[]]"),
        ("json:embeddings", '{"embeddings": null}'),
        ("json:embeddings", '{"embeddings": []}'),
        ("pgvector", "[]"),
        ("array", "{}"),
        ("protobuf:1:double", packed(2, b"text")),
        ("protobuf:1:double", packed(1, b"")),
        ("npy", npy(np.empty(0))),
    ],
)
def test_a_placeholder_is_empty(name: str, value: Any) -> None:
    with pytest.raises(Undecodable) as error:
        parse_encoding(name).decode(value)
    assert error.value.reason is Reason.EMPTY


BAD: list[tuple[str, Any, str]] = [
    ("float32-le", FLOAT32[:-1], "15 bytes are no multiple of 4"),
    ("float32-le@8", b"abc", "shorter than its offset"),
    ("float32-le", "abcd", "hex\\+ or base64\\+"),
    ("float32-le", 3.5, "float, not bytes"),
    ("float16-le", b"a" * 32_002, "16001 values, more than 16000"),
    ("float32-le", b"a" * (1 << 20) + b"abcd", "1048580 bytes, more than"),
    ("json", "[" * (1 << 20) + "1", "1048577 characters, more than"),
    ("json", [1.0] * 16_001, "16001 values"),
    ("hex+float32-le", "0g", "not hexadecimal"),
    ("hex+float32-le", "é", "not hexadecimal"),
    ("hex+float32-le", b"\xff", "not UTF-8"),
    ("base64+float32-le", "AAA", "not base64"),
    ("base64+float32-le", "é", "not base64"),
    ("zlib+float32-le", FLOAT32, "not zlib"),
    ("zlib+float32-le", zlib.compress(FLOAT32)[:-5], "cut off"),
    ("zlib+float32-le", zlib.compress(FLOAT32) + b"x", "1 bytes after"),
    ("zlib+float32-le", zlib.compress(b"\0" * (1 << 24)), "more than 1048576 bytes"),
    ("qcompress+float32-le", b"\0\0\0\1" + zlib.compress(FLOAT32), "unpacks to 16 bytes, not to the 1"),
    ("qcompress+float32-le", b"ab", "cut off"),
    ("json", "[1,", "not JSON"),
    ("json", b"\xff\xfe", "not JSON"),
    ("json", 7, "not JSON"),
    ("json", "7", "JSON int instead"),
    ("json", '{"a": [1]}', "JSON dict instead"),
    ("json", "[1, null]", "null among the values"),
    ("json", '[1, "a"]', "not all values are numbers"),
    ("json", "[1, {}]", "not all values are numbers"),
    ("json", "[1, [2]]", "2 lists|not all values"),
    ("json", "[[1, 2], [3, 4]]", "2 lists; choose one"),
    ("json", "[NaN]", "not JSON"),
    ("json", f"[1{'0' * 400}]", "not all values|not JSON"),
    ("json:embedding", '{"embeddings": [1]}', "without 'embedding'"),
    ("json:1", "[[1]]", "without '1'"),
    ("pgvector", "{1,2}", 'not like "\\[1,2\\]"'),
    ("pgvector", b"\xff", "not UTF-8"),
    ("array", "[1,2]", "not like .\\{1,2\\}"),
    ("array", "{1,NULL}", "not all values are numbers"),
    ("array", [1.0, None], "null among"),
    ("array", [[1.0, 2.0], [3.0, 4.0]], "2 dimensions"),
    ("array", "{{1,2},{3,4}}", "not all values are numbers"),
    ("protobuf:1:double", packed(1, FLOAT32[:12]), "field 1 is not of type double"),
    ("protobuf:1:float", b"\x08\x01", "field 1 is not of type float"),
    ("protobuf:1:double", b"\x0a\x20abc", "cut off"),
    ("protobuf:1:double", b"\x0b", "not a protobuf"),
    ("protobuf:1:double", b"\xff" * 11, "not a protobuf"),
    ("npy", b"\x93NUMPY", "not an .npy"),
    ("npy", b"nonsense", "not an .npy"),
    ("npy", npy(VALUES)[:-1], "31 bytes of numbers for the shape"),
    ("npy", npy(np.ones((2, 2))), "shape \\(2, 2\\)"),
    ("npy", npy(np.array(["a"])), "instead of numbers"),
    ("npy", npy(np.ones(16_001, dtype=np.float16)), "16001 values"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD, ids=lambda value: str(value)[:30])
def test_damage_is_undecodable(name: str, value: Any, message: str) -> None:
    with pytest.raises(Undecodable, match=message) as error:
        parse_encoding(name).decode(value)
    assert error.value.reason is Reason.UNDECODABLE
    assert len(error.value.detail) < 120


def test_an_npy_of_objects_is_not_unpickled() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([None, 1], dtype=object), allow_pickle=True)
    with pytest.raises(Undecodable, match="an array of object"):
        parse_encoding("npy").decode(stream.getvalue())


def test_an_npy_that_announces_too_much_takes_no_memory() -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"
    value = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with pytest.raises(Undecodable, match="more than 16000"):
        parse_encoding("npy").decode(value)


def test_numbers_beyond_float32_become_infinite() -> None:
    assert parse_encoding("json").decode("[1e39, 1]").tolist() == [np.inf, 1]
    assert parse_encoding("array").decode("{NaN,-Infinity,1}").tolist()[1:] == [-np.inf, 1]
    assert parse_encoding("float64-le").decode(np.array([1e300]).tobytes()).tolist() == [np.inf]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        VALUES,
        VALUES.astype("<f4"),
        VALUES.astype(">f8"),
        VALUES[np.newaxis].astype("f2"),
        VALUES.tolist(),
        list(VALUES),
        tuple(VALUES.astype(np.float32)),
    ],
)
def test_a_pickle_of_numbers_is_read(value: Any, protocol: int) -> None:
    encoding = parse_encoding("pickle", allow_pickle=True)
    assert encoding.decode(pickle.dumps(value, protocol)).tolist() == VALUES.astype(np.float32).tolist()


def test_pickles_of_older_numpy_are_read() -> None:
    old = pickle.dumps(VALUES, 0).replace(b"numpy._core.", b"numpy.core.")
    assert parse_encoding("pickle", allow_pickle=True).decode(old).tolist() == VALUES.astype("f4").tolist()


class Payload:
    def __init__(self, action: Callable[..., Any], *arguments: Any) -> None:
        self.action, self.arguments = action, arguments

    def __reduce__(self) -> Any:
        return self.action, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_never_run(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "made"
    payload = pickle.dumps([1.0, Payload(Path.touch, target)], protocol)
    pickle.loads(payload)
    assert target.exists()
    target.unlink()
    with pytest.raises(Undecodable, match="asks for"):
        parse_encoding("pickle", allow_pickle=True).decode(payload)
    assert not target.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pickle.dumps({"a": 1}), "dict instead of numbers"),
        (pickle.dumps("text"), "str instead of numbers"),
        (pickle.dumps(["text"]), "not all values are numbers"),
        (pickle.dumps(np.array([None, "x"], dtype=object)), "something else than numbers"),
        (pickle.dumps(np.zeros(2, dtype=[("a", "f4")])), "something else than numbers"),
        (pickle.dumps(np.ones((2, 2))), "shape \\(2, 2\\)"),
        (pickle.dumps(VALUES)[:-20], "not a pickle of numbers"),
        (pickle.dumps(np.ndarray), "instead of numbers"),
        (pickle.dumps(Payload(np.ndarray, (10**12,))), "something else than numbers"),
        (b"garbage", "not a pickle of numbers"),
        ("text", "not bytes"),
    ],
)
def test_a_pickle_of_something_else_is_undecodable(value: Any, message: str) -> None:
    with pytest.raises(Undecodable, match=message):
        parse_encoding("pickle", allow_pickle=True).decode(value)


def test_pickle_is_off_unless_asked_for() -> None:
    with pytest.raises(ConfigError, match="allow_pickle = true"):
        parse_encoding("base64+pickle")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("float32", "unknown encoding 'float32'; did you mean float32-"),
        ("flot32-le", "did you mean float32-le"),
        ("float32-le@x", "unknown encoding"),
        ("float32-le@", "unknown encoding"),
        ("json:", "unknown encoding"),
        ("protobuf:0:double", "known: .*protobuf:FIELD:double"),
        ("zip+float32-le", "unknown encoding"),
        ("hex", "unknown encoding|does not say what is inside"),
        ("hex+", "does not say what is inside"),
        ("", "unknown encoding"),
    ],
)
def test_an_unknown_encoding_names_the_known_ones(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_encoding(name)


def decode_one(encoding: Encoding, value: Any) -> tuple[NDArray[np.float32] | None, Fault | None]:
    try:
        return encoding.decode(value), None
    except Undecodable as error:
        return None, Fault(error.reason, error.detail)


RAW = ["float16-le", "float32-be", "float32-le@4", "float64-le", "float64-be@3", "hex+float32-le", "json"]


@given(st.sampled_from(RAW), st.data())
def test_many_decode_as_one_does(name: str, data: st.DataObject) -> None:
    encoding = parse_encoding(name)
    length = data.draw(st.integers(0, 20))
    equal = st.binary(min_size=length, max_size=length)
    value = data.draw(st.sampled_from([equal, equal | st.none(), st.binary(max_size=20) | st.none() | st.text()]))
    values = data.draw(st.lists(value, max_size=8))
    if name.startswith("hex"):
        values = [one.hex() if isinstance(one, bytes) else one for one in values]
    assert_many_as_one(encoding, values)


def assert_many_as_one(encoding: Encoding, values: list[Any]) -> None:
    decoded = encoding.decode_many(values)
    assert len(decoded.features) == len(values)
    for i, one in enumerate(values):
        feature, fault = decode_one(encoding, one)
        assert decoded.faults.get(i) == fault
        if feature is not None:
            np.testing.assert_array_equal(np.asarray(decoded.features[i]), feature)


def test_equal_raw_values_become_one_array_without_a_copy() -> None:
    decoded = parse_encoding("float32-le").decode_many([FLOAT32] * 3)
    assert isinstance(decoded.features, np.ndarray)
    assert decoded.features.shape == (3, 4)
    assert decoded.features.base is not None


def test_some_bad_values_leave_the_others_in_one_array() -> None:
    page = [None, FLOAT32, FLOAT32[:-1], FLOAT32[4:] + FLOAT32[:4], "text", b""]
    decoded = parse_encoding("float32-le").decode_many(page)
    assert isinstance(decoded.features, np.ndarray)
    assert decoded.features[[1, 3]].tolist() == [VALUES.tolist(), np.roll(VALUES, -1).tolist()]
    assert sorted(decoded.faults) == [0, 2, 4, 5]


def test_values_of_two_lengths_are_all_decoded() -> None:
    decoded = parse_encoding("float32-le").decode_many([FLOAT32, FLOAT32[:8], bytearray(FLOAT32), FLOAT32])
    assert [len(np.asarray(feature)) for feature in decoded.features] == [4, 2, 4, 4]
    assert not decoded.faults


def test_values_that_are_too_large_are_so_together() -> None:
    encoding, value = parse_encoding(f"float32-le@{(1 << 20) - 4}"), b"a" * ((1 << 20) + 4)
    assert decode_one(encoding, value)[1] == encoding.decode_many([value, value]).faults[1]


@given(st.sampled_from(["_float4", "_float8"]), st.data())
def test_many_arrays_as_sent_decode_as_one_does(kind: str, data: st.DataObject) -> None:
    encoding, item = Encoding("array", sent(kind)), 8 if kind == "_float4" else 12
    header = st.builds(
        struct.pack, st.just(">5i"), st.sampled_from([1, 1, 0, 2]), st.sampled_from([0, 0, 1]), *[st.just(1)] * 3
    )
    entries = st.binary(min_size=2 * item, max_size=2 * item) | st.binary(max_size=item)
    values = data.draw(
        st.lists(st.builds(bytes.__add__, header, entries) | st.binary(max_size=20) | st.none(), max_size=8)
    )
    assert_many_as_one(encoding, values)


def test_one_array_with_a_null_is_found_among_arrays_as_sent() -> None:
    entry = struct.pack(">if", 4, 0.5)
    good, with_null = (struct.pack(">5i", 1, null, 700, 1, 1) + entry for null in (0, 1))
    decoded = Encoding("array", sent("_float4")).decode_many([good, with_null, good])
    assert decoded.faults == {1: Fault(Reason.UNDECODABLE, "NULL among the values")}


def test_one_long_text_named_many_times_is_no_feature() -> None:
    text = "1" * 100_000
    encoding = parse_encoding("pickle", allow_pickle=True)
    decoded = encoding.decode_many([pickle.dumps([text] * 10_000)])
    assert decoded.faults[0].reason == Reason.UNDECODABLE
