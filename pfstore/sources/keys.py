"""The keys of subjects, media and rows as text, and the ends of key ranges in JSON's types."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from pfstore.errors import SourceError

Key: TypeAlias = tuple[Any, ...]
"""A key as the database gives it: one value a column."""

_Text = TypeVar("_Text", str, str | None)
_AnyText = TypeVar("_AnyText", bound=str | None)

# Values of these types that are equal read the same. A time does not: its hour may come twice when clocks go back.
_ONE_TEXT = {str, int, bytes, Decimal, UUID, type(None)}

_EXACT = 2.0**63  # below it a whole float may equal an integer of the same column

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


def subject_text(key: Sequence[object]) -> str | None:
    """Return a subject's key as text, None where one of its parts is NULL or empty. Raises SourceError."""
    if any(part is None or part in ("", b"") for part in key):
        return None
    return key_text(key)


def key_text(key: Sequence[object]) -> str:
    """Return the key of a medium or a row as text; a NULL is "", within a composite key "%".

    The parts of a composite key are joined by "/", with "%", "/" and NUL percent-encoded inside of them, so
    that no two keys give one text. A single key stays as it is, but for NUL: PostgreSQL cannot store it, so it
    is "%00". Raises SourceError as part_text.
    """
    if len(key) == 1:
        return "" if key[0] is None else part_text(key[0]).replace("\0", "%00")
    return "/".join("%" if part is None else _escaped(part_text(part)) for part in key)


def subject_texts(columns: Sequence[Sequence[object]]) -> list[str | None]:
    """Return subject_text of many keys, given column by column. Raises SourceError."""
    (column, *rest) = columns
    if not rest and "" not in column and (plain := _plain_texts(column)) is not None:
        return [*plain]
    return _each_text(subject_text, columns)


def key_texts(columns: Sequence[Sequence[object]]) -> list[str]:
    """Return key_text of many keys, given column by column. Raises SourceError."""
    (column, *rest) = columns
    plain = None if rest else _plain_texts(column)
    return _each_text(key_text, columns) if plain is None else plain


def all_storable(texts: Sequence[_Text]) -> Sequence[_Text]:
    """Return texts with each as storable has it; None stays."""
    if _printable(filter(None, texts)):
        return texts
    return [text and storable(text) for text in texts]


def storable(text: str) -> str:
    """Return text as PostgreSQL can store it: NUL as "%00"; where it was no UTF-8, "0x" and the digits of its bytes."""
    return _without_surrogates(text).replace("\0", "%00")


def has_surrogates(text: str) -> bool:
    """Tell whether text holds what no UTF-8 has: halves of pairs, or bytes that were none."""
    # isprintable is much the faster, and tells it of nearly every key.
    return not text.isprintable() and _SURROGATE.search(text) is not None


def split_text(text: str) -> tuple[str | None, ...]:
    """Return the texts of the parts of a composite key that key_text joined; None for a NULL."""
    return tuple(None if part == "%" else _unescaped(part) for part in text.split("/"))


def key_like(text: str, other: Key) -> Key | None:
    """Return the key of which subject_text most likely made this text, its parts of the types of another key's.

    None where the text cannot be of such types. Not every key is found again: subject_text tells of it.
    """
    parts = (text,) if len(other) == 1 else split_text(text)
    if len(parts) != len(other):
        return None
    made = tuple(_part_like(part, like) for part, like in zip(parts, other, strict=True))
    return None if None in made else made


def part_text(part: object) -> str:
    """Return one column's value as text: equal values give one text.

    Bytes are their UTF-8 text if they are such without control characters, otherwise "0x" and their
    hexadecimal digits, and so is text that was no UTF-8 where it came from. Raises SourceError where the value
    is of a type that is no key.
    """
    if isinstance(part, str):
        return _without_surrogates(part)
    if isinstance(part, bytes | bytearray | memoryview):
        return _bytes_text(bytes(part))
    if isinstance(part, Decimal):
        return _decimal_text(part)
    if isinstance(part, float) and part.is_integer() and abs(part) < _EXACT:
        return str(int(part))
    if isinstance(part, int | float | UUID | date):
        return str(part)
    raise SourceError(f"a value of type {type(part).__name__} cannot be a key")


def to_json(key: Sequence[object]) -> list[Any]:
    """Return a key in JSON's types such that from_json gives back equal values of the same types.

    Raises SourceError where a value is of a type that is no key.
    """
    return [part_to_json(part) for part in key]


def from_json(key: Sequence[Any]) -> Key:
    """Return the key that to_json was given."""
    return tuple(part_from_json(part) for part in key)


def part_to_json(part: object) -> Any:
    """Return one part of a key as to_json does."""
    if isinstance(part, str):
        # jsonb holds neither NUL nor half of a surrogate pair.
        return {"text": part.encode("utf-8", "surrogatepass").hex()} if _UNSTORABLE.search(part) else part
    if isinstance(part, int):
        return part
    if isinstance(part, bytes | bytearray | memoryview):
        return {"bytes": bytes(part).hex()}
    if isinstance(part, datetime):
        return {"datetime": part.isoformat()}
    # A number with a point would come back from jsonb as one without.
    for name, kind in (("float", float), ("decimal", Decimal), ("uuid", UUID), ("date", date)):
        if isinstance(part, kind):
            return {name: str(part)}
    raise SourceError(f"a value of type {type(part).__name__} cannot be a key")


def part_from_json(part: Any) -> Any:
    """Return the part of a key that part_to_json was given."""
    if not isinstance(part, dict):
        return part
    ((name, text),) = part.items()
    readers = {
        "text": lambda digits: bytes.fromhex(digits).decode("utf-8", "surrogatepass"),
        "bytes": bytes.fromhex,
        "datetime": datetime.fromisoformat,
        "float": float,
        "decimal": Decimal,
        "uuid": UUID,
        "date": date.fromisoformat,
    }
    return readers[name](text)


def _printable(texts: Iterable[str]) -> bool:
    """Tell whether no text holds a control character or a surrogate, which is cheap for all of them at once."""
    return "".join(texts).isprintable()


def _plain_texts(column: Sequence[Any]) -> list[str] | None:
    """Return key_text of a column's values where they are all text or all whole numbers; None where not."""
    kinds = set(map(type, column))
    if kinds == {str} and _printable(column):
        return list(column)
    return list(map(str, column)) if kinds == {int} else None


def _each_text(text_of: Callable[[Key], _AnyText], columns: Sequence[Sequence[object]]) -> list[_AnyText]:
    """Return the text of each key; that of a key which comes again is made once where equal keys have one text."""
    rows = zip(*columns, strict=True)
    if not set().union(*(map(type, column) for column in columns)) <= _ONE_TEXT:
        return list(map(text_of, rows))
    given = list(rows)
    texts = {key: text_of(key) for key in set(given)}
    return [texts[key] for key in given]


def _part_like(text: str | None, like: object) -> object:
    """Return the value of like's type that part_text makes this text of, None where there is none such."""
    kinds: list[tuple[type | tuple[type, ...], Callable[[str], object]]] = [
        (str, str),
        ((bytes, bytearray, memoryview), _bytes_of),
        (Decimal, _decimal_of),
        ((int, float), _number_of),
        (UUID, UUID),
        (datetime, datetime.fromisoformat),
        (date, date.fromisoformat),
    ]
    if text is None or "\0" in text:
        return None
    try:
        return next((make(text) for kind, make in kinds if isinstance(like, kind)), None)
    except (ValueError, ArithmeticError):
        return None


def _bytes_of(text: str) -> bytes:
    return bytes.fromhex(text[2:]) if text.startswith("0x") else text.encode()


def _decimal_of(text: str) -> Decimal | None:
    number = Decimal(text)
    return number if number.is_finite() else None


def _number_of(text: str) -> object:
    if text in ("True", "False"):
        return text == "True"
    number = float(text)
    if not number.is_integer():
        return number if math.isfinite(number) else None
    # Neither SQLite nor a float holds a longer one.
    return int(text) if abs(number) < _EXACT and text.lstrip("-").isdecimal() else None


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")


def _unescaped(text: str) -> str:
    return text.replace("%00", "\0").replace("%2F", "/").replace("%25", "%")


def _without_surrogates(text: str) -> str:
    if not has_surrogates(text):
        return text
    try:
        return "0x" + text.encode("utf-8", "surrogateescape").hex()
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return "0x" + text.encode("utf-8", "surrogatepass").hex()


def _bytes_text(value: bytes) -> str:
    digits = "0x" + value.hex()
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return digits
    # Text that looks like digits would be taken for those of other bytes.
    return digits if _CONTROL.search(text) or text.startswith("0x") else text


def _decimal_text(value: Decimal) -> str:
    """Return 1, 1.0 and 1.00 as the same text: to the database they are one key."""
    if not value.is_finite():
        return str(value)
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
