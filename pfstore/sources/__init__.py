"""Legacy stores of features, read only: databases, HDF5 files, npz and npy files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pfstore.config import SourceConfig
    from pfstore.sources.base import FeatureSource


def open_source(config: SourceConfig, name: str, folder: Path) -> FeatureSource:
    """Open the source of this name; relative paths, also those of SQLite files, start from folder.

    Raises ConfigError where the configuration does not fit the source, SourceError where it cannot be opened.
    """
    if config.path is None:
        from pfstore.sources.sql import SqlSource

        return SqlSource(_from_folder(config, folder), name)
    path = folder / config.path.expanduser()
    # The configuration allows a column of labels to databases alone.
    extractor = config.extractor if isinstance(config.extractor, str) else None
    if path.suffix in (".npz", ".npy") or (path.is_dir() and any(path.glob("*.npy"))):
        from pfstore.sources.files import FileSource

        return FileSource(path, extractor=extractor, name=name, dimension=config.dimension)
    from pfstore.sources.hdf5 import Hdf5Source

    return Hdf5Source(path, extractor=extractor, name=name, dimension=config.dimension)


def _from_folder(config: SourceConfig, folder: Path) -> SourceConfig:
    """Return the configuration with the path of a SQLite file made absolute."""
    import sqlalchemy as sa

    try:
        url = sa.make_url(config.url or "")
    except sa.exc.ArgumentError:
        return config  # SqlSource says what is wrong, without the password
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return config
    absolute = url.set(database=str(folder / url.database))
    return config.model_copy(update={"url": absolute.render_as_string(hide_password=False)})
