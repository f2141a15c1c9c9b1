"""Marks of the subjects of a database: what is equal as long as all their rows are as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain, groupby
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa

from pfstore.config import SourceConfig
from pfstore.sources import keys, sql_ranges
from pfstore.sources.assembly import LONGEST_KEY
from pfstore.sources.base import Marked, ShardRange
from pfstore.sources.doubting import is_doubtful
from pfstore.sources.sql_database import Fetching, LegacyDatabase
from pfstore.sources.sql_dialects import Column
from pfstore.sources.sql_digests import digests_of, value_digest
from pfstore.sources.sql_rows import RowReader

Basis: TypeAlias = Literal["row versions", "change mark", "content"]

_PAGE_ROWS = 4096
_Group: TypeAlias = tuple[keys.Key, int, Sequence[Any], Sequence[Any]]


class MarkReader:
    """Reads the marks of a mapping's subjects.

    A mark is made of the number of a subject's rows and of everything in them that decides what is fused, but for the
    feature: of that it is the version of the row where the database has such (PostgreSQL's tables), the column that
    the mapping names as changed where that is safe, else a digest of its value. So a row that came, went, or moved to
    another subject shows by itself; only what changes a feature in place must show in the version or that column.
    A change mark is not believed of rows without a key, two of which could change places, nor one that is so new that
    another change may bear the same.
    """

    def __init__(
        self, connection: sa.Connection, database: LegacyDatabase, config: SourceConfig, rows: RowReader
    ) -> None:
        self._database = database
        self._rows = rows
        self._digests = digests_of(database.dialect, connection.dialect.server_version_info or ())
        self._salt = hashlib.blake2b(config.identity.encode(), digest_size=16).digest()
        table = rows.relation.clause if config.table else None
        self._version: Column | None = None
        self.basis: Basis = "content"
        if isinstance(table, sa.TableClause):
            self._version = self._digests.row_version(connection, table, rows.feature.name)
        if self._version is not None:
            self.basis = "row versions"
        elif config.changed and config.changed.safe and rows.has_row_key:
            # Without keys two rows of one time could change places.
            self.basis = "change mark"

    def read(self, connection: sa.Connection, range_: ShardRange | None = None) -> Iterator[Marked]:
        """Yield the subjects of a range, or all, with their marks, in the database's order."""
        columns = [self._database.dialect.key(live) for live in self._rows.told]
        columns.append(self._of_feature())
        digest = self._digests.of_rows(columns)
        if digest is None:
            pages = self._fetched(connection, columns, range_)
        else:
            pages = self._grouped(connection, digest, range_)
        now = datetime.now(UTC)
        with closing(pages):
            for page in pages:
                texts = keys.subject_texts(list(zip(*(key for key, _, _, _ in page), strict=True)))
                for subject, (key, rows, latest, told) in zip(keys.all_storable(texts), page, strict=True):
                    if subject is not None and len(subject.encode()) <= LONGEST_KEY:
                        yield Marked(keys.to_json(key), subject, rows, self._mark(rows, latest, told, now))

    def _of_feature(self) -> Column:
        if self._version is not None:
            return self._version
        if self.basis == "change mark":
            return self._database.dialect.key(self._rows.changed[0])
        return self._digests.content(self._rows.feature)

    def _mark(self, rows: int, latest: Sequence[Any], told: Sequence[Any], now: datetime) -> bytes:
        """Make a mark. latest: the last change of the rows and how many of them have one, or nothing."""
        if latest and (latest[1] != rows or is_doubtful(latest[0], now)):
            return b""
        said = repr((rows, *told)).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(said, digest_size=16, key=self._salt).digest()

    def _grouped(self, connection: sa.Connection, digest: Column, range_: ShardRange | None) -> Generator[list[_Group]]:
        """Let the database make one row of each subject; yield pages of them."""
        subject, width = self._rows.subject, len(self._rows.subject)
        latest: list[Column] = []
        if self.basis == "change mark":
            (changed,) = self._rows.changed
            latest = [self._digests.latest(changed), sa.func.count(self._digests.times(changed))]
        order = list(chain.from_iterable(map(self._database.dialect.order, subject)))
        selected = [*map(self._database.dialect.key, subject), sa.func.count(), *latest, digest]
        statement = self._within(sa.select(*selected), range_).group_by(*order).order_by(*order)
        end = width + 1 + len(latest)
        with self._database.fetched(connection, statement) as result:
            while page := result.fetchmany(_PAGE_ROWS):
                yield [(tuple(row[:width]), int(row[width]), row[width + 1 : end], row[end:]) for row in page]

    def _fetched(
        self, connection: sa.Connection, columns: Sequence[Column], range_: ShardRange | None
    ) -> Generator[list[_Group]]:
        """Fetch all rows and put the digests of each subject's together, in whatever order they come."""
        dialect, subject, width = self._database.dialect, self._rows.subject, len(self._rows.subject)
        latest = [live.clause for live in self._rows.changed] if self.basis == "change mark" else []
        order = list(chain.from_iterable(map(dialect.order, subject)))
        selected = [*map(dialect.key, subject), *latest, *columns]
        statement = self._within(sa.select(*selected), range_).order_by(*order)
        with self._database.fetched(connection, statement) as result:
            rows = chain.from_iterable(_pages(result))
            for key, group in groupby(rows, key=lambda row: tuple(row[:width])):
                count, total, times = 0, 0, []
                for row in group:
                    count += 1
                    parts = repr([value_digest(value) for value in row[width + len(latest) :]])
                    total += int.from_bytes(hashlib.blake2b(parts.encode(), digest_size=8).digest())
                    times += [value for value in row[width : width + len(latest)] if value is not None]
                yield [(key, count, [max(times, default=None), len(times)] if latest else [], [total])]

    def _within(self, statement: sa.Select[Any], range_: ShardRange | None) -> sa.Select[Any]:
        whole = {"after": None, "to": None}
        return self._rows.filtered(statement).where(sql_ranges.condition(self._rows.subject, range_ or whole))


def _pages(result: Fetching) -> Iterator[Sequence[Sequence[Any]]]:
    while page := result.fetchmany(_PAGE_ROWS):
        yield page
