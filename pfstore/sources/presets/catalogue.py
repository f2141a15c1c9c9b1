"""The presets that come with pfstore, read from the TOML files beside this one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pfstore.config import FileFormat, Name, nearest
from pfstore.errors import ConfigError


class Preset(BaseModel):
    """One generation of a system's store: where its features are and what to leave out.

    name: as pfstore.toml names it. system: shared by all generations. engines: the databases it lives on, as
    SQLAlchemy calls them, "mysql" also for MariaDB; empty for files, of which format tells the kind.
    normalisation: what the norms of its features are. change_mark, notes: for the operator.
    tables: every table and column that the mapping reads. absent: what only other generations have; a table
    without columns must itself be absent. mapping: the keys of a source in pfstore.toml. prefix,
    subject_pattern: what stands for {prefix} and {subject_pattern} where the user says nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    system: Name
    title: Name
    engines: tuple[Literal["sqlite", "mysql", "postgresql"], ...] = ()
    format: FileFormat | None = None
    normalisation: Literal["unit", "raw", "mixed"]
    change_mark: str
    notes: tuple[str, ...] = ()
    tables: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    absent: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    mapping: Mapping[str, Any] = Field(default_factory=dict)
    prefix: str = ""
    subject_pattern: str | None = None

    @property
    def is_of_files(self) -> bool:
        """Whether this is of files, not of a database."""
        return self.format is not None


@cache
def all_presets() -> Mapping[str, Preset]:
    """Return every preset by its name, sorted."""
    folder = resources.files("pfstore.sources.presets")
    files = sorted((one for one in folder.iterdir() if one.name.endswith(".toml")), key=lambda one: one.name)
    texts = {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}
    return {name: Preset(name=name, **tomllib.loads(text)) for name, text in texts.items()}


def named(text: str) -> Sequence[Preset]:
    """Return the preset of this name, or all generations of the system of this name.

    Raises ConfigError naming the nearest where there is neither.
    """
    presets = all_presets()
    if text in presets:
        return [presets[text]]
    generations = [preset for preset in presets.values() if preset.system == text]
    if not generations:
        systems = {preset.system for preset in presets.values()}
        raise ConfigError(f"there is no preset {text!r}{nearest(text, sorted(systems | set(presets)))}")
    return generations
