"""Legacy stores of features, read only: databases, HDF5 files, npz and npy files, and the files of other systems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pfstore.errors import ConfigError

if TYPE_CHECKING:
    from pfstore.config import SourceConfig
    from pfstore.sources.base import FeatureSource


def open_source(config: SourceConfig, name: str, folder: Path) -> FeatureSource:
    """Open the source of this name; relative paths, also those of SQLite files, start from folder.

    Raises ConfigError where the configuration does not fit the source, SourceError where it cannot be opened.
    """
    complete = complete_source(config, name, folder)
    if complete.path is None:
        from pfstore.sources.sql import SqlSource

        return SqlSource(complete, name)
    from pfstore.sources.formats.opening import open_files

    return open_files(complete, name)


def complete_source(config: SourceConfig, name: str, folder: Path) -> SourceConfig:
    """Return the source with its preset's keys filled in and its paths made absolute.

    Raises ConfigError and SourceError where the preset does not exist or does not fit the store.
    """
    placed = _from_folder(config, name, folder)
    if placed.preset is None:
        return placed
    from pfstore.sources.presets import resolved

    return resolved(placed, name)


def _from_folder(config: SourceConfig, name: str, folder: Path) -> SourceConfig:
    paths = {key: getattr(config, key) for key in ("path", "index", "subjects")}
    try:
        placed = {key: folder / path.expanduser() for key, path in paths.items() if path is not None}
    except RuntimeError as error:  # "~nobody/…"
        raise ConfigError(f"sources.{name}: {error}") from None
    return config.model_copy(update=placed | _sqlite_from_folder(config.url, folder))


def _sqlite_from_folder(given: str | None, folder: Path) -> dict[str, str]:
    """Return the URL of a SQLite file with its path made absolute, nothing where it is another."""
    import sqlalchemy as sa

    try:
        url = sa.make_url(given or "")
    except sa.exc.ArgumentError:
        return {}  # SqlSource says what is wrong, without the password
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return {}
    return {"url": url.set(database=str(folder / url.database)).render_as_string(hide_password=False)}
