"""Galleries and their versions: which contract made which templates, and which version answers searches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias

from psycopg import sql
from psycopg.errors import LockNotAvailable
from psycopg.rows import class_row

from pfstore.config import nearest
from pfstore.errors import BusyError, ConflictError, NotFoundError
from pfstore.gallery.coarse import MOST_INLINE, is_kept
from pfstore.gallery.database import Connection
from pfstore.gallery.locking import locked
from pfstore.gallery.tables import PARTITION_PREFIX, SCHEMA

Strategy: TypeAlias = Literal["media", "set"]

HNSW_MOST_DIMENSIONS = 4000
"""The most values of a halfvec that pgvector's HNSW index takes."""

# Searches queue up behind what locks a partition, so it must not itself wait long for another transaction.
BRIEFLY = "SET LOCAL lock_timeout = '3s'"

# Dropping locks all versions: it tries so shortly, lets the searches through that wait, and tries again.
ATTEMPT = "SET LOCAL lock_timeout = '100ms'"
PAUSE = 0.4
PATIENCE = 10.0
"""Seconds between two attempts, and of all of them."""


@dataclass(frozen=True)
class Contract:
    """Everything that must be equal for two templates to be comparable."""

    extractor: str
    dimension: int
    normalisation: str
    model_digest: str
    strategy: Strategy
    compact: bool = False


@dataclass(frozen=True)
class Version:
    """One version of a gallery. blocks * dimension values make a template.

    compact: a template is the normalised sum of the model's blocks, itself of one block. indexed: it has an HNSW index.
    """

    version_id: int
    gallery: str
    number: int
    extractor: str
    dimension: int
    normalisation: str
    model: str
    model_digest: str
    strategy: Strategy
    blocks: int
    compact: bool
    state: Literal["building", "active", "retired"]
    empty: bool
    indexed: bool
    created_at: datetime
    promoted_at: datetime | None

    @property
    def contract(self) -> Contract:
        """The contract that made this version's templates."""
        return Contract(
            self.extractor, self.dimension, self.normalisation, self.model_digest, self.strategy, self.compact
        )

    @property
    def said(self) -> str:
        """What it is called in messages."""
        return f"version {self.number} of gallery {self.gallery!r}"

    @property
    def backfill(self) -> str:
        """The command that goes on filling it, for messages."""
        return f"`pfstore backfill {self.gallery}{' --compact' if self.compact else ''}`"

    @property
    def template_dimension(self) -> int:
        """Values in one template."""
        return self.blocks * self.dimension

    @property
    def scanned(self) -> str:
        """The column that the first stage of a search compares."""
        return "coarse" if is_kept(self.blocks, self.dimension) else "template"

    @property
    def scanned_values(self) -> int:
        """The values in it."""
        return self.dimension if self.scanned == "coarse" else self.template_dimension

    @property
    def indexable(self) -> bool:
        """Whether it is short enough for an index."""
        return self.scanned_values <= HNSW_MOST_DIMENSIONS

    @property
    def partition(self) -> sql.Identifier:
        """The table that holds this version's templates and no others."""
        return sql.Identifier(SCHEMA, f"{PARTITION_PREFIX}{self.version_id}")

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        promoted = self.promoted_at and self.promoted_at.isoformat()
        return asdict(self) | {"created_at": self.created_at.isoformat(), "promoted_at": promoted}


# Asked before every search, so it counts no templates; `versions` finds out which are empty.
_VERSIONS = """
    SELECT v.version_id, g.name AS gallery, v.number, v.extractor, v.dimension, v.normalisation,
           m.name AS model, v.model_digest, v.strategy, v.blocks, v.compact, v.state, v.created_at, v.promoted_at,
           false AS empty,
           to_regclass('pfstore.templates_v' || v.version_id || '_hnsw') IS NOT NULL AS indexed
    FROM pfstore.versions v
    JOIN pfstore.galleries g USING (gallery_id)
    JOIN pfstore.models m ON m.digest = v.model_digest
"""


def names(connection: Connection) -> list[str]:
    """Return the names of all galleries."""
    return [name for (name,) in connection.execute("SELECT name FROM pfstore.galleries ORDER BY name")]


def create(connection: Connection, name: str) -> None:
    """Make a gallery without versions. Raises ConflictError where the name is taken or empty."""
    if not name.strip():
        raise ConflictError("a gallery needs a name")
    row = connection.execute(
        "INSERT INTO pfstore.galleries (name) VALUES (%s) ON CONFLICT DO NOTHING RETURNING gallery_id",
        (name,),
    ).fetchone()
    if row is None:
        raise ConflictError(f"there already is a gallery {name!r}")


def versions(connection: Connection, name: str | None = None) -> list[Version]:
    """Return the versions of one gallery, or of all, oldest first.

    Raises NotFoundError for an unknown gallery, naming the nearest that exists.
    """
    if name is not None and name not in (known := names(connection)):
        raise NotFoundError(f"there is no gallery {name!r}{nearest(name, known)}")
    query = f"{_VERSIONS} WHERE %(name)s::text IS NULL OR g.name = %(name)s ORDER BY g.name, v.number"
    found = connection.cursor(row_factory=class_row(Version)).execute(query, {"name": name}).fetchall()
    filled = _filled(connection, [one.version_id for one in found])
    return [replace(one, empty=one.version_id not in filled) for one in found]


def _filled(connection: Connection, version_ids: Sequence[int]) -> set[int]:
    """Return those versions that hold templates. Citus takes no subquery that depends on a row of versions."""
    if not version_ids:
        return set()
    look = sql.SQL("(SELECT version_id FROM pfstore.templates WHERE version_id = {} LIMIT 1)")
    query = sql.SQL(" UNION ALL ").join(look.format(sql.Literal(one)) for one in version_ids)
    return {one for (one,) in connection.execute(query)}


def counts(connection: Connection) -> dict[int, int]:
    """Count the templates of every version, by version_id; the time is linear in their number."""
    query = (
        "SELECT version_id, coalesce(templates, 0) FROM pfstore.versions"
        " LEFT JOIN (SELECT version_id, count(*) AS templates FROM pfstore.templates GROUP BY version_id) counted"
        " USING (version_id)"
    )
    return dict(connection.execute(query).fetchall())


def version(connection: Connection, name: str, number: int | None = None) -> Version:
    """Return the active version of a gallery, or the one of this number, and make sure that it holds templates.

    Raises NotFoundError: no such gallery or version, no active version yet, an empty version.
    """
    all_versions = versions(connection, name)
    found = [one for one in all_versions if one.number == number or (number is None and one.state == "active")]
    if not found and number is not None:
        there = ", ".join(str(one.number) for one in all_versions) or "none"
        raise NotFoundError(f"gallery {name!r} has no version {number} (there: {there})")
    if not found:
        building = [one for one in all_versions if one.state == "building"]
        state = "its first version is still being built" if building else "it is empty"
        command = building[0].backfill if building else f"`pfstore backfill {name}`"
        raise NotFoundError(f"gallery {name!r} cannot be searched yet: {state}; run {command}")
    if found[0].empty:
        raise NotFoundError(f"gallery {name!r} is empty: version {found[0].number} holds no template")
    return found[0]


def active_number(connection: Connection, name: str) -> int | None:
    """Return the number of the version that answers a gallery's searches, None where none does."""
    return next((one.number for one in versions(connection, name) if one.state == "active"), None)


def ensure(connection: Connection, name: str, contract: Contract, blocks: int) -> Version:
    """Return the gallery's version of this contract, making the gallery and the version where they are missing.

    A new version is "building" until it is promoted; a retired one of the same contract is taken up again.
    """
    with connection.transaction():
        connection.execute("INSERT INTO pfstore.galleries (name) VALUES (%s) ON CONFLICT DO NOTHING", (name,))
        # Whoever comes second waits here and then finds the version that the first one made.
        connection.execute("SELECT FROM pfstore.galleries WHERE name = %s FOR UPDATE", (name,))
        same = [one for one in versions(connection, name) if one.contract == contract]
        if same:
            return max(same, key=lambda one: (one.state == "active", one.number))
        _create_version(connection, name, contract, blocks)
    return max(versions(connection, name), key=lambda one: one.number)


def _create_version(connection: Connection, name: str, contract: Contract, blocks: int) -> None:
    row = connection.execute(
        """
        INSERT INTO pfstore.versions
            (gallery_id, number, extractor, dimension, normalisation, model_digest, strategy, compact, blocks, state)
        SELECT gallery_id, coalesce(max(v.number), 0) + 1, %s, %s::int, %s, %s, %s, %s::boolean, %s::int, 'building'
        FROM pfstore.galleries g LEFT JOIN pfstore.versions v USING (gallery_id)
        WHERE g.name = %s
        GROUP BY gallery_id
        RETURNING version_id
        """,
        (
            contract.extractor,
            contract.dimension,
            contract.normalisation,
            contract.model_digest,
            contract.strategy,
            contract.compact,
            blocks,
            name,
        ),
    ).fetchone()
    assert row is not None
    # Attached after it is made, because making it as a partition would lock out every search meanwhile.
    partition = sql.Identifier(SCHEMA, f"{PARTITION_PREFIX}{row[0]}")
    connection.execute(sql.SQL("CREATE TABLE {} (LIKE pfstore.templates INCLUDING ALL)").format(partition))
    if not is_kept(blocks, contract.dimension) and blocks * contract.dimension <= MOST_INLINE:
        # What every search reads must not lie elsewhere; of several blocks that is the coarse vector.
        connection.execute(sql.SQL("ALTER TABLE {} ALTER COLUMN template SET STORAGE PLAIN").format(partition))
    connection.execute(
        sql.SQL("ALTER TABLE pfstore.templates ATTACH PARTITION {} FOR VALUES IN ({})").format(
            partition, sql.Literal(row[0])
        )
    )


def promote(connection: Connection, name: str, number: int, *, force: bool = False) -> Version:
    """Make a version the one that answers searches; the one before stays for a rollback.

    Raises NotFoundError: no such gallery or version, not any more, or the version holds no template. ConflictError: no
    run over the whole source has ended in this version; force promotes it all the same.
    """
    chosen = version(connection, name, number)
    if not force:
        check_complete(connection, chosen)
    with connection.transaction():
        # Whoever promotes second waits here, and then retires the version that the first one made active.
        connection.execute("SELECT FROM pfstore.galleries WHERE name = %s FOR NO KEY UPDATE", (name,))
        connection.execute(
            "UPDATE pfstore.versions SET state = 'retired' WHERE state = 'active' AND version_id <> %(id)s"
            " AND gallery_id = (SELECT gallery_id FROM pfstore.versions WHERE version_id = %(id)s)",
            {"id": chosen.version_id},
        )
        activated = connection.execute(
            "UPDATE pfstore.versions SET state = 'active', promoted_at = now() WHERE version_id = %s",
            (chosen.version_id,),
        )
        if not activated.rowcount:
            raise NotFoundError(f"{chosen.said} was dropped meanwhile, so it cannot answer searches: promote another")
    return version(connection, name, number)


def check_complete(connection: Connection, chosen: Version) -> None:
    """Raise ConflictError where no run over the whole source has ended in a version."""
    if not is_complete(connection, chosen):
        raise ConflictError(
            f"{chosen.said} is not complete, so searches would miss people: run {chosen.backfill} to its end, "
            "or promote with --force"
        )


def is_complete(connection: Connection, chosen: Version) -> bool:
    """Tell whether a run over the whole source has ended in a version."""
    query = "SELECT EXISTS (SELECT FROM pfstore.runs WHERE version_id = %s AND state = 'done' AND whole)"
    return connection.execute(query, (chosen.version_id,)).fetchone() == (True,)


def rollback(connection: Connection, name: str) -> Version:
    """Promote the version that was active before the present one.

    Raises NotFoundError where there is none.
    """
    before = [one for one in versions(connection, name) if one.state == "retired" and one.promoted_at]
    if not before:
        raise NotFoundError(f"gallery {name!r} has no earlier version to go back to")
    latest = max(before, key=lambda one: one.promoted_at or one.created_at)
    return promote(connection, name, latest.number, force=True)


def drop(connection: Connection, name: str, number: int | None = None) -> int:
    """Drop a version that is not active, or the whole gallery, and return how many templates went.

    All or nothing, whenever it is killed. Searches never wait for it longer than ATTEMPT. Raises NotFoundError for an
    unknown gallery or version, ConflictError for an active version, BusyError where a run is writing one of them or
    other transactions keep the templates for more than PATIENCE.
    """
    chosen = [one for one in versions(connection, name) if number in (None, one.number)]
    if number is not None and not chosen:
        raise NotFoundError(f"gallery {name!r} has no version {number}")
    if number is not None and chosen[0].state == "active":
        raise _in_use(chosen[0])
    there = sum(size(connection, one) for one in chosen)
    with ExitStack() as stack:
        for one in chosen:
            stack.enter_context(locked(connection, one.version_id, one.said, patience=0))
        stack.enter_context(connection.transaction())
        _forget(connection, name, chosen, whole=number is None)
        if chosen:
            said = chosen[0].said if number is not None else f"gallery {name!r}"
            _drop_tables(connection, [one.partition for one in chosen], said)
    return there


def _forget(connection: Connection, name: str, chosen: Sequence[Version], *, whole: bool) -> None:
    """Delete versions, or the gallery with them, and all that is told of them."""
    if whole:
        # In the order in which `promote` locks them.
        connection.execute("SELECT FROM pfstore.galleries WHERE name = %s FOR UPDATE", (name,))
    for one in chosen:
        # What was promoted or dropped since it was chosen.
        query = "SELECT state FROM pfstore.versions WHERE version_id = %s FOR UPDATE"
        state = connection.execute(query, (one.version_id,)).fetchone()
        if state is None:
            raise NotFoundError(f"{one.said} was dropped meanwhile")
        if state == ("active",) and not whole:
            raise _in_use(one)
        connection.execute("DELETE FROM pfstore.versions WHERE version_id = %s", (one.version_id,))
    if whole:
        connection.execute("DELETE FROM pfstore.galleries WHERE name = %s", (name,))


def _drop_tables(connection: Connection, partitions: Sequence[sql.Identifier], said: str) -> None:
    """Drop partitions as the last thing of a transaction, for searches wait from then on.

    DETACH … CONCURRENTLY would let them go on, but takes two transactions: a drop that is killed between them leaves a
    version that `verify` finds empty and `search` finds whole, and no other can be detached until that is mended.
    """
    statement = sql.SQL("DROP TABLE {}").format(sql.SQL(", ").join(partitions))
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with connection.transaction():
                connection.execute(ATTEMPT)
                connection.execute(statement)
            return
        except LockNotAvailable:
            if time.monotonic() > deadline:
                raise BusyError(
                    f"{said} is not dropped: other transactions have been reading or writing templates for "
                    f"{PATIENCE:g} s (`calibrate` does so for as long as it compares); try again when they are over"
                ) from None
        time.sleep(PAUSE)


def _in_use(one: Version) -> ConflictError:
    return ConflictError(f"version {one.number} answers the searches of {one.gallery!r}: promote another one first")


def size(connection: Connection, chosen: Version) -> int:
    """Count a version's templates; the time is linear in their number."""
    query = "SELECT count(*) FROM pfstore.templates WHERE version_id = %s"
    row = connection.execute(query, (chosen.version_id,)).fetchone()
    assert row is not None
    return int(row[0])


def analyze(connection: Connection, chosen: Version) -> None:
    """Let the planner know what a version holds now."""
    connection.execute(sql.SQL("ANALYZE {}").format(chosen.partition))
