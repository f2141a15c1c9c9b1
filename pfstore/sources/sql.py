"""A legacy SQL database as a source of features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import sqlalchemy as sa

from pfstore.config import ExtractorColumn, SourceConfig
from pfstore.errors import MappingError
from pfstore.features import FeatureBatch
from pfstore.sources import sql_ranges
from pfstore.sources.assembly import Chunk, assemble
from pfstore.sources.base import Marked, Sample, Shard, ShardRange, SourceBatch
from pfstore.sources.encodings import parse_encoding
from pfstore.sources.presets import suggestion
from pfstore.sources.single import SubjectRows, gathered, of_subjects
from pfstore.sources.sql_database import LegacyDatabase
from pfstore.sources.sql_marks import MarkReader
from pfstore.sources.sql_rows import RowReader

_EXTRACTORS_SHOWN = 10


class SqlSource:
    """Features in a table or query of any database that SQLAlchemy reaches; a FeatureSource.

    name: the source's in pfstore.toml, for messages. A path in the URL of an SQLite file starts from the working
    directory. processes: how many may help to decode text, which takes longer than to read it; None for as many as
    there are processors for, 0 for none. Raises ConfigError where the encoding is unknown, SourceError where the
    database cannot be reached or does not look as the mapping says; so does every method.
    """

    def __init__(self, config: SourceConfig, name: str, processes: int | None = None) -> None:
        self._config = config
        encoding = parse_encoding(config.feature.encoding if config.feature else "", config.allow_pickle)
        self._database = LegacyDatabase(str(config.url), name, config.statement_timeout)
        self._held: sa.Connection | None = None
        with self._database.snapshot() as connection:
            try:
                self._rows = RowReader(connection, self._database, config, encoding, processes)
            except MappingError as error:
                raise MappingError(f"{error}{suggestion(connection, self._database)}") from None
            self._marks = MarkReader(connection, self._database, config, self._rows)

    @cached_property
    def extractor(self) -> str:
        """The label of the extractor: the mapping's, or the only one that its column holds."""
        extractor = self._config.extractor
        if not isinstance(extractor, ExtractorColumn):
            return str(extractor)
        if extractor.value is not None:
            return extractor.value
        with self._snapshot() as connection:
            found = self._rows.extractors(connection, _EXTRACTORS_SHOWN + 1)
        if len(found) == 1:
            return found[0]
        if not found:
            raise self._database.error(f"the column {extractor.column!r} names no extractor")
        shown = ", ".join(found[:_EXTRACTORS_SHOWN]) + (", …" if len(found) > _EXTRACTORS_SHOWN else "")
        raise self._database.error(
            f"features of several extractors ({shown}) cannot be compared; choose one: "
            f'extractor = {{ column = "{extractor.column}", value = "{found[0]}" }}'
        )

    @property
    def has_media(self) -> bool:
        """Whether the mapping names a medium."""
        return bool(self._config.medium_columns)

    def sample(self, rows: int = 1000) -> Sample:
        """Read at most `rows` rows, in no order, and tell what they look like.

        The dimension is the mapping's, or the most common one.
        """
        extractor = self.extractor
        with self._snapshot() as connection:
            chunks = list(self._rows.read(connection, self._rows.some(rows), extractor))
            excluded = self._rows.excluded(connection, first=rows)
        chunk = _in_order(chunks)
        return replace(_sample(chunk, self._config.dimension or _common_length(chunk)), excluded=excluded)

    def shards(self, features: int) -> Iterator[Shard]:
        """Cut the source into ranges of about this many features, whole subjects each, without a gap.

        Rows without a subject make one more, without subjects, so that they are counted; it is there even where
        there is no such row yet.
        """
        with self._snapshot() as connection:
            with closing(self._rows.subjects(connection)) as subjects:
                yield from sql_ranges.cut(subjects, features)
            yield Shard(sql_ranges.NOBODY, self._rows.count_nobody(connection), 0)

    def read(self, range_: ShardRange, *, dimension: int, features: int, marks: bool = False) -> Iterator[SourceBatch]:
        """Read a shard in one consistent snapshot, in batches of about `features` features and whole subjects.

        marks: with those of the subjects.
        """
        extractor, statement = self.extractor, self._rows.within(range_)
        unordered = not self._rows.has_row_key
        with self._snapshot() as connection:
            known: dict[str, bytes] = {}
            if marks and not sql_ranges.is_nobody(range_):
                known = {one.subject: one.mark for one in self._marks.read(connection, range_)}
                self._refuse_lost(range_, known)
            with closing(self._rows.read(connection, statement, extractor)) as read:
                chunks = of_subjects(sql_ranges.subjects_of(range_), read)
                for batch in assemble(chunks, dimension=dimension, batch_features=features, unordered=unordered):
                    yield batch.marked(known)
            if excluded := self._rows.excluded(connection, range_=range_):
                yield SourceBatch(FeatureBatch.empty(dimension), excluded=excluded)

    @property
    def marks_by(self) -> str:
        """By what it tells whether a subject has changed: "row versions", "change mark" or "content"."""
        return self._marks.basis

    @property
    def most_keys(self) -> int:
        """How many keys a range may hold: SQLite takes no conditions that are deep, as those of composite keys.

        None where a key may not be equal to itself when it is sent back.
        """
        if not all(live.exact for live in self._rows.subject):
            return 0
        return 5000 if len(self._rows.subject) == 1 else 200

    def marks(self) -> Iterator[Marked]:
        """Yield every subject that has a row with its mark, in the database's order."""
        with self._snapshot() as connection:
            yield from self._marks.read(connection)

    def range_of(self, keys: Sequence[Sequence[Any]]) -> ShardRange:
        """Return the range of these keys and no others."""
        return {"keys": [list(key) for key in keys]}

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See one state of the database in everything that is asked within.

        Of an SQLite file that is not in WAL mode nothing is held, as its writers would have to wait.
        """
        failure: Exception | None = None
        with self._database.snapshot() as connection:
            if self._database.dialect.holds(connection):
                self._held = connection
            try:
                yield
            except Exception as error:
                # Errors of the source are said where they happen; those of others are not the source's.
                failure = error
            finally:
                self._held = None
        if failure is not None:
            raise failure

    def _refuse_lost(self, range_: ShardRange, known: Mapping[str, bytes]) -> None:
        """Raise SourceError where a subject of a range is not found in the snapshot that told its key."""
        if self._held is not None and (lost := (sql_ranges.subjects_of(range_) or frozenset()) - known.keys()):
            raise self._database.error(
                f"the subject {min(lost)!r} is not found by the key that the database gave: use a query that casts the "
                "subject to text or to a whole number"
            )

    @contextmanager
    def _snapshot(self) -> Iterator[sa.Connection]:
        """Connect in a snapshot, the one that is held where there is one."""
        if self._held is not None:
            with self._database.saying():
                yield self._held
            return
        with self._database.snapshot() as connection:
            yield connection

    def read_subject(self, subject: str, *, dimension: int) -> SubjectRows | None:
        """Read one subject, named by the text of its key, in one snapshot; None where the source does not have it.

        The database is asked for this key alone, and where it has none, for all keys, as a rare one, like a time
        in a zone, may be written in another way.
        """
        extractor, unordered = self.extractor, not self._rows.has_row_key
        with self._snapshot() as connection:
            for range_ in self._rows.ranges_of(connection, subject):
                with closing(self._rows.read(connection, self._rows.within(range_), extractor)) as chunks:
                    found = gathered(chunks, subject, dimension=dimension, unordered=unordered)
                if found is not None:
                    excluded = self._rows.excluded(connection, range_=range_)
                    return replace(found, batch=replace(found.batch, excluded=excluded))
        return None

    def close(self) -> None:
        """Give back the connections, and end the processes that help."""
        self._rows.close()
        self._database.close()

    def __enter__(self) -> SqlSource:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _in_order(chunks: Sequence[Chunk]) -> Chunk:
    """Put rows that came in any order into one chunk, a subject's and in it a medium's rows adjacent."""
    subjects = [subject for chunk in chunks for subject in chunk.subjects]
    media = [medium for chunk in chunks for medium in chunk.media]
    rows = [row for chunk in chunks for row in chunk.rows]
    features = [feature for chunk in chunks for feature in chunk.features]
    faults = [chunk.faults.get(i) for chunk in chunks for i in range(len(chunk.rows))]
    order = sorted(range(len(rows)), key=lambda i: (subjects[i] or "", media[i]))
    return Chunk(
        [subjects[i] for i in order],
        [media[i] for i in order],
        [rows[i] for i in order],
        [features[i] for i in order],
        {place: fault for place, i in enumerate(order) if (fault := faults[i])},
    )


def _common_length(chunk: Chunk) -> int | None:
    lengths = Counter(
        len(feature) for i, feature in enumerate(chunk.features) if feature is not None and i not in chunk.faults
    )
    return lengths.most_common(1)[0][0] if lengths else None


def _sample(chunk: Chunk, dimension: int | None) -> Sample:
    read = len(chunk.rows)
    batches = list(assemble([chunk], dimension=dimension or 1, batch_features=read + 1))
    media = {pair for pair in zip(chunk.subjects, chunk.media, strict=True) if pair[0]}
    return Sample(
        dimension,
        read,
        sum(batch.subjects for batch in batches),
        len(media),
        [norm for batch in batches for norm in _norms(batch)],
        [reject for batch in batches for reject in batch.rejects],
    )


def _norms(batch: SourceBatch) -> list[float]:
    norms: list[float] = np.linalg.norm(batch.features.features.astype(np.float64), axis=1).tolist()
    return norms
