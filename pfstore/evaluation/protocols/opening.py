"""Protocols as data: a small TOML file says which protocol, where its files are and where the features."""

from __future__ import annotations

import inspect
import os
import tomllib
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from pfstore.config import SourceConfig, interpolated, nearest
from pfstore.errors import ConfigError
from pfstore.evaluation.protocols.experiment import Experiment
from pfstore.sources.base import FeatureSource

_KINDS = {
    "hdf5": ("hdf5", "hdf5_experiment"),
    "bts": ("bts", "bts_experiment"),
    "ijb-11": ("ijb", "ijb_11"),
    "ijb-1n": ("ijb", "ijb_1n"),
    "dronesurf": ("dronesurf", "dronesurf_experiment"),
    "split": ("split", "split_experiment"),
}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # pydantic's words for it, in models and dataclasses


def load_protocol(path: Path, environment: Mapping[str, str] = os.environ) -> Experiment:
    """Read a protocol file and return its experiment, checked.

    The file is TOML with one table [protocol]: `kind`, which is "hdf5", "bts", "ijb-11", "ijb-1n", "dronesurf" or
    "split", and the parameters of hdf5_experiment, bts_experiment and so on under their own names; the `source` of a
    split is written as in pfstore.toml. Relative paths start from the file's folder, and ${VARIABLES} are taken from
    the environment.

    Raises ConfigError where there is no such file, it is not TOML, has an unknown key or a value of the wrong kind; and
    what the protocol raises.
    """
    table = _table(path, environment)
    kind = str(table.pop("kind", ""))
    if kind not in _KINDS:
        raise ConfigError(f"{path}: protocol.kind: there is no protocol {kind!r}{nearest(kind, list(_KINDS))}")
    module, name = _KINDS[kind]
    # Some of them load slowly, and a file names one.
    protocol = getattr(import_module(f"pfstore.evaluation.protocols.{module}"), name)
    given = _checked(_model(protocol), table, path)
    arguments = {key: _placed(getattr(given, key), path.absolute().parent) for key in given.model_fields_set}
    return _run(protocol, arguments, path.absolute().parent)


def _run(protocol: Callable[..., Experiment], arguments: dict[str, Any], folder: Path) -> Experiment:
    if "source" not in arguments:
        return protocol(**arguments)
    from pfstore.sources import open_source

    with open_source(arguments.pop("source"), "protocol", folder) as source:
        return protocol(source, **arguments)


def _table(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such protocol file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if list(raw) != ["protocol"] or not isinstance(raw["protocol"], dict):
        raise ConfigError(f"{path}: a protocol file has one table, [protocol], this one has {', '.join(raw) or 'none'}")
    return dict(interpolated(raw["protocol"], path, environment, "protocol"))


def _model(protocol: Callable[..., Experiment]) -> type[BaseModel]:
    """Return what a table may say: the parameters of a protocol; a source is told by its description."""
    hints = typing.get_type_hints(protocol)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(protocol).parameters.items():
        kind = SourceConfig if hints[name] is FeatureSource else hints[name]
        fields[name] = kind, ... if parameter.default is parameter.empty else parameter.default
    return create_model("Protocol", __config__=ConfigDict(extra="forbid"), **fields)


def _checked(model: type[BaseModel], table: Mapping[str, Any], path: Path) -> BaseModel:
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_mistake(error, model)}") from None


def _mistake(error: ValidationError, model: type[BaseModel]) -> str:
    mistakes = error.errors(include_url=False, include_input=False)
    # A misspelt key also leaves the right one missing: the spelling is the news.
    mistake = next((one for one in mistakes if one["type"] in _UNKNOWN), mistakes[0])
    *above, last = mistake["loc"]
    where = ".".join(map(str, ("protocol", *above, last)))
    if mistake["type"] not in _UNKNOWN:
        return f"{where}: {mistake['msg'].removeprefix('Value error, ')}"
    return f"{where}: unknown key{nearest(str(last), _keys(model, above))}"


def _keys(model: type[BaseModel], above: list[int | str]) -> list[str]:
    """Return the keys that are known at a place."""
    if not above:
        return [*model.model_fields, "kind"]
    section = SourceConfig if above[0] == "source" else model.model_fields[str(above[0])].annotation
    if section is SourceConfig:
        return list(SourceConfig.model_fields)
    named = [one for one in typing.get_args(section) if isinstance(one, type) and one is not type(None)]
    return [name for one in named for name in inspect.signature(one).parameters]


def _placed(value: Any, folder: Path) -> Any:
    """Return a value with its relative paths put below the folder."""
    if isinstance(value, Path):
        return folder / value.expanduser()
    return [_placed(one, folder) for one in value] if isinstance(value, list | tuple) else value
