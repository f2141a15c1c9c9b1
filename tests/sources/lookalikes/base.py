"""What every look-alike of a legacy store has in common: who is in it, how it is filled, and the truth about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from pfstore.features import Floats
from pfstore.sources.base import Reason
from pfstore.synthetic import Population
from tests.conftest import REALDATA

Engine: TypeAlias = Literal["sqlite", "mysql", "postgresql"]
Stored: TypeAlias = dict[str, dict[str, list[bytes]]]
"""Subject -> medium -> the bytes of its float32 features, sorted."""
Row: TypeAlias = dict[str, Any]

SUBJECTS = 8
PER_SUBJECT = 6
PER_MEDIUM = 2


class Face(NamedTuple):
    """One face of a store: a number of its own, those of its subject and its medium, its feature [D] float32."""

    number: int
    subject: int
    medium: int
    feature: Floats

    @property
    def values(self) -> list[float]:
        """The feature as Python's numbers, which are float64 and hold a float32 exactly."""
        numbers: list[float] = self.feature.tolist()
        return numbers


@dataclass(frozen=True)
class People:
    """Features [SUBJECTS * PER_SUBJECT, D] float32, a subject's adjacent, PER_MEDIUM of them to a medium."""

    features: Floats

    @classmethod
    def load(cls) -> People:
        """Return real features where they lie beside the project, otherwise made-up ones, of 512 values."""
        path = REALDATA / "lfw_arcface.npz"
        if not path.exists():
            return cls(_made_up())
        data = np.load(path)
        order = np.argsort(data["subject"], kind="stable")
        features = data["features"][order].reshape(-1, 10, 512)
        return cls(features[:SUBJECTS, :PER_SUBJECT].reshape(-1, 512).astype(np.float32))

    def cut(self, dimension: int) -> People:
        """Return the same people with the first so many values of each feature."""
        return People(np.ascontiguousarray(self.features[:, :dimension]))

    def __iter__(self) -> Iterator[Face]:
        for number, feature in enumerate(self.features):
            yield Face(number, number // PER_SUBJECT, number // PER_MEDIUM, feature)

    def spares(self) -> Iterator[Face]:
        """Yield further faces without end: whoever reads one for the first subject reads one too many."""
        for number in count(len(self.features)):
            yield Face(number, 0, 0, self.features[number % len(self.features)] * np.float32(1.5))


class Tables(defaultdict[str, list[Row]]):
    """Rows by table, in the order in which they are to be written."""

    def __init__(self) -> None:
        super().__init__(list)

    def write(self, connection: sa.Connection) -> None:
        """Insert all rows; those of a table have the same columns."""
        for name, rows in self.items():
            table: sa.TableClause = sa.table(name, *(sa.column(key) for key in rows[0]))
            connection.execute(sa.insert(table), rows)


@dataclass(frozen=True)
class Lookalike(ABC):
    """A store with the tables that a system has and every trap that was seen in it.

    preset: what must fit it, and nothing else. system, dimension: what it is of. faces: the table with a row for
    each face. needs_pgvector: whether its PostgreSQL must have the extension. mixes: whether features of several
    extractors may lie in it. excluded, rejected: how many rows of create are left out by cause, and rejected by
    reason. query: written by hand, gives the rows that are to be read: subject's columns, medium, value.
    """

    engine: Engine

    preset: ClassVar[str]
    system: ClassVar[str]
    dimension: ClassVar[int]
    faces: ClassVar[str]
    needs_pgvector: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    excluded: ClassVar[Mapping[str, int]]
    rejected: ClassVar[Mapping[Reason, int]] = {}
    query: ClassVar[str]

    @abstractmethod
    def schema(self) -> Sequence[str]:
        """Return the statements that make the tables."""

    @abstractmethod
    def fill(self, people: People) -> Tables:
        """Return the rows of the tables: everybody's, and the traps."""

    @abstractmethod
    def decode(self, value: Any) -> Sequence[float]:
        """Return the numbers of a value of the query; none of a placeholder."""

    def another_extractor(self, people: People) -> Tables:
        """Return rows of a second extractor for the same people, where the store mixes them."""
        raise NotImplementedError

    def create(self, engine: sa.Engine, people: People) -> None:
        """Make and fill the tables."""
        with engine.begin() as connection:
            for statement in self.schema():
                connection.exec_driver_sql(statement)
            self.fill(people).write(connection)

    def truth(self, connection: sa.Connection) -> tuple[Stored, Counter[str]]:
        """Return what is to be read, and how many rows are to be left out by cause."""
        stored: Stored = defaultdict(lambda: defaultdict(list))
        for *subject, medium, value in connection.exec_driver_sql(self.query):
            feature = np.array(self.decode(value), dtype=np.float32)
            if len(feature) == self.dimension and feature.any():
                stored[_key(subject)][_key([medium])].append(feature.tobytes())
        return in_order(stored), Counter(self.excluded)


def in_order(stored: Mapping[str, Mapping[str, Sequence[bytes]]]) -> Stored:
    """Return plain dictionaries with every list sorted."""
    return {
        subject: {medium: sorted(features) for medium, features in media.items()} for subject, media in stored.items()
    }


def uuid(kind: int, number: int) -> str:
    """Return the number's UUID among those of a kind."""
    return str(UUID(int=(kind << 96) + number))


def _key(parts: Sequence[Any]) -> str:
    texts = [part.decode() if isinstance(part, bytes) else str(part) for part in parts]
    if len(texts) == 1:
        return texts[0]
    return "/".join(text.replace("%", "%25").replace("/", "%2F") for text in texts)


def _made_up() -> Floats:
    population = Population(SUBJECTS, features_per_subject=20 * PER_SUBJECT)
    faces = next(population.faces())
    rows = [np.flatnonzero(faces.subjects == subject)[:PER_SUBJECT] for subject in range(SUBJECTS)]
    return faces.features[np.concatenate(rows)].astype(np.float32)
