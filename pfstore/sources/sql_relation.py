"""The table or query that a mapping names, as it is in the database now."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGInspector

from pfstore.config import SourceConfig, nearest
from pfstore.sources.sql_database import LegacyDatabase
from pfstore.sources.sql_dialects import LiveColumn

_QUOTED = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_SHOWN = 12  # names in an error message: a legacy database may have hundreds of tables


@dataclass(frozen=True)
class Relation:
    """What to select from. columns: by name. primary_key: empty where there is none, as in a query."""

    clause: sa.FromClause
    columns: dict[str, LiveColumn]
    primary_key: tuple[LiveColumn, ...]


def find(connection: sa.Connection, database: LegacyDatabase, config: SourceConfig) -> Relation:
    """Return the table or query of a mapping. Raises MappingError where there is no such table."""
    if config.query is not None:
        clause: sa.FromClause = _subquery(config.query, database)
        return Relation(clause, columns_of(connection, database, clause), ())
    schema, table = located(connection, database, str(config.table))
    clause = sa.table(table, schema=schema)
    columns = columns_of(connection, database, clause)
    key = key_of(connection, schema, table)
    return Relation(clause, columns, tuple(columns[name] for name in key if name in columns))


def key_of(connection: sa.Connection, schema: str | None, table: str) -> list[str]:
    """Return the names of the primary key's columns in order; none where there is no such key."""
    with warnings.catch_warnings():
        # Legacy columns may be of types that SQLAlchemy does not know; pfstore takes none from it.
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        inspector = sa.inspect(connection)
        # Who may read a view on MariaDB or MySQL may not be shown how it is defined; it has no key anyway.
        if table in inspector.get_view_names(schema):
            return []
        return list(inspector.get_pk_constraint(table, schema)["constrained_columns"])


def column(relation: Relation, database: LegacyDatabase, use: str, name: str) -> LiveColumn:
    """Return the live column that a mapping names for this use.

    Raises MappingError naming the nearest column where there is none.
    """
    if name in relation.columns:
        return relation.columns[name]
    if not database.dialect.case_sensitive_names:
        folded = {known.lower(): live for known, live in relation.columns.items()}
        if name.lower() in folded:
            return folded[name.lower()]
    raise database.unmapped(f"{use}: there is no column {name!r}{_nearest(name, relation.columns)}")


def verbatim(text: str) -> sa.TextClause:
    """Return the user's own SQL, of which nothing is taken for a parameter."""
    return sa.text(text.replace(":", r"\:"))


def _subquery(query: str, database: LegacyDatabase) -> sa.FromClause:
    statement = query.strip().rstrip("; \t\r\n")
    bare = _QUOTED.sub(" ", statement).strip().lstrip("( \t\r\n")
    if ";" in bare or not re.match(r"(select|with|values|table)\b", bare, re.IGNORECASE):
        raise database.error("query: must be one SELECT statement")
    # A comment at the end must not swallow the parenthesis.
    return verbatim(statement + "\n").columns().subquery("pfstore_rows")


def columns_of(connection: sa.Connection, database: LegacyDatabase, clause: sa.FromClause) -> dict[str, LiveColumn]:
    """Return the live columns of a table or query by name."""
    statement = sa.select(sa.text("*")).select_from(clause).where(sa.false())
    with connection.execute(statement) as result:
        return {live.name: live for live in database.dialect.columns(connection, result.cursor)}


def located(connection: sa.Connection, database: LegacyDatabase, name: str) -> tuple[str | None, str]:
    """Return the schema and the table of a name, which may itself have a dot in it.

    Raises MappingError naming the nearest table where there is none.
    """
    inspector = sa.inspect(connection)
    schema, dot, table = name.partition(".")
    if inspector.has_table(name):
        return None, name
    if dot and inspector.has_table(table, schema):
        return schema, table
    known = _tables(inspector, None)
    if dot and schema in inspector.get_schema_names():
        known = [f"{schema}.{one}" for one in _tables(inspector, schema)]
    raise database.unmapped(f"there is no table {name!r}{_nearest(name, known)}")


def tables_of(connection: sa.Connection, schema: str | None = None) -> list[str]:
    """Return the names of the tables and views of a schema, the default one if none is named."""
    return _tables(sa.inspect(connection), schema)


def _tables(inspector: sa.Inspector, schema: str | None) -> list[str]:
    names = [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]
    if isinstance(inspector, PGInspector):
        names += [*inspector.get_materialized_view_names(schema), *inspector.get_foreign_table_names(schema)]
    return names


def _nearest(name: str, known: Iterable[str]) -> str:
    return nearest(name, difflib.get_close_matches(name, list(known), n=_SHOWN, cutoff=0.0))
