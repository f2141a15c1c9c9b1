"""Which source reads a path: told by the configuration, else by what is there."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pfstore.config import FileFormat, SourceConfig
from pfstore.errors import ConfigError, SourceError
from pfstore.sources.stamps import stamp

if TYPE_CHECKING:
    from pfstore.sources.keyed import KeyedSource

_SUFFIXES: dict[str, FileFormat] = {".npz": "npz", ".npy": "npy", ".gal": "gal", ".edb": "edb"}


class _Format(NamedTuple):
    """The source that reads a format, and which keys it takes beside those that all take."""

    module: str
    source: str
    keys: tuple[str, ...] = ()


_FORMATS: dict[FileFormat, _Format] = {
    "hdf5": _Format("pfstore.sources.hdf5", "Hdf5Source"),
    "npz": _Format("pfstore.sources.files", "FileSource"),
    "npy": _Format("pfstore.sources.files", "FileSource"),
    "ijb": _Format("pfstore.sources.formats.ijb", "IjbSource", ("index", "subjects")),
    "edb": _Format("pfstore.sources.formats.edb", "EdbSource", ("index", "encoding")),
    "gal": _Format("pfstore.sources.formats.gal", "GalSource", ("subject_pattern",)),
    "frames": _Format("pfstore.sources.formats.frames", "FramesSource", ("subject_pattern",)),
    "deepface": _Format("pfstore.sources.formats.pickles", "DeepFaceSource", ("subject_pattern",)),
    "encodings": _Format("pfstore.sources.formats.pickles", "EncodingsSource"),
}


def open_files(config: SourceConfig, name: str) -> KeyedSource:
    """Open the files of a source whose preset, if any, is resolved.

    Raises ConfigError where a key is missing or not for this format, SourceError where the files are not such.
    """
    assert config.path is not None
    kind = config.format or format_of(config.path, name)
    found = _FORMATS[kind]
    given = {key: getattr(config, key) for key in ("index", "subjects", "subject_pattern") if getattr(config, key)}
    if config.feature is not None:
        given["encoding"] = config.feature.encoding
    if unused := [key for key in given if key not in found.keys]:
        raise ConfigError(f"sources.{name}: files of the format {kind} take no {unused[0]}")
    options = {key: given.get(key) for key in found.keys}
    if "encoding" in options:
        options["encoding"] = _encoding(config, name)
    extractor = config.extractor if isinstance(config.extractor, str) else None
    # Some of them load slowly, and a run reads one format.
    opener = getattr(import_module(found.module), found.source)
    named = [path for path in (config.path, config.index, config.subjects) if path is not None]
    before = _stamp(named)
    opened: KeyedSource = opener(config.path, extractor=extractor, name=name, dimension=config.dimension, **options)
    # One that was found while opening is young where it was written to meanwhile, and so not believed.
    beside = [] if config.index or opened.beside is None else [opened.beside]
    after = stamp([*named, *beside])
    # Another file, of old times, may have taken the place of one of these, and a link have been set to another.
    opened.told(config.identity, after if before == stamp(named) else b"")
    return opened


def _stamp(paths: Sequence[Path]) -> bytes:
    """Return the stamp of files, b"" where one cannot be read: opening says so in its own words."""
    try:
        return stamp(paths)
    except SourceError:
        return b""


def format_of(path: Path, name: str) -> FileFormat:
    """Return the format that a path's name and content tell; HDF5 where nothing else does.

    Raises ConfigError for a pickle, as several formats are such.
    """
    if path.suffix in (".pkl", ".pickle"):
        raise ConfigError(f'sources.{name}: {path} does not say whose it is; set format = "deepface" or "encodings"')
    if path.suffix in _SUFFIXES:
        return _SUFFIXES[path.suffix]
    return "npy" if path.is_dir() and any(path.glob("*.npy")) else "hdf5"


def _encoding(config: SourceConfig, name: str) -> Any:
    from pfstore.sources.encodings import parse_encoding

    if config.feature is None:
        raise ConfigError(f'sources.{name}: say how a template is written, as feature = {{ encoding = "float32-le" }}')
    return parse_encoding(config.feature.encoding, config.allow_pickle)
