"""How far a gallery covers its source now: who has a template as it should be, who has not, who ought to have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pfstore.config import Config
from pfstore.errors import DatabaseError, PfstoreError
from pfstore.gallery.database import Connection
from pfstore.jobs import refresh
from pfstore.sources import open_source


@dataclass(frozen=True)
class Coverage:
    """How many subjects of a source are in which state against a gallery's version.

    covered: their template is as it should be. stale: changed, or nobody can tell. missing: new. orphaned: with a
    template, but not in the source any more. rejected: without a usable feature. by: what told, as for a refresh.
    version: None where the gallery has none yet. noted: what the source says of subjects was kept by some run; before
    that nobody can tell. The counts are None where there is no version, where the source cannot tell without being read
    as a whole, and where there was an error, of all of which `said` tells.
    """

    gallery: str
    version: int | None = None
    by: str | None = None
    covered: int | None = None
    stale: int | None = None
    missing: int | None = None
    orphaned: int | None = None
    rejected: int | None = None
    templates: int | None = None
    noted: bool = True
    error: PfstoreError | None = None

    @property
    def said(self) -> str | None:
        """What stands in the way of better numbers."""
        if self.error is not None:
            return str(self.error)
        if self.version is None:
            return f"no version yet: run `pfstore backfill {self.gallery}`"
        if self.covered is None:
            return "the source cannot tell who has changed without being read"
        return None if self.noted else f"nobody can tell before the first `pfstore refresh {self.gallery}`"

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        told = {name: value for name, value in vars(self).items() if name != "error"}
        return told | {"error": self.error and str(self.error), "note": self.said}


def covered(
    connection: Connection, config: Config, names: list[str], looking: Callable[[str], None] = lambda _: None
) -> Iterator[Coverage]:
    """Compare each of these galleries of pfstore.toml with its source; nothing is written.

    That takes as long as a refresh that finds nothing to do. looking: is told which gallery is next. A source that
    cannot be asked makes an error of its gallery alone. Raises ConfigError for a gallery that is not in pfstore.toml.
    """
    for name in names:
        config.gallery(name)
    for name in names:
        looking(name)
        try:
            yield _covered(connection, config, name)
        except DatabaseError:
            raise
        except PfstoreError as error:
            yield Coverage(name, error=error)


def _covered(connection: Connection, config: Config, name: str) -> Coverage:
    version = refresh.target(connection, name)
    if version is None:
        return Coverage(name)
    source = config.gallery(name).source
    with open_source(config.source(source), source, config.folder) as opened:
        seen = refresh.preview(connection, opened, version, most=0)
    if (found := seen.found) is None:
        return Coverage(name, version.number, seen.by)
    return Coverage(
        name,
        version.number,
        seen.by,
        covered=found.unchanged,
        stale=found.changed,
        missing=found.new,
        orphaned=found.vanished,
        rejected=found.rejected,
        templates=found.templates,
        noted=_has_marks(connection, version.version_id),
    )


def _has_marks(connection: Connection, version_id: int) -> bool:
    query = "SELECT EXISTS (SELECT FROM pfstore.marks WHERE version_id = %s)"
    return connection.execute(query, (version_id,)).fetchone() == (True,)
