"""Key ranges: how the subjects of a database are cut into shards, and how a shard is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from pfstore.sources import keys
from pfstore.sources.base import Shard, ShardRange
from pfstore.sources.sql_dialects import Column, LiveColumn

NOBODY: ShardRange = {"nobody": True}
"""The range of the rows without a subject."""


def is_nobody(range_: ShardRange) -> bool:
    """Tell whether this is the range of the rows without a subject."""
    return "nobody" in range_


def condition(columns: Sequence[LiveColumn], range_: ShardRange) -> sa.ColumnElement[bool]:
    """Return what the rows of a range fulfil: after one key, up to and with another, as the database compares.

    Of a range of keys it is that theirs is equal to one of these.
    """
    if is_nobody(range_):
        return sa.or_(*(column.clause.is_(None) for column in columns))
    conditions: list[sa.ColumnElement[bool]] = [column.clause.is_not(None) for column in columns]
    clauses = [column.clause for column in columns]
    if "keys" in range_:
        return _any_of(clauses, [keys.from_json(key) for key in range_["keys"]])
    if range_["after"] is not None:
        conditions.append(_beyond(clauses, keys.from_json(range_["after"])))
    if range_["to"] is not None:
        conditions.append(_up_to(clauses, keys.from_json(range_["to"])))
    return sa.and_(*conditions)


def only(key: keys.Key) -> ShardRange:
    """Return the range of this key and of those that the database takes for equal."""
    return {"keys": [keys.to_json(key)]}


def subjects_of(range_: ShardRange) -> frozenset[str] | None:
    """Return the texts of the subjects of a range of keys, None of another.

    The database may take others for equal, as those in other letters, which then come as well.
    """
    if "keys" not in range_:
        return None
    return frozenset(keys.storable(keys.subject_text(keys.from_json(key)) or "") for key in range_["keys"])


def cut(groups: Iterable[tuple[keys.Key, int]], features: int) -> Iterator[Shard]:
    """Cut subjects, given in order with their numbers of features, into ranges that leave no gap.

    The first range has no lower and the last no upper end, so where there is no subject yet, one range is for all.
    """
    after: list[Any] | None = None
    last: list[Any] | None = None
    count = subjects = 0
    for key, rows in groups:
        if count >= features:
            yield Shard({"after": after, "to": last}, count, subjects)
            after, count, subjects = last, 0, 0
        last = keys.to_json(key)
        count += rows
        subjects += 1
    yield Shard({"after": after, "to": None}, count, subjects)


# Row values, (a, b) > (x, y), would be shorter, but MariaDB and MySQL use no index for them.


def _beyond(columns: Sequence[Column], key: keys.Key) -> sa.ColumnElement[bool]:
    first, *rest = columns
    value = _literal(key[0])
    if not rest:
        return first > value
    return sa.and_(first >= value, sa.or_(first > value, _beyond(rest, key[1:])))


def _up_to(columns: Sequence[Column], key: keys.Key) -> sa.ColumnElement[bool]:
    first, *rest = columns
    value = _literal(key[0])
    if not rest:
        return first <= value
    return sa.and_(first <= value, sa.or_(first < value, _up_to(rest, key[1:])))


def _any_of(columns: Sequence[Column], wanted: Sequence[keys.Key]) -> sa.ColumnElement[bool]:
    if len(columns) == 1:
        return columns[0].in_([_literal(key[0]) for key in wanted])
    return sa.or_(*(sa.and_(*map(_equal, columns, key)) for key in wanted))


def _equal(column: Column, value: Any) -> sa.ColumnElement[bool]:
    return column == _literal(value)


def _literal(value: Any) -> Column:
    if isinstance(value, str) and keys.has_surrogates(value):
        # Text that is no UTF-8, which SQLite may hold, but takes as bytes alone.
        return sa.cast(sa.literal(value.encode("utf-8", "surrogateescape")), sa.Text)
    # Without a type no cast is written around it, so the column's own type and collation decide.
    return sa.literal(value, sa.types.NullType())
