"""A gallery that is filled and refreshed."""

from __future__ import annotations

from typing import Any

from pfstore.fusion import Fuser
from pfstore.gallery import galleries
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.jobs.backfill import backfill
from pfstore.jobs.refresh import RefreshSummary, refresh

SAFE = {"changed": {"column": "changed", "safe": True}}
MOVED = "changed = '2024-06-01 00:00:00'"


def filled(connection: Connection, source: Any, fuser: Fuser) -> Version:
    backfill(connection, source, fuser, gallery="staff", source_name="hr")
    return galleries.version(connection, "staff")


def fresh(connection: Connection, source: Any, fuser: Fuser, version: Version, **options: Any) -> RefreshSummary:
    return refresh(connection, source, fuser, version, source_name="hr", **options)
