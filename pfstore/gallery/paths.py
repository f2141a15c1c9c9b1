"""Which way a search takes, why, and whether the server's planner goes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from pfstore.errors import NotFoundError
from pfstore.gallery import galleries, indexing, tunings
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.tunings import Tuning

# Of the parameters of pfstore.search_statement, $1 to $7.
_TYPES = ("halfvec", "halfvec", "double precision", "integer", "double precision", "text[]", "integer")

USUAL = 10
"""Candidates that a search is asked for where nobody says how many."""


@dataclass(frozen=True)
class Path:
    """The way of a version's searches: kind "exhaustive" is always exact, "index" as exact as it is tuned.

    why: in words. templates: how many there are. tuning: of the index that there is, None where it is not tuned.
    """

    kind: Literal["exhaustive", "index"]
    exact: bool
    why: str
    templates: int
    tuning: Tuning | None

    @property
    def outgrown(self) -> bool:
        """Whether the gallery has grown too much since it was tuned for the recall to hold."""
        return self.tuning is not None and self.tuning.outgrown(self.templates)

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        tuning = self.tuning and self.tuning.as_dict() | {"outgrown": self.outgrown}
        return {"path": self.kind, "exact": self.exact, "why": self.why, "tuning": tuning}


def path(connection: Connection, version: Version, *, exact: bool = False) -> Path:
    """Tell which way a search takes now; the time is linear in the number of templates, which are counted.

    exact: as a search is asked with it.
    """
    row = connection.execute("SELECT pfstore.path_of(%s, %s)", (version.version_id, exact)).fetchone()
    assert row is not None
    kind, index = row[0], indexing.oid_of(connection, version)
    tuning = tunings.stored(connection, version) if index else None
    templates = galleries.size(connection, version)
    if exact:
        why = "asked for with --exact"
    elif index is None:
        why = f"no index: {'the one template is' if templates == 1 else f'all {templates:,} templates are'} compared"
    else:
        why = _why(version, tuning, templates)
    return Path(kind, kind == "exhaustive", why, templates, tuning)


def _why(version: Version, tuning: Tuning | None, templates: int) -> str:
    number = "" if version.state == "active" else f" --version {version.number}"
    command = f"`pfstore gallery tune {version.gallery}{number}`"
    if tuning is None:
        return f"the index is not tuned, so nobody knows what it misses: run {command}"
    why = f"index, tuned to {tuning.said}" if tuning.path == "index" else "tuned: the exhaustive search is as fast"
    if tuning.outgrown(templates):
        return f"{why}; of {tuning.templates:,} templates, there are {templates:,} now: run {command} again"
    return why


@dataclass(frozen=True)
class Plan:
    """How the server reads a version's templates. scans: "Seq Scan", "Parallel Seq Scan" and others. indexes: names."""

    scans: tuple[str, ...]
    indexes: tuple[str, ...]


def planned(connection: Connection, version: Version) -> tuple[str, Plan]:
    """Return the way that a version's searches take and what the planner makes of it, executing nothing.

    It is asked about the very statement of pfstore.search, under that function's own settings.
    """
    register_vector(connection)
    with connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        kind, statement = _prepared(connection, version)
        probe = HalfVector(np.full(version.template_dimension, version.template_dimension**-0.5, dtype=np.float32))
        coarse = HalfVector(np.full(version.dimension, version.dimension**-0.5, dtype=np.float32))
        first = _set(connection, version, kind)
        values = (probe, coarse if version.blocks > 1 else probe, 0.5, USUAL, float("-inf"), None, first)
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute(
                f"EXPLAIN (FORMAT JSON) {_with_placeholders(statement)}".encode(),
                {f"p{number}": value for number, value in enumerate(values, 1)},
            )
            row = cursor.fetchone()
    assert row is not None
    nodes = list(_nodes(row[0][0]["Plan"]))
    name = f"templates_v{version.version_id}"
    scans = [
        f"{'Parallel ' if node.get('Parallel Aware') else ''}{node['Node Type']}"
        for node in nodes
        if node.get("Relation Name") == name
    ]
    return kind, Plan(tuple(scans), tuple(str(node["Index Name"]) for node in nodes if "Index Name" in node))


def checked(connection: Connection, version: Version) -> str | None:
    """Return what is wrong with the planner's way of this version's searches, None where nothing is."""
    return judged(version, *planned(connection, version))


def judged(version: Version, kind: str, plan: Plan) -> str | None:
    """Return what is wrong with a plan, None where nothing is."""
    index, scans = indexing.name_of(version), " and ".join(dict.fromkeys(plan.scans)) or "nothing"
    if kind == "index" and index not in plan.indexes:
        return f"the planner does not use {index}, so searches compare whole templates one by one ({scans})"
    if kind == "exhaustive" and index in plan.indexes:
        return f"the planner uses {index} for the exhaustive search, which is then not exact"
    if kind == "exhaustive" and any(not one.endswith("Seq Scan") for one in plan.scans):
        return f"the planner reads the templates in a roundabout way ({scans})"
    return None


def _prepared(connection: Connection, version: Version) -> tuple[str, str]:
    row = connection.execute(
        "SELECT path, pfstore.search_statement(version_id, blocks, dimension, path, false) FROM pfstore.versions,"
        " pfstore.path_of(version_id) AS path WHERE version_id = %s",
        (version.version_id,),
    ).fetchone()
    if row is None:
        raise NotFoundError(f"{version.said} was dropped meanwhile")
    return row[0], row[1]


def _set(connection: Connection, version: Version, kind: str) -> int:
    """Take over pfstore.search's settings for this transaction and return how many are compared in full at first."""
    query = (
        "SELECT set_config(split_part(one, '=', 1), substr(one, strpos(one, '=') + 1), true)"
        " FROM pg_proc, unnest(proconfig) AS one WHERE pronamespace = 'pfstore'::regnamespace AND proname = 'search'"
    )
    tuning = tunings.stored(connection, version)
    connection.execute(query)
    if kind == "exhaustive":
        return max(100, 2 * USUAL)
    assert tuning is not None
    first = max(tuning.candidates, 2 * USUAL)
    settings = {"enable_seqscan": "off", "hnsw.ef_search": str(min(1000, max(tuning.ef_search, first)))}
    if first > 1000:
        settings["hnsw.iterative_scan"] = "relaxed_order"
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, true)", (name, value))
    return first


def _with_placeholders(statement: str) -> str:
    # Constants of these types are what the planner sees in the function as well.
    return re.sub(
        r"\$(\d)", lambda match: f"(%(p{match[1]})s::{_TYPES[int(match[1]) - 1]})", statement.replace("%", "%%")
    )


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for one in plan.get("Plans", ()):
        yield from _nodes(one)
