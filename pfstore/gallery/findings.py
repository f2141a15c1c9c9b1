"""What is wrong with the galleries' database, and how to mend it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pfstore.gallery.health import Health, VersionHealth
from pfstore.gallery.schema import MINIMUM_POSTGRESQL

MOST_CLOCK = 5.0
"""Seconds between two clocks by which the times of runs and tunings cannot be told apart anyway."""

LEAST_DISK = 2**30
"""A server that can write no more stops."""

FEW = 1000
"""Templates that are compared in no time, whatever the planner knows of them."""

PARALLEL_BUILDS = (0, 8, 2)
"""The pgvector that mended an overflow of HNSW indexes built by several workers."""

VACUUM = (0, 8, 4)
"""The pgvector that mended the vacuum of HNSW indexes."""


@dataclass(frozen=True)
class Finding:
    """Something wrong, in words, and what to do. error: the database cannot be used, or not as it should."""

    what: str
    severity: Literal["warning", "error"]
    mend: str


def findings(health: Health) -> list[Finding]:
    """Judge how a database is; errors come first."""
    found = [*_of_schema(health), *_of_pgvector(health), *_of_server(health)]
    found += [finding for one in health.versions for finding in _of_version(health, one)]
    return sorted(found, key=lambda one: one.severity)


def _of_schema(health: Health) -> Iterator[Finding]:
    status = health.schema
    if int(status.server.split(".")[0]) < MINIMUM_POSTGRESQL:
        what = f"PostgreSQL {status.server} is too old"
        yield Finding(what, "error", f"upgrade the server to PostgreSQL {MINIMUM_POSTGRESQL} or newer")
    if status.schema is None:
        yield Finding("the database has no pfstore schema", "error", "run `pfstore init`")
    elif status.schema > status.latest:
        what = f"the schema is at {status.schema}, newer than the {status.latest} of this pfstore"
        yield Finding(what, "error", "upgrade pfstore")
    elif not status.is_current:
        what = f"the schema is at {status.schema}, this pfstore needs {status.latest}"
        yield Finding(what, "error", "run `pfstore db upgrade`")


def _of_pgvector(health: Health) -> Iterator[Finding]:
    installed, available = health.schema.pgvector, health.server.available
    if installed is None and available is None:
        what = "the server has no pgvector"
        yield Finding(what, "error", f"install its package for PostgreSQL, {_said(VACUUM)} or newer")
    if installed is None:
        return

    def mend(least: tuple[int, ...]) -> str:
        if available is not None and _numbers(available) >= least:
            return "run ALTER EXTENSION vector UPDATE in the database"
        return f"upgrade its package to {_said(VACUUM)} or newer, then run ALTER EXTENSION vector UPDATE"

    if _numbers(installed) < PARALLEL_BUILDS and health.server.max_parallel_workers > 0:
        what = f"pgvector {installed} can write beyond its memory when several workers build an index"
        instead = "; until then set max_parallel_workers to 0 before `pfstore gallery index`"
        yield Finding(what, "warning", mend(PARALLEL_BUILDS) + instead)
    elif _numbers(installed) < VACUUM:
        what = f"pgvector {installed} has faults in the vacuum of HNSW indexes that {_said(VACUUM)} mended"
        yield Finding(what, "warning", mend(VACUUM))


def _of_server(health: Health) -> Iterator[Finding]:
    if abs(clock := health.server.clock) > MOST_CLOCK:
        what = f"the server's clock is {abs(clock):,.0f} s {'ahead of' if clock > 0 else 'behind'} this machine's"
        yield Finding(what, "warning", "set both by a time server (NTP)")
    if health.server.disk is not None and health.server.disk < LEAST_DISK:
        what = f"{megabytes(health.server.disk)} are free where the embedded server has its files"
        yield Finding(what, "warning", f"make room: below {megabytes(LEAST_DISK)} a backfill or an index can fill it")


def _of_version(health: Health, one: VersionHealth) -> Iterator[Finding]:
    said = f"version {one.version} of gallery {one.gallery!r}"
    if not one.analysed and one.templates >= FEW:
        what = f"the planner knows nothing of the {one.templates:,} templates of {said}: they were never analysed"
        yield Finding(what, "warning", f"run ANALYZE {one.partition}, and see that autovacuum is on")
    if one.index is None:
        return
    rebuild = f"run `pfstore gallery index {one.gallery} --version {one.version}`"
    if not one.index.valid:
        yield Finding(f"the index of {said} is invalid, so no search can use it", "error", rebuild)
    elif one.wrong is not None:
        yield Finding(
            f"{said}: {one.wrong}", "warning", f"run ANALYZE {one.partition}; if that does not help, {rebuild}"
        )
    if not one.fits:
        size, room = megabytes(one.index.bytes), megabytes(health.server.shared_buffers)
        what = (
            f"the index of {said} takes {size} and the server's shared_buffers are {room}: searches wait for the disk"
        )
        least = 128 * math.ceil(1.25 * one.index.bytes / 2**27)
        yield Finding(what, "warning", f"run ALTER SYSTEM SET shared_buffers = '{least}MB' and restart the server")
    if one.search.tuning is None:
        what = f"the index of {said} is not tuned: nobody knows how often it misses the best template"
        yield Finding(what, "warning", f"run `pfstore gallery tune {one.gallery}`")
    elif one.search.outgrown:
        then, now = one.search.tuning.templates, one.search.templates
        what = f"{said} was tuned at {then:,} templates and has {now:,} now: it may miss more than it was tuned to"
        yield Finding(what, "warning", f"run `pfstore gallery tune {one.gallery}`")


def megabytes(count: int) -> str:
    """Return bytes as people read them: "1.5 MB", "1,024 MB"."""
    size = count / 2**20
    return f"{size:,.0f} MB" if size >= 10 else f"{size:.1f} MB"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _said(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
