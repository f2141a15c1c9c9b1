"""The rows of a mapping: what is selected, in which order, and how it becomes chunks of decoded features."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from pfstore.config import ExtractorColumn, SourceConfig
from pfstore.sources import keys, sql_ranges
from pfstore.sources.assembly import Chunk, Fault
from pfstore.sources.base import Reason, ShardRange
from pfstore.sources.decoding import PageDecoder
from pfstore.sources.encodings import Decoded, Encoding
from pfstore.sources.encodings.values import MAX_BYTES
from pfstore.sources.row_texts import RowTexts
from pfstore.sources.sql_database import Fetching, LegacyDatabase
from pfstore.sources.sql_dialects import Column, LiveColumn
from pfstore.sources.sql_exclusions import Exclusions
from pfstore.sources.sql_relation import column, find, verbatim

_PAGE_BYTES = 4 << 20
_PAGE_ROWS = 4096
_FIRST_PAGE = 64  # rows read before the size of a row is known

_Columns = list[tuple[Any, ...]]
_Subjects = list[str | None]


class RowReader:
    """Knows the live columns of a mapping and reads their rows.

    processes: how many may help with decoding (see PageDecoder).
    Raises MappingError where the mapping names a table or column that is not there.
    """

    def __init__(
        self,
        connection: sa.Connection,
        database: LegacyDatabase,
        config: SourceConfig,
        encoding: Encoding,
        processes: int | None = None,
    ) -> None:
        self._database = database
        self._config = config
        self.relation = find(connection, database, config)
        self.subject = self._live("subject", *config.subject_columns)
        self._medium = self._live("medium", *config.medium_columns)
        self._quality = self._live("quality", *([config.quality.column] if config.quality else []))
        self._extractor = self._live("extractor", *_extractor_column(config))
        self._row = self._live("row", *config.row_columns) or list(self.relation.primary_key)
        self.changed = self._live("changed", *([config.changed.column] if config.changed else []))
        (self.feature,) = self._live("feature", str(config.feature and config.feature.column))
        selected, self._encoding = database.dialect.feature(self.feature, encoding)
        self._decoder = PageDecoder(self._encoding, processes)
        self._oversize, self._feature = bounded(selected, database.dialect.size(self.feature))
        self._exclusions = Exclusions(config.exclude)
        # What the user wrote in SQL shows its mistakes now, not in the middle of a run.
        connection.execute(self.filtered(sa.select(sa.literal_column("1"))).limit(0))

    def close(self) -> None:
        """End the processes that help."""
        self._decoder.close()

    @property
    def told(self) -> list[LiveColumn]:
        """The columns beside the subject's and the feature's that decide what becomes of a row, its key first."""
        return [*self._row, *self._medium, *self._quality, *self._extractor]

    @property
    def has_row_key(self) -> bool:
        """Whether every row has a key of its own, which gives rows an order."""
        return bool(self._row)

    def within(self, range_: ShardRange) -> sa.Select[Any]:
        """Return the statement for the rows of a shard, a subject's and in it a medium's rows adjacent."""
        nobody = sql_ranges.is_nobody(range_)
        value = (sa.null(), sa.null()) if nobody else (self._oversize, self._feature)
        statement = self._select(*value).where(sql_ranges.condition(self.subject, range_))
        return statement if nobody else statement.order_by(*self._order())

    def some(self, rows: int) -> sa.Select[Any]:
        """Return the statement for at most so many rows, in no order."""
        return self._select(self._oversize, self._feature).limit(rows)

    def excluded(
        self, connection: sa.Connection, *, range_: ShardRange | None = None, first: int | None = None
    ) -> dict[str, int]:
        """Count the rows of a shard, or of so many first rows, that the mapping leaves out, by cause."""
        if not self._exclusions:
            return {}
        relation = self.relation.clause
        if first is not None:
            relation = sa.select(sa.text("*")).select_from(relation).limit(first).subquery("pfstore_first")
        statement = self._chosen(self._exclusions.counts(relation))
        if range_ is not None:
            statement = statement.where(sql_ranges.condition(self.subject, range_))
        return self._exclusions.named(connection.execute(statement).all())

    def read(self, connection: sa.Connection, statement: sa.Select[Any], extractor: str) -> Generator[Chunk]:
        """Run a statement of this reader and yield its rows, decoded and with their faults."""
        with self._database.fetched(connection, statement) as result, closing(self._pages(result)) as pages:
            for (subjects, columns), decoded in self._decoder.decoded(pages):
                yield self._chunk(subjects, columns, decoded, extractor)

    def _pages(self, result: Fetching) -> Generator[tuple[tuple[_Subjects, _Columns], Sequence[Any]]]:
        """Yield the rows of a result page by page: the subjects and all columns but the last, and that, the values."""
        kinds = _Kinds(self.subject)
        size = _FIRST_PAGE
        while rows := result.fetchmany(size):
            *columns, values = zip(*rows, strict=True)
            self._refuse_mixed(kinds, columns)
            subjects = keys.subject_texts(columns[: len(self.subject)])
            size = max(1, min(_PAGE_ROWS, _PAGE_BYTES // _largest(values)))
            if not all(subjects):
                values = tuple(value if known else None for known, value in zip(subjects, values, strict=True))
            yield (subjects, columns), values

    def subjects(self, connection: sa.Connection) -> Generator[tuple[keys.Key, int]]:
        """Yield every subject's key with the number of its rows, in the database's order."""
        columns = [live.clause for live in self.subject]
        present = [clause.is_not(None) for clause in columns]
        statement = self.filtered(sa.select(*self._keys(self.subject), sa.func.count()))
        statement = statement.where(*present).group_by(*columns).order_by(*columns)
        kinds = _Kinds(self.subject)
        with self._database.fetched(connection, statement) as result:
            while groups := result.fetchmany(_PAGE_ROWS):
                self._refuse_mixed(kinds, list(zip(*groups, strict=True)))
                yield from ((tuple(group[:-1]), int(group[-1])) for group in groups)

    def ranges_of(self, connection: sa.Connection, subject: str) -> Iterator[ShardRange]:
        """Yield ranges of one key that may be this subject's; all but the first cost a walk over the keys."""
        if guess := self._guessed(connection, subject):
            yield sql_ranges.only(guess)
        with closing(self.subjects(connection)) as subjects:
            found = [key for key, _ in subjects if keys.storable(keys.subject_text(key) or "") == subject]
        yield from map(sql_ranges.only, found)

    def _guessed(self, connection: sa.Connection, subject: str) -> keys.Key | None:
        """Return the key that has this text, told by the types of any other subject's key."""
        selected = self._keys(self.subject)
        if any(str(key) != str(live.clause) for key, live in zip(selected, self.subject, strict=True)):
            return None  # what is no such value would be an error to compare with
        present = [live.clause.is_not(None) for live in self.subject]
        other = connection.execute(self.filtered(sa.select(*selected)).where(*present).limit(1)).first()
        return None if other is None else keys.key_like(subject, tuple(other))

    def count_nobody(self, connection: sa.Connection) -> int:
        """Count the rows without a subject."""
        condition = sql_ranges.condition(self.subject, sql_ranges.NOBODY)
        statement = self.filtered(sa.select(sa.func.count())).where(condition)
        return int(connection.execute(statement).scalar_one())

    def extractors(self, connection: sa.Connection, limit: int) -> list[str]:
        """Return at most so many of the names in the extractor's column, in order."""
        (live,) = self._extractor
        statement = self.filtered(sa.select(*self._keys(self._extractor)).distinct())
        found = connection.execute(statement.where(live.clause.is_not(None)).limit(limit))
        return sorted(keys.part_text(name) for (name,) in found)

    def _live(self, use: str, *names: str) -> list[LiveColumn]:
        return [column(self.relation, self._database, use, name) for name in names]

    def _keys(self, columns: Sequence[LiveColumn]) -> list[Column]:
        return [self._database.dialect.key(live) for live in columns]

    def _select(self, *value: Column) -> sa.Select[Any]:
        quality = [live.clause for live in self._quality]
        rows = [*self.subject, *self._medium, *self._row]
        return self.filtered(sa.select(*self._keys(rows), *quality, *self._keys(self._extractor), *value))

    def filtered(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Return the statement for the mapping's rows, without those that it leaves out."""
        return self._exclusions.without(self._chosen(statement.select_from(self.relation.clause)))

    def _chosen(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        if self._config.where:
            statement = statement.where(verbatim(f"({self._config.where}\n)"))
        extractor = self._config.extractor
        if isinstance(extractor, ExtractorColumn) and extractor.value is not None:
            (live,) = self._extractor
            statement = statement.where(live.clause == sa.literal(extractor.value, sa.types.NullType()))
        return statement

    def _order(self) -> list[Column]:
        dialect = self._database.dialect
        order = [by for live in self.subject for by in dialect.order(live)]
        for live in self._medium:
            first, *ties = dialect.order(live)
            # A medium of NULL is the same to pfstore as an empty one.
            order += [first if dialect.nulls_come_first else sa.nulls_first(first), *ties]
        return [*order, *(live.clause for live in self._row)]

    def _refuse_mixed(self, kinds: _Kinds, columns: _Columns) -> None:
        if mixed := kinds.mixed(columns):
            name, found = mixed
            raise self._database.error(
                f"the subjects in column {name!r} are {' and '.join(found)}, of which two may read the same as text: "
                f"use a query that makes them one type, as CAST({name} AS TEXT)"
            )

    def _low_quality(self, values: Sequence[Any]) -> dict[int, Fault]:
        minimum = self._config.quality.minimum if self._config.quality else None
        if minimum is None:
            return {}
        return {
            i: Fault(Reason.LOW_QUALITY, "NULL" if value is None else f"{value} is below {minimum}")
            for i, value in enumerate(values)
            if not _number(value) >= minimum
        }

    def _chunk(self, subjects: _Subjects, columns: _Columns, decoded: Decoded, extractor: str) -> Chunk:
        """Make a chunk of a page of rows: their subjects, the columns but the feature's, and the features."""
        rest = columns[len(self.subject) :]
        medium, rest = rest[: len(self._medium)], rest[len(self._medium) :]
        row, (*rest, oversizes) = rest[: len(self._row)], rest[len(self._row) :]
        faults = self._low_quality(rest[0]) if self._quality else {}
        faults |= decoded.faults
        faults |= _too_large(oversizes)
        if self._extractor:
            faults |= _of_others(rest[-1], extractor)
        media = keys.key_texts(medium) if medium else [""] * len(subjects)
        return Chunk(subjects, media, _row_texts(row, len(subjects)), decoded.features, faults)


class _Kinds:
    """Watches which kinds of values a key's columns hold: in SQLite one column may hold several."""

    _NUMBERS = (int, float, Decimal)

    def __init__(self, columns: Sequence[LiveColumn]) -> None:
        self._columns = columns
        self._seen: list[set[str]] = [set() for _ in columns]

    def mixed(self, values: _Columns) -> tuple[str, list[str]] | None:
        """Take note of the next values, column by column; return a column of several kinds and those."""
        for live, seen, parts in zip(self._columns, self._seen, values, strict=False):
            seen |= {
                "numbers" if issubclass(kind, self._NUMBERS) else kind.__name__
                for kind in set(map(type, parts)) - {type(None)}
            }
            if len(seen) > 1:
                return live.name, sorted(seen)
        return None


def _extractor_column(config: SourceConfig) -> list[str]:
    return [config.extractor.column] if isinstance(config.extractor, ExtractorColumn) else []


def bounded(value: Column, size: Column | None, most: int = MAX_BYTES) -> tuple[Column, Column]:
    """Return the bytes of a value where they are more than that, as no feature has, else NULL; and the value where not.

    A cell of gigabytes would otherwise be in memory before anyone could refuse it.
    """
    if size is None:
        return sa.null(), value
    too_large = size > most
    return sa.case((too_large, size)), sa.case((too_large, sa.null()), else_=value)


def _too_large(sizes: Sequence[Any]) -> dict[int, Fault]:
    return {
        i: Fault(Reason.UNDECODABLE, f"{size} bytes, more than {MAX_BYTES}")
        for i, size in enumerate(sizes)
        if size is not None
    }


def _of_others(values: Sequence[Any], extractor: str) -> dict[int, Fault]:
    names = {value: "NULL" if value is None else keys.part_text(value) for value in set(values)}
    return {
        i: Fault(Reason.OTHER_EXTRACTOR, names[value][:100])
        for i, value in enumerate(values)
        if names[value] != extractor
    }


def _row_texts(columns: _Columns, rows: int) -> RowTexts:
    return RowTexts(rows, lambda row: keys.key_text([column[row] for column in columns]) if columns else "")


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _largest(values: Sequence[Any]) -> int:
    """Return about how many bytes the largest of some values takes."""
    if set(map(type, values)) == {bytes}:
        return max(1, *map(len, values))
    return max(map(_size, values))


def _size(value: Any) -> int:
    """Return about how many bytes a value takes."""
    if isinstance(value, str | bytes | bytearray | memoryview):
        return max(1, len(value))
    return 32 * len(value) if isinstance(value, list) and value else 1
