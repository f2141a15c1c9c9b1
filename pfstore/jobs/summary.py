"""How far a run is, and what it did in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pfstore.gallery.runs import Counts
from pfstore.stages import Profile


@dataclass(frozen=True)
class Progress:
    """How far a run is: what it counted so far against what was planned."""

    counts: Counts
    planned_features: int
    planned_subjects: int


Observer = Callable[[Progress], None]


@dataclass(frozen=True)
class Summary:
    """What a run did. rejects: by reason. excluded: rows that the mapping left out, by cause.

    active: the version that answers searches now, None where none does.
    promoted: whether this run made it so. profile: where the time of this call went; what it read alone.
    """

    run: int | None
    gallery: str
    version: int | None
    resumed: bool
    counts: Counts
    rejects: dict[str, int]
    excluded: dict[str, int]
    promoted: bool
    active: int | None
    profile: Profile

    @property
    def seconds(self) -> float:
        """The wall time of this call."""
        return self.profile.wall

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        counts = self.counts
        return {
            "run": self.run,
            "gallery": self.gallery,
            "version": self.version,
            "resumed": self.resumed,
            "features": {"read": counts.read, "fused": counts.fused, "rejected": counts.rejected},
            "subjects": {
                "seen": counts.seen,
                "written": counts.written,
                "unchanged": counts.unchanged,
                "removed": counts.removed,
                "rejected": counts.subjects_rejected,
            },
            "rejects": self.rejects,
            "excluded": self.excluded,
            "promoted": self.promoted,
            "active": self.active,
            "seconds": round(self.seconds, 3),
        }
