"""Presets held against the schema that a database has now."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from pfstore.sources.presets.catalogue import Preset, all_presets
from pfstore.sources.sql_database import LegacyDatabase
from pfstore.sources.sql_relation import columns_of, tables_of

_PREFIX = "{prefix}"


@dataclass
class LiveSchema:
    """The tables and views of a database's default schema, and the columns of those that were asked for."""

    connection: sa.Connection
    database: LegacyDatabase
    tables: Sequence[str]
    _columns: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, connection: sa.Connection, database: LegacyDatabase) -> LiveSchema:
        """Look at a database."""
        return cls(connection, database, tables_of(connection))

    def has(self, table: str) -> bool:
        """Tell whether there is such a table or view."""
        return self._folded(table) in map(self._folded, self.tables)

    def columns(self, table: str) -> frozenset[str]:
        """Return the names of a table's columns, folded where the database folds them; none where it is not there."""
        found = next((one for one in self.tables if self._folded(one) == self._folded(table)), None)
        if found is None:
            return frozenset()
        if found not in self._columns:
            live = columns_of(self.connection, self.database, sa.table(found))
            self._columns[found] = frozenset(map(self._folded, live))
        return self._columns[found]

    def lacks(self, table: str, columns: Sequence[str]) -> Sequence[str]:
        """Return those of the columns that a table has not."""
        there = self.columns(table)
        return [column for column in columns if self._folded(column) not in there]

    def _folded(self, name: str) -> str:
        return name if self.database.dialect.case_sensitive_names else name.lower()


def recognise(connection: sa.Connection, database: LegacyDatabase) -> list[str]:
    """Return the names of the presets that fit a database, each with every table and column that it reads."""
    schema = LiveSchema.of(connection, database)
    return [preset.name for preset in all_presets().values() if suits(preset, database) and _fits(preset, schema)]


def suggestion(connection: sa.Connection, database: LegacyDatabase) -> str:
    """Return the end of an error message that names the presets which fit, "" where none does."""
    found = recognise(connection, database)
    if not found:
        return ""
    titles = ", ".join(f'{all_presets()[name].title} (preset = "{name}")' for name in found)
    return f"; the database looks like {titles}"


def suits(preset: Preset, database: LegacyDatabase) -> bool:
    """Tell whether a preset is for this kind of database."""
    return database.engine_name in preset.engines


def _fits(preset: Preset, schema: LiveSchema) -> bool:
    try:
        with schema.connection.begin_nested():
            return bool(fitting(preset, schema))
    except sa.exc.DBAPIError:
        return False  # a table that may not be read is none to read from


def fitting(preset: Preset, schema: LiveSchema, prefix: str | None = None) -> list[str]:
    """Return the prefixes with which a preset fits the schema; of a preset without one, the empty one."""
    candidates = [prefix] if prefix is not None else _prefixes(preset, schema)
    return [one for one in candidates if not misfit(preset, schema, one)]


def misfit(preset: Preset, schema: LiveSchema, prefix: str) -> str:
    """Return what keeps a preset from fitting, "" where nothing does."""
    for table, columns in _named(preset.tables, prefix).items():
        if not schema.has(table):
            return f"there is no table {table!r}"
        if lacking := schema.lacks(table, columns):
            return f"the table {table!r} has no column {lacking[0]!r}"
    for table, columns in _named(preset.absent, prefix).items():
        if not columns and schema.has(table):
            return f"there is a table {table!r}, which another generation has"
        if extra := [column for column in columns if not schema.lacks(table, [column])]:
            return f"the table {table!r} has a column {extra[0]!r}, as another generation has"
    return ""


def _named(tables: Mapping[str, tuple[str, ...]], prefix: str) -> dict[str, tuple[str, ...]]:
    return {table.replace(_PREFIX, prefix): columns for table, columns in tables.items()}


def _prefixes(preset: Preset, schema: LiveSchema) -> list[str]:
    """Return the preset's own prefix, and those that the tables of the schema have."""
    first = next(iter(preset.tables), "")
    if _PREFIX not in first:
        return [preset.prefix]
    name = re.compile(re.escape(first).replace(re.escape(_PREFIX), r"(\w*)"))
    found = [match[1] for table in schema.tables if (match := name.fullmatch(table))]
    return list(dict.fromkeys([preset.prefix, *found]))
