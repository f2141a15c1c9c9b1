"""The registry: models stored in the database in chunks, cached on disk, known by name and SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pfstore.config import nearest
from pfstore.errors import ModelError, NotFoundError
from pfstore.files import write_whole
from pfstore.gallery.database import Connection

if TYPE_CHECKING:
    from pfstore.fusion import Fuser
    from pfstore.gallery.galleries import Version

BASELINE = "baseline"
CHUNK = 8 * 1024 * 1024

_COLUMNS = "digest, name, kind, dimension, blocks, normalisation, details, bytes, created_at"


@dataclass(frozen=True)
class Model:
    """A registered model. dimension is None where it takes features of any; bytes is 0 for baselines."""

    digest: str
    name: str
    kind: str
    dimension: int | None
    blocks: int
    normalisation: str
    details: dict[str, Any]
    bytes: int
    created_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}


def register(connection: Connection, fuser: Fuser, name: str) -> Model:
    """Store a model under a name; registering the same one again changes nothing.

    Raises ModelError where the name already stands for another model, or the model has another name.
    """
    from pfstore.fusion import to_bytes

    data = b"" if fuser.kind == BASELINE else to_bytes(fuser)
    with connection.transaction():
        # Two processes that register at once must not both find the name free.
        connection.execute("LOCK TABLE pfstore.models IN SHARE ROW EXCLUSIVE MODE")
        if (there := _conflicting(connection, fuser.digest, name)) is not None:
            return there
        connection.execute(
            f"INSERT INTO pfstore.models ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, now())",
            (
                fuser.digest,
                name,
                fuser.kind,
                fuser.dimension,
                fuser.blocks,
                fuser.normalisation,
                Jsonb(fuser.describe()),
                len(data),
            ),
        )
        for number, start in enumerate(range(0, len(data), CHUNK)):
            connection.execute(
                "INSERT INTO pfstore.model_chunks (digest, number, data) VALUES (%s, %s, %b)",
                (fuser.digest, number, data[start : start + CHUNK]),
            )
    return find(connection, name)


def _conflicting(connection: Connection, digest: str, name: str) -> Model | None:
    cursor = connection.cursor(row_factory=class_row(Model))
    query = f"SELECT {_COLUMNS} FROM pfstore.models WHERE digest = %s OR name = %s"
    for there in cursor.execute(query, (digest, name)).fetchall():
        if there.digest != digest:
            raise ModelError(
                f"the name {name!r} already stands for the model {there.digest[:12]}: give this one another name"
            )
        if there.name != name:
            raise ModelError(f"this model is already registered, as {there.name!r}: use that name")
        return there
    return None


def listed(connection: Connection) -> list[Model]:
    """Return every registered model, oldest first."""
    cursor = connection.cursor(row_factory=class_row(Model))
    return cursor.execute(f"SELECT {_COLUMNS} FROM pfstore.models ORDER BY created_at, name").fetchall()


def find(connection: Connection, name: str) -> Model:
    """Return the model of this name, or of this digest (the first 8 characters or more will do).

    Raises NotFoundError naming the nearest that exists.
    """
    models = listed(connection)
    by_digest = [one for one in models if len(name) >= 8 and one.digest.startswith(name)]
    found = [one for one in models if one.name == name] or by_digest
    if len(found) != 1:
        hint = nearest(name, [one.name for one in models])
        raise NotFoundError(f"no model {name!r} is registered{hint}; `pfstore model import FILE` adds one")
    return found[0]


def resolve(connection: Connection, name: str) -> Model:
    """Return the model of this name, registering it first where it is a baseline, which needs no file."""
    from pfstore.fusion import BASELINES, load_model

    return register(connection, load_model(name), name) if name in BASELINES else find(connection, name)


def load(connection: Connection, digest: str) -> Fuser:
    """Return the model of this digest, ready to fuse, from the cache on disk or else from the database.

    Raises ModelError where what is stored does not have the digest it is stored under.
    """
    from pfstore.fusion import from_bytes, load_model

    model = find(connection, digest)
    if model.kind == BASELINE:
        return load_model(model.name, normalisation=model.normalisation)
    cached = _cache_folder() / f"{digest}.safetensors"
    if cached.is_file() and _is(data := cached.read_bytes(), digest):
        return from_bytes(data)
    data = b"".join(_chunks(connection, digest))
    if not _is(data, digest):
        raise ModelError(
            f"the stored model {model.name!r} is damaged: its SHA-256 is not {digest[:12]}…; import it again"
        )
    # The cache saves time and nothing else: without it the model comes from the database each time.
    with suppress(OSError):
        _keep(cached, data)
    return from_bytes(data)


def fuser_of(connection: Connection, version: Version) -> Fuser:
    """Return the model that made a gallery version, in the form that did, ready to fuse. Raises what load raises."""
    from pfstore.fusion import compacted

    fuser = load(connection, version.model_digest)
    return compacted(fuser) if version.compact else fuser


def _chunks(connection: Connection, digest: str) -> Iterator[bytes]:
    query = "SELECT data FROM pfstore.model_chunks WHERE digest = %s ORDER BY number"
    for (data,) in connection.cursor(binary=True).execute(query, (digest,)):
        yield data


def _is(data: bytes, digest: str) -> bool:
    return hashlib.sha256(data).hexdigest() == digest


def _cache_folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("pfstore") / "models"


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)
