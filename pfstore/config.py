"""pfstore.toml: what it may say, where it is looked for, and how a mistake in it is answered."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from pfstore.errors import ConfigError

FILE_NAME = "pfstore.toml"
_VARIABLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")

_Found = TypeVar("_Found")

Name = Annotated[str, Field(min_length=1, max_length=200)]
Cause = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseConfig(_Section):
    """The PostgreSQL that holds the galleries: "embedded:", "embedded:FOLDER" or a postgresql:// URL.

    read_url: the postgresql:// URL of a replica of it, which answers searches and verifications.
    """

    url: str = Field(default="embedded:", repr=False)
    read_url: str | None = Field(default=None, repr=False)

    @field_validator("read_url")
    @classmethod
    def _replica_is_no_embedded_server(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("embedded:"):
            raise ValueError("the embedded server has no replica; give the postgresql:// URL of one, or no read_url")
        return value


class FeatureColumn(_Section):
    """The column that holds the features and the encoding of its values; in files there is no column."""

    column: Name | None = None
    encoding: Name


class QualityColumn(_Section):
    """A column with the quality of each feature; rows below `minimum` are rejected."""

    column: Name
    minimum: float | None = None


class ChangedColumn(_Section):
    """A column whose value changes with a row, as a time of the last change.

    safe: that it does so whenever the row's feature does, so that features need not be read to see that they are as
    they were. Nobody can tell that but you: even a column that the database sets can be written with its old value.
    """

    column: Name
    safe: bool = False


class ExtractorColumn(_Section):
    """A column that names the extractor of each row; with `value` only those rows are read."""

    column: Name
    value: str | None = None


FileFormat = Literal["hdf5", "npz", "npy", "ijb", "edb", "gal", "frames", "deepface", "encodings"]
"""How features lie in files: see pfstore.sources.formats."""


class SourceConfig(_Section):
    """One legacy store: a database (`url` with `table` or `query`) or files (`path`).

    preset: the system that made the store, or one generation of its schema; it gives every key that is not given
    here. prefix, subject_pattern: what a preset leaves open: the prefix of the tables' names, and the regular
    expression whose first group is the subject, which some formats of files take too. row: the key of a row,
    where a query has one. exclude: SQL conditions by cause; rows for which one holds are not read but counted.
    format: of the files, where their names do not tell. index: the text that says what is where in them.
    subjects: a CSV "template,subject".
    """

    url: str | None = Field(None, repr=False)
    path: Path | None = None
    preset: Name | None = None
    prefix: str | None = Field(None, pattern=r"^\w*$")
    subject_pattern: str | None = None
    format: FileFormat | None = None
    index: Path | None = None
    subjects: Path | None = None
    table: Name | None = None
    query: str | None = None
    row: Name | tuple[Name, ...] = ()
    subject: Name | tuple[Name, ...] = ()
    medium: Name | tuple[Name, ...] = ()
    feature: FeatureColumn | None = None
    quality: QualityColumn | None = None
    changed: ChangedColumn | None = None
    where: str | None = None
    exclude: dict[Cause, str | Literal[False]] = Field(default_factory=dict)
    extractor: Name | ExtractorColumn | None = None
    dimension: int | None = Field(None, ge=1, le=16_000)
    statement_timeout: float = Field(3600, gt=0, description="seconds")
    allow_pickle: bool = False

    @field_validator("quality", "changed", mode="before")
    @classmethod
    def _may_be_a_name(cls, value: object) -> object:
        return {"column": value} if isinstance(value, str) else value

    @field_validator("subject_pattern")
    @classmethod
    def _pattern_has_a_group(cls, value: str | None) -> str | None:
        if value is not None:
            subject_expression(value)
        return value

    @model_validator(mode="after")
    def _is_one_kind(self) -> SourceConfig:
        if (self.url is None) == (self.path is None):
            raise ValueError("a source needs either url (a database) or path (files)")
        if self.path is not None:
            self._refuse_keys(_OF_DATABASES, "is for databases; a source of files is laid out by itself")
            if self.feature and self.feature.column:
                raise ValueError("feature.column is for databases; of files only the encoding can be told")
            if isinstance(self.extractor, ExtractorColumn):
                raise ValueError("extractor.column is for databases; name the extractor of the files")
            return self
        self._refuse_keys(_OF_FILES, "is for files")
        if self.preset is None:
            self._check_complete()
        return self

    def _check_complete(self) -> None:
        self._refuse_keys(("prefix", "subject_pattern"), "is for presets; write it into the query")
        if (self.table is None) == (self.query is None):
            raise ValueError("a database source needs either table or query, or a preset")
        if not self.subject or self.feature is None or self.extractor is None:
            raise ValueError("a database source needs subject, feature and extractor, or a preset")
        if self.feature.column is None:
            raise ValueError("feature needs the column that it is in")
        if self.row and self.table:
            raise ValueError("row is for queries; a table's primary key is known")

    def _refuse_keys(self, keys: tuple[str, ...], why: str) -> None:
        if given := [key for key in keys if getattr(self, key)]:
            raise ValueError(f"{given[0]} {why}")

    def completed(self, mapping: Mapping[str, Any]) -> SourceConfig:
        """Return this source with the keys of a preset's mapping that are not given here, and without the preset.

        A cause of exclusion that is false here is not excluded. Raises ConfigError where the two do not go together.
        """
        spent = {"preset", "prefix"} if self.path else {"preset", "prefix", "subject_pattern"}
        merged = {**mapping, **self.model_dump(exclude_unset=True, exclude=spent)}
        if self.table or self.query:
            merged |= {"table": self.table, "query": self.query, "row": self.row}
        if conditions := {**mapping.get("exclude", {}), **self.exclude}:
            merged["exclude"] = {cause: one for cause, one in conditions.items() if one is not False}
        try:
            return SourceConfig.model_validate(merged)
        except ValidationError as error:
            raise ConfigError(f"preset {self.preset}: {_first_mistake(error)}") from None

    @property
    def subject_columns(self) -> tuple[str, ...]:
        """The columns whose values together are the subject's key."""
        return (self.subject,) if isinstance(self.subject, str) else self.subject

    @property
    def identity(self) -> str:
        """Everything here that decides which rows are read, as text; without user and password, which may change."""
        from sqlalchemy import make_url

        described = self.model_dump(mode="json", exclude={"url", "statement_timeout"}, exclude_defaults=True)
        if self.url is not None:
            described["url"] = make_url(self.url).set(username=None, password=None).render_as_string()
        return json.dumps(described, sort_keys=True)

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The columns of a query whose values together are the row's key; empty where it has none."""
        return (self.row,) if isinstance(self.row, str) else self.row

    @property
    def medium_columns(self) -> tuple[str, ...]:
        """The columns whose values together name the medium within a subject; empty where there is none."""
        return (self.medium,) if isinstance(self.medium, str) else self.medium


_OF_DATABASES = ("table", "query", "row", "subject", "medium", "quality", "changed", "where", "exclude", "prefix")
_OF_FILES = ("format", "index", "subjects")


class GalleryConfig(_Section):
    """A gallery: where its features come from and which contract makes its templates.

    strategy: "media" fuses each medium and then the subject's media, "set" all features at once; where
    nothing is said, "media" if the source has media. compact: a template is the sum of the model's blocks, which
    takes a fraction of the room and costs accuracy; `pfstore evaluate --compact` tells how much.
    """

    source: Name
    model: Name
    strategy: Literal["media", "set"] | None = None
    compact: bool = False


class ScheduleConfig(_Section):
    """When a gallery is refreshed: a cron line of five fields, minute, hour, day, month and weekday, in UTC.

    removals: the share of the subjects that may vanish at once.
    """

    gallery: Name
    cron: str
    removals: float = Field(0.5, ge=0, le=1)

    @field_validator("cron")
    @classmethod
    def _cron_line_can_be_read(cls, value: str) -> str:
        from pfstore.cron import checked

        return checked(value)


class Config(_Section):
    """All of pfstore.toml."""

    database: DatabaseConfig = Field(default_factory=lambda: DatabaseConfig(url="embedded:"))
    sources: dict[Name, SourceConfig] = Field(default_factory=dict)
    galleries: dict[Name, GalleryConfig] = Field(default_factory=dict)
    schedules: dict[Name, ScheduleConfig] = Field(default_factory=dict)
    _file: Path | None = PrivateAttr(None)

    @property
    def file(self) -> Path | None:
        """The file that this was read from, if any."""
        return self._file

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the file start from."""
        return self._file.parent if self._file else Path.cwd()

    def source(self, name: str) -> SourceConfig:
        """Return the source of this name. Raises ConfigError naming the nearest one that exists."""
        return _named(self.sources, name, "source", self._file)

    def gallery(self, name: str) -> GalleryConfig:
        """Return the gallery of this name. Raises ConfigError naming the nearest one that exists."""
        return _named(self.galleries, name, "gallery", self._file)


def subject_expression(text: str) -> re.Pattern[str]:
    """Return the regular expression whose first group is a subject. Raises ValueError where it is none or has none."""
    try:
        expression = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    if expression.groups == 0:
        raise ValueError(f"{text!r} has no group; put parentheses around the subject")
    return expression


def load(path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration file, or the first that exists in the usual places, or the defaults.

    Raises ConfigError: no such file, not TOML, an unknown key, a value of the wrong kind, a variable not set.
    """
    found = path or find()
    if found is None:
        return Config()
    text = _read(found)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{found}: not valid TOML: {error}") from None
    try:
        config = Config.model_validate(interpolated(raw, found, environment))
    except ValidationError as error:
        raise ConfigError(f"{found}: {_first_mistake(error)}") from None
    config._file = found.absolute()
    _check_references(config)
    return config


def find() -> Path | None:
    """Return ./pfstore.toml or else the one in the user's configuration folder, None where neither exists."""
    import platformdirs

    places = (Path(FILE_NAME), platformdirs.user_config_path("pfstore") / FILE_NAME)
    return next((place for place in places if place.is_file()), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; `pfstore init` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def interpolated(value: Any, where: object, environment: Mapping[str, str] = os.environ, key: str = "") -> Any:
    """Return a value of TOML's types with every ${VARIABLE} in its texts replaced; $${…} stands for ${…}.

    where, key: for messages. Inside a URL, which has a key that ends in "url", what is put in is percent-encoded.
    Raises ConfigError where a variable is not set.
    """
    if isinstance(value, dict):
        return {k: interpolated(v, where, environment, f"{key}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list):
        return [interpolated(item, where, environment, key) for item in value]
    if not isinstance(value, str):
        return value
    # A password may hold "@" or "/", which inside a URL would end it early.
    within_url = key.endswith("url") and "://" in value

    def substitute(match: re.Match[str]) -> str:
        escaped, name = match.groups()
        if escaped:
            return f"${{{name}}}"
        if name not in environment:
            raise ConfigError(f"{where}: {key}: the environment variable {name} is not set")
        return quote(environment[name], safe="") if within_url else environment[name]

    return _VARIABLE.sub(substitute, value)


def _first_mistake(error: ValidationError) -> str:
    mistakes = error.errors(include_url=False, include_input=False)
    # A misspelt key also leaves the right one missing: the spelling is the news.
    mistake = next((one for one in mistakes if one["type"] == "extra_forbidden"), mistakes[0])
    # Where a value may be of several types, pydantic adds each type's name to the place.
    where = ".".join(str(part) for part in mistake["loc"] if not re.search(r"str\b|Column|\[", str(part)))
    if mistake["type"] != "extra_forbidden":
        return f"{where}: {mistake['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    unknown = str(mistake["loc"][-1])
    known = _known_keys(mistake["loc"][:-1])
    return f"{where}: unknown key{nearest(unknown, known)}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Config
    by_name: dict[str, type[BaseModel]] = {
        "database": DatabaseConfig,
        "sources": SourceConfig,
        "galleries": GalleryConfig,
        "schedules": ScheduleConfig,
    }
    inner: dict[str, type[BaseModel]] = {
        "feature": FeatureColumn,
        "quality": QualityColumn,
        "changed": ChangedColumn,
        "extractor": ExtractorColumn,
    }
    if location:
        section = by_name[str(location[0])]
    if len(location) > 2:
        section = inner[str(location[2])]
    return list(section.model_fields)


def nearest(given: str, known: list[str]) -> str:
    """Return the end of an error message that names the nearest known word and the others."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]}?" if close else ""
    return f"{guess} (known: {', '.join(sorted(known))})" if known else f"{guess} (there is none yet)"


def _named(table: Mapping[str, _Found], name: str, kind: str, file: Path | None) -> _Found:
    if name in table:
        return table[name]
    where = file or f"no {FILE_NAME} was found"
    raise ConfigError(f"{where}: there is no {kind} {name!r}{nearest(name, list(table))}")


def _check_references(config: Config) -> None:
    for name, gallery in config.galleries.items():
        if gallery.source not in config.sources:
            known = nearest(gallery.source, list(config.sources))
            raise ConfigError(f"{config.file}: galleries.{name}.source: no source {gallery.source!r}{known}")
    for name, schedule in config.schedules.items():
        if schedule.gallery not in config.galleries:
            known = nearest(schedule.gallery, list(config.galleries))
            raise ConfigError(f"{config.file}: schedules.{name}.gallery: no gallery {schedule.gallery!r}{known}")
