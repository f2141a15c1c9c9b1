"""Subjects who are perhaps one person: the record of the runs that look for them, and the pairs that they found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from psycopg.rows import args_row, class_row

import pfstore
from pfstore.errors import ContractError, NotFoundError
from pfstore.gallery import thresholds
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.locking import held
from pfstore.gallery.thresholds import Threshold, needed

LOCK_CLASS = 0x7067
"""The first key of the advisory locks of runs; the second is the version."""


@dataclass(frozen=True)
class Dedupe:
    """A run over a version's templates, of which there were so many when it began."""

    dedupe_id: int
    version_id: int
    threshold: float
    templates: int
    state: Literal["running", "done", "abandoned"]
    started_at: datetime
    finished_at: datetime | None

    @property
    def comparisons(self) -> int:
        """All pairs of templates."""
        return self.templates * (self.templates - 1) // 2


@dataclass(frozen=True)
class Block:
    """Subjects after one (None: the first of all) to the last one (None: of all) by their keys.

    They are compared with each other and with all who come later.
    """

    number: int
    after: str | None
    last: str | None
    done: bool


class Pair(NamedTuple):
    """Two subjects whose templates have this comparison score; subject_a is the first by code points."""

    subject_a: str
    subject_b: str
    score: float


@dataclass(frozen=True)
class Cluster:
    """Subjects who are held together by pairs, rising by their keys.

    best, weakest: the greatest and the least score among its pairs. Where not all of its subjects are pairs of each
    other, a chain holds them together, and they may well be several persons.
    """

    subjects: Sequence[str]
    pairs: int
    best: float
    weakest: float

    @property
    def possible(self) -> int:
        """How many pairs there would be if all were alike."""
        return len(self.subjects) * (len(self.subjects) - 1) // 2

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)


@contextmanager
def alone(connection: Connection, version: Version) -> Iterator[None]:
    """Be the only run over a version. Raises BusyError where another process is."""
    busy = f"another process is looking for duplicates in {version.said}: wait for it"
    with held(connection, (LOCK_CLASS, version.version_id), busy):
        yield


def strictest(connection: Connection, version: Version) -> Threshold:
    """Return the version's threshold at the least FMR that LEAST_ERRORS errors were expected of.

    Below that a backfill stores a threshold that no comparison within the gallery reached, so no duplicate either.
    Raises ContractError where there is none.
    """
    known = [one for one in thresholds.stored(connection, version) if one.kind == "fmr"]
    kept = [one for one in known if one.comparisons >= needed(one.target)]
    if not kept:
        raise ContractError(
            f"gallery {version.gallery!r} has too few subjects to tell a threshold: give one with --threshold"
        )
    return min(kept, key=lambda one: one.target)


_COLUMNS = "dedupe_id, version_id, threshold, templates, state, started_at, finished_at"

# The time of fusing, in microseconds, is the seed of each subject's hash: one written anew counts as another.
_CONTENTS = """
    SELECT count(*), coalesce(bit_xor(hashtextextended(subject_id, fused)), 0)
    FROM (SELECT subject_id, (extract(epoch FROM fused_at) * 1000000)::bigint AS fused
          FROM pfstore.templates WHERE version_id = %s) t
"""

_BLOCKS = """
    INSERT INTO pfstore.dedupe_blocks (dedupe_id, number, first_subject, last_subject)
    SELECT %(run)s, number, min(subject_id), max(subject_id)
    FROM (SELECT subject_id, (row_number() OVER (ORDER BY subject_id) - 1) / %(rows)s AS number
          FROM pfstore.templates WHERE version_id = %(version)s) numbered
    GROUP BY number
"""


def start(connection: Connection, version: Version, threshold: float, rows: int) -> Dedupe:
    """Store a new run with its blocks of so many subjects, instead of what it puts out of date.

    Unfinished runs of the version are abandoned; those at this threshold, or over what it no longer holds, are removed.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        unfinished = "SELECT dedupe_id FROM pfstore.dedupes WHERE version_id = %s AND state = 'running'"
        for (run,) in connection.execute(unfinished, (version.version_id,)).fetchall():
            _abandon(connection, run)
        templates, contents = _contents(connection, version)
        connection.execute(
            "DELETE FROM pfstore.dedupes WHERE version_id = %s AND state = 'done'"
            " AND (threshold = %s OR (templates, contents) <> (%s, %s))",
            (version.version_id, threshold, templates, contents),
        )
        run = _started(connection, version, threshold, templates, contents)
        values = {"run": run.dedupe_id, "rows": rows, "version": version.version_id}
        connection.execute(_BLOCKS, values)
    return run


def _started(connection: Connection, version: Version, threshold: float, templates: int, contents: int) -> Dedupe:
    run = (
        connection.cursor(row_factory=class_row(Dedupe))
        .execute(
            "INSERT INTO pfstore.dedupes (version_id, threshold, templates, contents, state, pfstore)"
            f" VALUES (%s, %s, %s, %s, 'running', %s) RETURNING {_COLUMNS}".encode(),
            (version.version_id, threshold, templates, contents, pfstore.__version__),
        )
        .fetchone()
    )
    assert run is not None
    return run


def known(connection: Connection, version: Version, threshold: float) -> Dedupe | None:
    """Return the version's last run at this threshold if it is done or can go on: no template was written since."""
    query = (
        f"SELECT {_COLUMNS} FROM pfstore.dedupes WHERE version_id = %s AND threshold = %s AND state <> 'abandoned'"
        " AND (templates, contents) = (%s, %s) ORDER BY dedupe_id DESC LIMIT 1"
    )
    values = (version.version_id, threshold, *_contents(connection, version))
    return connection.cursor(row_factory=class_row(Dedupe)).execute(query.encode(), values).fetchone()


def blocks(connection: Connection, run: Dedupe) -> list[Block]:
    """Return the blocks of a run, by the keys of their subjects."""
    # Who was enrolled between two blocks, or after the last one, is not left out.
    query = """
        SELECT number, lag(last_subject) OVER by_key AS after,
               CASE WHEN lead(number) OVER by_key IS NOT NULL THEN last_subject END AS last,
               done_at IS NOT NULL AS done
        FROM pfstore.dedupe_blocks WHERE dedupe_id = %s
        WINDOW by_key AS (ORDER BY number) ORDER BY number
    """
    return connection.cursor(row_factory=class_row(Block)).execute(query, (run.dedupe_id,)).fetchall()


def count(connection: Connection, run: Dedupe) -> int:
    """Count the pairs that a run has kept so far."""
    row = connection.execute(
        "SELECT count(*) FROM pfstore.dedupe_pairs WHERE dedupe_id = %s", (run.dedupe_id,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def keep(connection: Connection, run: Dedupe, block: Block, found: Iterable[Pair]) -> None:
    """Store the pairs of a block and that it is done, in one transaction.

    Raises NotFoundError where the version was dropped meanwhile.
    """
    with connection.transaction():
        query = "SELECT true FROM pfstore.dedupes WHERE dedupe_id = %s FOR KEY SHARE"
        if connection.execute(query, (run.dedupe_id,)).fetchone() is None:
            raise NotFoundError("the version was dropped meanwhile, so its duplicates are not stored")
        statement = "COPY pfstore.dedupe_pairs (dedupe_id, subject_a, subject_b, score) FROM STDIN (FORMAT binary)"
        with connection.cursor().copy(statement) as copy:
            copy.set_types(["int8", "text", "text", "float8"])
            for pair in found:
                copy.write_row((run.dedupe_id, *pair))
        connection.execute(
            "UPDATE pfstore.dedupe_blocks SET done_at = now() WHERE dedupe_id = %s AND number = %s",
            (run.dedupe_id, block.number),
        )


def finish(connection: Connection, run: Dedupe) -> None:
    """Mark a run as done."""
    connection.execute(
        "UPDATE pfstore.dedupes SET state = 'done', finished_at = now() WHERE dedupe_id = %s", (run.dedupe_id,)
    )


def abandon(connection: Connection, run: Dedupe) -> None:
    """Give a run up, and what it found."""
    with connection.transaction():
        _abandon(connection, run.dedupe_id)


def _abandon(connection: Connection, run: int) -> None:
    connection.execute("DELETE FROM pfstore.dedupe_pairs WHERE dedupe_id = %s", (run,))
    connection.execute(
        "UPDATE pfstore.dedupes SET state = 'abandoned', finished_at = now() WHERE dedupe_id = %s", (run,)
    )


def pairs(connection: Connection, run: Dedupe) -> list[Pair]:
    """Return the pairs that a run found, the greatest score first, but for subjects who are no longer there."""
    query = """
        SELECT subject_a, subject_b, score FROM pfstore.dedupe_pairs p
        JOIN pfstore.templates a ON a.version_id = %(version)s AND a.subject_id = subject_a
        JOIN pfstore.templates b ON b.version_id = %(version)s AND b.subject_id = subject_b
        WHERE dedupe_id = %(run)s ORDER BY score DESC, subject_a, subject_b
    """
    values = {"version": run.version_id, "run": run.dedupe_id}
    return connection.cursor(row_factory=args_row(Pair), binary=True).execute(query, values).fetchall()


def clusters(found: Sequence[Pair]) -> list[Cluster]:
    """Return the subjects that pairs hold together, directly or by others; the best score first."""
    import networkx as nx

    graph: Any = nx.Graph()
    graph.add_edges_from((pair.subject_a, pair.subject_b) for pair in found)
    components = [sorted(subjects) for subjects in nx.connected_components(graph)]
    place = {subject: number for number, subjects in enumerate(components) for subject in subjects}
    scores: list[list[float]] = [[] for _ in components]
    for pair in found:
        scores[place[pair.subject_a]].append(pair.score)
    made = [Cluster(one, len(of), max(of), min(of)) for one, of in zip(components, scores, strict=True)]
    return sorted(made, key=lambda one: (-one.best, one.subjects))


def _contents(connection: Connection, version: Version) -> tuple[int, int]:
    row = connection.execute(_CONTENTS, (version.version_id,)).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
