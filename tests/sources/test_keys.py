"""Keys as text and as JSON: nothing lost, no two keys alike."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfstore.errors import SourceError
from pfstore.sources import keys

UUID_KEY = UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("Anna/50%", "Anna/50%"),
        (7, "7"),
        (Decimal("7"), "7"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1.50"), "1.5"),
        (Decimal("-0.0"), "0"),
        (Decimal("NaN"), "NaN"),
        (UUID_KEY, str(UUID_KEY)),
        (date(2024, 5, 1), "2024-05-01"),
        (b"anna", "anna"),
        ("Änna".encode(), "Änna"),
        (bytearray(b"anna"), "anna"),
        (memoryview(b"anna"), "anna"),
        (b"\xff\x00", "0xff00"),
        (b"a\x00", "0x6100"),
        (b"0xff", "0x30786666"),
        ("a\0b", "a%00b"),
        (None, ""),
    ],
)
def test_a_single_key_is_its_text(key: object, text: str) -> None:
    assert keys.key_text((key,)) == text


def test_composite_keys_are_joined() -> None:
    assert keys.key_text(("a/b", 7, None, "5%")) == "a%2Fb/7/%/5%25"


@pytest.mark.parametrize("key", [(None,), ("",), (b"",), ("a", None), ("", 7)])
def test_a_key_with_a_missing_part_names_no_subject(key: keys.Key) -> None:
    assert keys.subject_text(key) is None


def test_a_value_that_is_no_key_is_an_error() -> None:
    with pytest.raises(SourceError, match="type list cannot be a key"):
        keys.key_text(([1],))
    with pytest.raises(SourceError, match="type list cannot be a key"):
        keys.to_json(([1],))


@given(st.lists(st.none() | st.text(), min_size=2, max_size=4))
def test_composite_texts_are_reversible(key: list[str | None]) -> None:
    assert list(keys.split_text(keys.key_text(key))) == key


PARTS = (
    st.integers()
    | st.text(st.characters())
    | st.binary()
    | st.floats(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.datetimes()
    | st.just(datetime(2024, 5, 1, 12, tzinfo=UTC))
    | st.just("\ud800")
)


@given(st.lists(PARTS, min_size=1, max_size=3).map(tuple))
def test_json_gives_the_same_key_back(key: keys.Key) -> None:
    text = json.dumps(keys.to_json(key))
    back = keys.from_json(json.loads(text))
    assert back == key
    assert [type(part) for part in back] == [type(part) for part in key]
    assert "\\u0000" not in text.replace("\\\\", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("é/%\t", "é/%\t"),
        ("a\0b", "a%00b"),
        (b"a\xff".decode("utf-8", "surrogateescape"), "0x61ff"),
        ("\ud800", "0xeda080"),
    ],
)
def test_what_postgresql_cannot_store_is_spelled_out(text: str, expected: str) -> None:
    assert keys.storable(text) == expected == keys.key_text((text,))


@given(st.binary(), st.binary())
def test_bytes_keys_are_never_confused(one: bytes, other: bytes) -> None:
    assert (keys.part_text(one) == keys.part_text(other)) == (one == other)


_MANY: list[list[object]] = [
    ["a", "a", "b", ""],
    ["a", "\0", "\udcff", None],
    [1, 1, 2],
    [1, True, 1.0, None],
    [b"a", b"\xff", b"", None],
    [Decimal("1.0"), Decimal("1.00"), Decimal("2")],
    [datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=ZoneInfo("Europe/Berlin")) for fold in (0, 1, 0)],
    [0.0, -0.0, float("nan")],
]


@pytest.mark.parametrize("column", _MANY)
def test_many_keys_read_as_each_does(column: list[object]) -> None:
    assert keys.subject_texts([column]) == [keys.subject_text([part]) for part in column]
    assert keys.key_texts([column]) == [keys.key_text([part]) for part in column]
    pairs = list(zip(column, column[::-1], strict=True))
    assert keys.subject_texts([column, column[::-1]]) == [keys.subject_text(pair) for pair in pairs]
    assert keys.key_texts([column, column[::-1]]) == [keys.key_text(pair) for pair in pairs]


def test_many_texts_are_storable_as_each_is() -> None:
    texts = ["a", None, "\0", "\udcff", "é", "\u200d"]
    assert keys.all_storable(texts) == [text and keys.storable(text) for text in texts]
