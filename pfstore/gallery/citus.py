"""Spreading the galleries over the nodes of a Citus cluster: which tables, by which column, by which statements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql
from psycopg.rows import class_row

from pfstore.errors import ConflictError, DatabaseError
from pfstore.gallery import tables
from pfstore.gallery.database import Connection

COLUMN = "subject_id"
"""Where a row is kept follows from its subject."""

DISTRIBUTED = ("templates", "marks")
"""Cut into shards by COLUMN, the first one's and with it its partitions."""

LOCAL = ("schedules", "workers")
"""Left on the coordinator, with the queue that they are joined with; every other table is whole on every node."""

SETTINGS: Mapping[LiteralString, str] = {
    # A transaction that writes shards and then a table which they refer to needs one connection to each node.
    "citus.multi_shard_modify_mode": "sequential",
    # Pairs of duplicates are joined with the templates of both.
    "citus.enable_repartition_joins": "on",
}
"""Settings of the database that connections of pfstore need."""


@dataclass(frozen=True)
class _Table:
    """A table as Citus knows it. citus_table_type: "distributed", "reference", or "local" where foreign keys lead."""

    name: str
    citus_table_type: str
    distribution_column: str
    shard_count: int


def plan(connection: Connection, shards: int | None = None) -> list[str]:
    """Return the SQL statements that are left to distribute the tables, in order; empty where all is done.

    They belong into one transaction. What is distributed already stays as it is. shards: how many to cut the templates
    into, else as many as citus.shard_count says.

    Raises ConflictError where the database has no extension citus, the cluster does not know its coordinator, or a
    table is distributed in another way, DatabaseError where the schema is not this pfstore's.
    """
    there = _there(connection)
    undone = [*_references(there), *_distributions(there, shards)]
    settings = list(_settings(connection))
    return [one.as_string(connection) for one in (*(_whole(undone) if undone else ()), *settings)]


def _whole(undone: Sequence[tuple[str, sql.Composed]]) -> Iterator[sql.Composable]:
    """Yield the statements that distribute tables by name, and those that must stand around them."""
    names = [name for name, _ in undone]
    counters = [
        (table.name, column.name)
        for table in tables.metadata.sorted_tables
        for column in table.columns
        if column.identity is not None and table.name in names
    ]
    yield sql.SQL("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'")
    locked = sql.SQL(", ").join(sql.Identifier(tables.SCHEMA, name) for name in names)
    yield sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(locked)
    # On its way to a reference table one that has foreign keys starts counting from 1 again.
    for name, column in counters:
        yield sql.SQL(
            "SELECT set_config({}, (1 + coalesce(pg_sequence_last_value({}::regclass), 0))::text, true)"
        ).format(sql.Literal(f"{tables.SCHEMA}.next_{column}"), _counter(name, column))
    for _, statement in undone:
        yield statement
    for name, column in counters:
        yield sql.SQL("SELECT setval({}, current_setting({})::bigint, false)").format(
            _counter(name, column), sql.Literal(f"{tables.SCHEMA}.next_{column}")
        )
    # Citus leaves what it has copied where it was, out of sight: templates that an erasure would never find.
    for name in reversed(names):
        yield _call("truncate_local_data_after_distributing_table", sql.Literal(f"{tables.SCHEMA}.{name}"))


def _counter(table: str, column: str) -> sql.Composed:
    return sql.SQL("pg_get_serial_sequence({}, {})").format(
        sql.Literal(f"{tables.SCHEMA}.{table}"), sql.Literal(column)
    )


def distribute(connection: Connection, shards: int | None = None) -> list[str]:
    """Run what `plan` returns, all of it or nothing, and return it; nobody can write meanwhile.

    Raises what `plan` does. Connections that are open already do not have the settings that it makes.
    """
    with connection.transaction():
        statements = plan(connection, shards)
        for statement in statements:
            connection.execute(statement.encode())
    return statements


def _there(connection: Connection) -> dict[str, _Table]:
    """Return the tables of ours that Citus knows, by name."""
    if connection.execute("SELECT FROM pg_extension WHERE extname = 'citus'").fetchone() is None:
        raise ConflictError(
            "the database has no extension citus: install Citus on every node, name it in shared_preload_libraries, "
            "run CREATE EXTENSION citus in this database on each, and citus_add_node for every worker"
        )
    groups = [group for (group,) in connection.execute("SELECT groupid FROM pg_dist_node WHERE noderole = 'primary'")]
    if groups and 0 not in groups:
        # Without it joins with the tables that are kept whole are refused.
        raise ConflictError(
            "Citus does not know its coordinator by an address that the workers reach: "
            "run SELECT citus_set_coordinator_host('…') first"
        )
    missing = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(%s || '.' || name) IS NULL",
            ([table.name for table in tables.metadata.sorted_tables], tables.SCHEMA),
        )
    ]
    if missing:
        raise DatabaseError(f"the database has no table {tables.SCHEMA}.{missing[0]}: run `pfstore db upgrade` first")
    rows = connection.cursor(row_factory=class_row(_Table)).execute(
        "SELECT relname AS name, citus_table_type, distribution_column, shard_count"
        " FROM citus_tables JOIN pg_class ON oid = table_name WHERE relnamespace = to_regnamespace(%s)",
        (tables.SCHEMA,),
    )
    # A table that is linked with others by foreign keys becomes known to Citus with them, and is local still.
    return {one.name: one for one in rows if one.citus_table_type != "local"}


def _references(there: Mapping[str, _Table]) -> Iterator[tuple[str, sql.Composed]]:
    # In the order of the foreign keys: one of a reference table may only lead to another one.
    for table in tables.metadata.sorted_tables:
        if table.name in (*DISTRIBUTED, *LOCAL):
            continue
        if table.name not in there:
            yield table.name, _call("create_reference_table", sql.Literal(f"{tables.SCHEMA}.{table.name}"))
        elif there[table.name].citus_table_type != "reference":
            raise _otherwise(there[table.name])


def _distributions(there: Mapping[str, _Table], shards: int | None) -> Iterator[tuple[str, sql.Composed]]:
    first = f"{tables.SCHEMA}.{DISTRIBUTED[0]}"
    for name in DISTRIBUTED:
        known = there.get(name)
        if known is None:
            values: list[sql.Composable] = [sql.Literal(f"{tables.SCHEMA}.{name}"), sql.Literal(COLUMN)]
            if name != DISTRIBUTED[0]:
                values.append(sql.SQL("colocate_with => {}").format(sql.Literal(first)))
            elif shards is not None:
                values.append(sql.SQL("shard_count => {}").format(sql.Literal(shards)))
            yield name, _call("create_distributed_table", *values)
        elif (known.citus_table_type, known.distribution_column) != ("distributed", COLUMN):
            raise _otherwise(known)
        elif shards not in (None, known.shard_count):
            raise ConflictError(
                f"{tables.SCHEMA}.{name} has {known.shard_count} shards already, not {shards}: change that with "
                f"alter_distributed_table('{first}', shard_count => {shards}, cascade_to_colocated => true)"
            )


def _settings(connection: Connection) -> Iterator[sql.Composed]:
    query = (
        "SELECT current_database(), coalesce((SELECT setconfig FROM pg_db_role_setting WHERE setrole = 0"
        " AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())), '{}')"
    )
    row = connection.execute(query).fetchone()
    assert row is not None
    database, known = row
    for name, value in SETTINGS.items():
        if f"{name}={value}" not in known:
            change = sql.SQL("ALTER DATABASE {} SET {} TO {}")
            yield change.format(sql.Identifier(database), sql.SQL(name), sql.Literal(value))


def _call(function: LiteralString, *values: sql.Composable) -> sql.Composed:
    return sql.SQL("SELECT {}({})").format(sql.SQL(function), sql.SQL(", ").join(values))


def _otherwise(known: _Table) -> ConflictError:
    column = f" by {known.distribution_column}" if known.citus_table_type == "distributed" else ""
    return ConflictError(
        f"{tables.SCHEMA}.{known.name} is a {known.citus_table_type} table of Citus already{column}: "
        f"run SELECT undistribute_table('{tables.SCHEMA}.{known.name}') first"
    )
