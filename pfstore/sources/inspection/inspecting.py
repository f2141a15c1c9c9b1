"""Pointed at a database that nobody documented: which columns are features, whose, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from pfstore.features import Floats
from pfstore.sources.base import Reason
from pfstore.sources.encodings import parse_encoding
from pfstore.sources.inspection.attributes import Attribute
from pfstore.sources.inspection.grouping import Cosines
from pfstore.sources.inspection.joins import Joiner
from pfstore.sources.inspection.readings import FITS, Reading, readings
from pfstore.sources.inspection.roles import Deletion, Quality, find_changes, find_deletions, find_quality
from pfstore.sources.inspection.sampling import Sample, together
from pfstore.sources.inspection.subjects import Subject, find_medium, find_model, find_subject
from pfstore.sources.inspection.walking import MOST_COUNTED, Rows, Table, Walker
from pfstore.sources.presets import recognise
from pfstore.sources.sql_database import LegacyDatabase

PEEK = 200
"""Rows of every table that are looked at for features."""

SAMPLE = 1200
"""Rows of a table with features that are looked at for whose they are."""

MOST_EXAMINED = 24
"""Columns of features whose subjects are looked for; a database may have a thousand tables that are alike."""

TIMEOUT = 20.0
"""Seconds that one statement of an inspection may take; what takes longer is left out and named."""

_DEEPENED = 30  # values of a column whose further rows are looked up
_MOST_DEEPENED = 6

Observer = Callable[[str], None]


@dataclass(frozen=True)
class Statistics:
    """What a sample tells of a column of features.

    rows: of the table, at most MOST_COUNTED + 1. sampled: rows looked at; of these so many are empty or undecodable,
    and so many have each dimension. duplicates: features that are there before. counts: features of each subject
    in the first MOST_COUNTED rows; None where the subject is not in the features' table.
    """

    rows: int
    sampled: int
    empty: int
    undecodable: int
    dimensions: Mapping[int, int]
    duplicates: int
    counts: Sequence[int] | None

    @property
    def subjects(self) -> int | None:
        """How many subjects are in the first MOST_COUNTED rows."""
        return None if self.counts is None else len(self.counts)

    @property
    def per_subject(self) -> tuple[int, int, int] | None:
        """The 5th, 50th and 95th percentile of the features of one subject."""
        if not self.counts:
            return None
        low, middle, high = np.percentile(self.counts, (5, 50, 95)).astype(int).tolist()
        return low, middle, high


@dataclass(frozen=True)
class Finding:
    """A column that looks like features, what stands beside it, and what was weighed and not believed.

    within, between: cosines of pairs of features of one subject and of two, for a picture.
    """

    table: Table
    column: str
    reading: Reading
    others: Sequence[Reading]
    statistics: Statistics
    subject: Subject | None
    medium: Attribute | None
    model: Attribute | None
    quality: Quality | None
    changes: Sequence[Attribute]
    deletions: Sequence[Deletion]
    norms: Floats
    within: Floats
    between: Floats

    @property
    def rank(self) -> tuple[bool, float, int]:
        """How good a source this would make: with a subject, as sure as can be, the largest."""
        area = self.subject.likeness.area if self.subject else 0.0
        return self.subject is not None, round(area, 1), self.statistics.rows


@dataclass(frozen=True)
class Inspection:
    """What was found in a database.

    presets: the names of those that fit. findings: the best first. rejected: columns that could hold vectors by
    their kind and do not look like features, with the reason. unread: tables that could not be read, and why.
    quote: writes an identifier as the database's SQL has it.
    """

    engine: str
    quote: Callable[[str], str]
    tables: int
    presets: Sequence[str]
    findings: Sequence[Finding]
    rejected: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


def inspect(
    url: str, *, tables: Sequence[str] = (), allow_pickle: bool = False, observer: Observer = lambda _: None
) -> Inspection:
    """Look through a database, reading alone and a bounded number of rows of each table.

    tables: only these. allow_pickle: also look into pickles, by an allow-list that runs no code. observer is told
    the name of each table as it is looked at.

    Raises SourceError where the database cannot be reached, MappingError where there is no such table.
    """
    with LegacyDatabase(url, "inspect", TIMEOUT) as database, database.snapshot() as connection:
        walker = Walker(connection, database)
        found = walker.tables(tables)
        columns = _Columns(walker, allow_pickle)
        for table in found:
            observer(table.label)
            columns.look_at(table)
        everything = found if not tables else walker.tables()
        findings = []
        peeks: dict[str, Rows] = {}
        for table, column, reading, others in columns.fitting[:MOST_EXAMINED]:
            observer(f"{table.label}.{column}")
            joiner = Joiner(walker, everything, peeks)
            examined = _Examination(walker, joiner, table, column, reading, allow_pickle)
            if (finding := walker.attempt(f"{table.label}.{column}", partial(examined.finding, others))) is not None:
                findings.append(finding)
        for table, column, _, _ in columns.fitting[MOST_EXAMINED:]:
            columns.rejected[f"{table.label}.{column}"] = f"looks like features, too; see --table {table.label}"
        presets = recognise(connection, database)
    findings.sort(key=lambda finding: finding.rank, reverse=True)
    return Inspection(
        database.engine_name, database.quote, len(found), presets, findings, columns.rejected, walker.refusals
    )


class _Columns:
    """Judges the columns of tables by a peek at their values."""

    def __init__(self, walker: Walker, allow_pickle: bool) -> None:
        self._walker = walker
        self._allow_pickle = allow_pickle
        self.fitting: list[tuple[Table, str, Reading, list[Reading]]] = []
        self.rejected: dict[str, str] = {}

    def look_at(self, table: Table) -> None:
        peek = self._walker.attempt(table.label, partial(self._walker.sample, table, PEEK, whole=table.columns)) or {}
        for column, values in peek.items():
            found = self._readings(table, column, values)
            if found and found[0].score >= FITS:
                self.fitting.append((table, column, found[0], found[1:]))
            elif found:
                self.rejected[f"{table.label}.{column}"] = f"as {found[0].encoding}: {'; '.join(found[0].against)}"

    def _readings(self, table: Table, column: str, values: Sequence[Any]) -> list[Reading]:
        known = self._walker.encoding_of(table, column)
        if known is None:
            return readings(values, allow_pickle=self._allow_pickle)
        vectors = [vector.tolist() for vector in known.decode_many(values).features if vector is not None]
        absent = [None] * (len(values) - len(vectors))
        return [replace(one, encoding=known.text) for one in readings([*vectors, *absent])[:1]]


class _Examination:
    """Finds out whose the features of one column are and what else its table tells."""

    def __init__(
        self, walker: Walker, joiner: Joiner, table: Table, column: str, reading: Reading, allow_pickle: bool
    ) -> None:
        self._walker = walker
        self._joiner = joiner
        self._table = table
        self._column = column
        self._reading = reading
        self._encoding = walker.encoding_of(table, column) or parse_encoding(reading.encoding, allow_pickle)

    def finding(self, others: Sequence[Reading]) -> Finding:
        """Return all that is found out."""
        first = self._sampled(self._walker.sample(self._table, SAMPLE, whole=(self._column,)))
        sample = self._deepened(first)
        cosines = Cosines(sample.features)
        attributes, subject = self._subject(cosines, sample.attributes)
        statistics = self._statistics(first, subject)
        pairs = cosines.pairs(subject.labels) if subject else (_NONE, _NONE)
        labels = subject.labels if subject else None
        beside = [one for one in attributes if subject is None or one not in subject.columns]
        medium = find_medium(cosines, subject, beside) if subject else None
        beside = [one for one in beside if one is not medium]
        return Finding(
            self._table,
            self._column,
            self._reading,
            others,
            statistics,
            subject,
            medium,
            find_model(cosines, subject, beside) if subject else None,
            find_quality(cosines, labels, beside),
            find_changes([one for one in beside if not one.path]),
            find_deletions(beside),
            np.linalg.norm(sample.features, axis=1),
            *pairs,
        )

    def _subject(self, cosines: Cosines, direct: Sequence[Attribute]) -> tuple[Sequence[Attribute], Subject | None]:
        """Look for the subject in the table itself and one join away, and if need be two."""
        near = [*direct, *self._joiner.beyond(direct)]
        subject = find_subject(cosines, near)
        if subject is not None or len(near) == len(direct):
            return near, subject
        far = [*near, *self._joiner.beyond(near[len(direct) :])]
        return far, find_subject(cosines, far)

    def _sampled(self, rows: Rows) -> Sample:
        return Sample.of(self._table, self._column, rows, self._encoding, self._reading.dimension)

    def _deepened(self, sample: Sample) -> Sample:
        """Add further rows of some values of those columns that share too few to be judged."""
        cosines = Cosines(sample.features)
        lone = [
            one
            for one in sample.attributes
            if one.is_key_like and not one.is_time and one.groups >= 2 and self._table.key != (one.column,)
            if cosines.of(one.labels) is None
        ]
        parts = [sample.rows]
        for one in lone[:_MOST_DEEPENED]:
            values = list(dict.fromkeys(one.present))[:_DEEPENED]
            more = partial(
                self._walker.matching, self._table, one.column, values, 10 * _DEEPENED, whole=(self._column,)
            )
            parts.append(self._walker.attempt(f"{self._table.label}.{one.column}", more) or {})
        return self._sampled(together(parts)) if len(parts) > 1 else sample

    def _statistics(self, sample: Sample, subject: Subject | None) -> Statistics:
        rows = self._walker.attempt(self._table.label, partial(self._walker.rows_in, self._table))
        counts = None
        if subject is not None and not any(one.path for one in subject.columns):
            columns = [one.column for one in subject.columns]
            counts = self._walker.attempt(self._table.label, partial(self._walker.counts, self._table, columns))
        return Statistics(
            MOST_COUNTED + 1 if rows is None else rows,
            sample.read,
            sample.reasons[Reason.EMPTY],
            sample.reasons[Reason.UNDECODABLE],
            dict(sample.dimensions.most_common()),
            sample.duplicates,
            counts,
        )


_NONE = np.empty(0, dtype=np.float32)
