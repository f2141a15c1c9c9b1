"""Tunings that nobody measured, so that an index is used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pfstore.gallery import tunings
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from pfstore.gallery.tunings import Tuning


def tune(connection: Connection, version: Version, **changes: Any) -> None:
    """Let a version's searches take its index."""
    told: dict[str, Any] = {
        "path": "index", "target": 0.999, "recall": 0.98, "low": 0.997, "high": 1.0, "mated_recall": 0.9995,
        "probes": 100, "basis": "made up", "ef_search": 100, "candidates": 50, "sure": None,
        "answered": 1.0, "index_seconds": 1.0, "exhaustive_seconds": 2.0, "templates": 30,
        "created_at": datetime.now(UTC),
    }  # fmt: skip
    tunings.write(connection, version, Tuning(**told | changes))
