"""A source that names a preset becomes one that says everything itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pfstore.config import SourceConfig
from pfstore.errors import ConfigError, MappingError
from pfstore.sources.presets.catalogue import Preset, named
from pfstore.sources.presets.live import LiveSchema, fitting, misfit, suggestion, suits
from pfstore.sources.sql_database import LegacyDatabase


def resolved(config: SourceConfig, name: str) -> SourceConfig:
    """Return the source with its preset's keys filled in; one without a preset as it is.

    Of a database, the generation that fits the live schema is chosen, and checked where one is named.

    Raises ConfigError where there is no such preset, or it is not for this kind of store; MappingError, naming
    the table or column that is missing and the preset that would fit; SourceError where the database cannot be
    reached.
    """
    if config.preset is None:
        return config
    candidates = named(config.preset)
    if config.path is not None:
        return config.completed(_of_files(candidates, name))
    with LegacyDatabase(str(config.url), name, config.statement_timeout) as database:
        with database.snapshot() as connection:
            preset, prefix = _chosen(candidates, config, LiveSchema.of(connection, database))
        return config.completed(mapping_of(preset, prefix, config.subject_pattern))


def mapping_of(preset: Preset, prefix: str | None = None, subject_pattern: str | None = None) -> dict[str, Any]:
    """Return the keys of a source as a preset has them, its placeholders filled in."""
    pattern = subject_pattern or preset.subject_pattern or ""
    literal = "'" + pattern.replace("'", "''") + "'"
    filled = dict(preset.mapping)
    for key in ("table", "query"):
        if key in filled:
            text = filled[key].replace("{prefix}", preset.prefix if prefix is None else prefix)
            filled[key] = text.replace("{subject_pattern}", literal)
    return filled


def _of_files(candidates: Sequence[Preset], name: str) -> dict[str, Any]:
    preset = next((one for one in candidates if one.is_of_files), None)
    if preset is None:
        raise ConfigError(f"sources.{name}: the preset {candidates[0].name} is of a database; give its url, not a path")
    pattern = {"subject_pattern": preset.subject_pattern} if preset.subject_pattern else {}
    return {"format": preset.format, **pattern, **preset.mapping}


def _chosen(candidates: Sequence[Preset], config: SourceConfig, schema: LiveSchema) -> tuple[Preset, str]:
    database = schema.database
    suitable = [preset for preset in candidates if suits(preset, database)]
    if not suitable:
        engines = " or ".join(sorted({engine for preset in candidates for engine in preset.engines})) or "files"
        raise database.error(f"the preset {config.preset} is for {engines}, this is {database.engine_name}")
    for preset in suitable:
        prefixes = fitting(preset, schema, config.prefix)
        if len(prefixes) > 1:
            found = ", ".join(map(repr, prefixes))
            raise database.unmapped(f"the preset {preset.name} fits tables of several prefixes ({found}); set prefix")
        if prefixes:
            return preset, prefixes[0]
    raise _misfit(suitable, config, schema)


def _misfit(suitable: Sequence[Preset], config: SourceConfig, schema: LiveSchema) -> MappingError:
    database = schema.database
    reasons = "; ".join(
        f"{preset.title}: {misfit(preset, schema, preset.prefix if config.prefix is None else config.prefix)}"
        for preset in suitable
    )
    hint = suggestion(schema.connection, database)
    return database.unmapped(f"the preset {config.preset} does not fit ({reasons}){hint}")
