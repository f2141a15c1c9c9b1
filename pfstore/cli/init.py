"""`pfstore init`: a configuration to fill in and a schema to fill."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pfstore.cli.app import App, Command
from pfstore.errors import ConfigError

TEMPLATE = """\
# pfstore.toml: which legacy stores are read, and which galleries are made of them.
# ${NAME} is taken from the environment, so no password needs to stand here.

[database]
url = "embedded:"          # or postgresql://user:${PFSTORE_PASSWORD}@host/name (PostgreSQL 16+, pgvector 0.8+)
# read_url = "postgresql://reader@replica/name"   # optional: a streaming replica that answers searches

# A database: any that SQLAlchemy reads; pfstore never writes to it. `pfstore source inspect URL` describes yours.
# [sources.hr]
# url = "mysql+pymysql://reader:${HR_PASSWORD}@db/hr"
# table = "face_features"                  # or: query = "SELECT …"
# subject = "person_id"                    # a column, or a list of them
# medium = "image_id"                      # optional: the image or video a feature comes from
# feature = { column = "vec", encoding = "float32-le" }
# where = "site = 4"                       # optional
# exclude = { deleted = "deleted_at IS NOT NULL" }   # optional: by cause, counted
# extractor = "adaface-ir101-webface12m"   # detector and model that made the features
# changed = { column = "updated_at", safe = true }   # optional: moves whenever a feature does, so refreshes are quick

# A system that pfstore knows: `pfstore source presets` lists them.
# [sources.photos]
# url = "postgresql://reader:${IMMICH_PASSWORD}@db/immich"
# preset = "immich"

# Files: HDF5 in the layout of ProxyFusion's reference, npz or npy.
# [sources.field]
# path = "features/gallery"

# [galleries.staff]
# source = "hr"
# model = "average"                        # a baseline, or a model that `pfstore model import` has registered
# compact = true                           # optional: of a model of several blocks, keep their sum; see `evaluate`

# `pfstore worker` refreshes a gallery when it is due, in UTC.
# [schedules.nightly]
# gallery = "staff"
# cron = "0 3 * * *"
"""


@click.command(cls=Command)
@click.pass_obj
def init(app: App) -> None:
    """Write a commented pfstore.toml, unless there is one, and create the schema.

    \b
    Example:
      pfstore init
      pfstore --database postgresql://pfstore@db/faces init
    """
    from pfstore import config
    from pfstore.gallery import schema
    from pfstore.gallery.database import Database

    path = app.config_file or config.find() or Path(config.FILE_NAME)
    written = not path.exists()
    if written:
        url = app.database_url or "embedded:"
        database = Database.open(url, path.absolute().parent)
        _write(path, url)
    else:
        database = app.database
    found = schema.upgrade(database)
    document = {
        "config": str(path),
        "written": written,
        "database": database.shown,
        "schema": found.schema,
        "server": found.server,
        "pgvector": found.pgvector,
    }
    what = "written" if written else "there already, left as it is"
    app.show(document, _said(str(path), what, database.shown, found))


def _write(path: Path, url: str) -> None:
    try:
        path.write_text(TEMPLATE.replace('"embedded:"', json.dumps(_without_password(url)), 1), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _without_password(url: str) -> str:
    """Return a URL as it may stand in a file: the password is taken from the environment."""
    from sqlalchemy import make_url

    from pfstore.gallery import embedded
    from pfstore.gallery.database import SHOWN

    if embedded.is_embedded(url):
        return url
    parsed = make_url(url)
    public = parsed.set(query={name: parsed.query[name] for name in SHOWN if name in parsed.query})
    if not parsed.password:
        return public.render_as_string()
    return public.render_as_string(hide_password=True).replace(":***@", ":${PFSTORE_PASSWORD}@")


def _said(path: str, what: str, shown: str, found: object) -> str:
    from pfstore.gallery.schema import SchemaStatus

    assert isinstance(found, SchemaStatus)
    return (
        f"{path}: {what}\n{shown}: schema {found.schema} (PostgreSQL {found.server}, pgvector {found.pgvector})\n"
        f"Next: describe your store in {path}, then `pfstore source check NAME`."
    )
