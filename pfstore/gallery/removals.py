"""How many templates a refresh may remove before somebody has to say that it is right."""

from __future__ import annotations

from dataclasses import dataclass

from pfstore.errors import ConflictError
from pfstore.gallery.database import Connection

FEW = 10
"""So many subjects may go from any version without anybody being asked."""


@dataclass(frozen=True)
class Allowance:
    """What a refresh may remove, and has removed.

    said: the version, in words. share: of the `templates` that the version held before. vanished: removed as the source
    no longer has their subjects. unusable: removed as no row of their subjects can be used any more.
    """

    said: str
    share: float
    templates: int
    vanished: int = 0
    unusable: int = 0

    def spend(self, *, vanished: int = 0, unusable: int = 0) -> None:
        """Raise ConflictError where so many more templates would be too many."""
        away, bad = self.vanished + vanished, self.unusable + unusable
        if away + bad <= max(FEW, self.share * self.templates):
            return
        of = f"of the {self.templates:,} subjects of {self.said}"
        if not bad:
            what = f"{away:,} {of} are not in the source any more: is it the right store, and its filter?"
        elif not away:
            what = f"{bad:,} {of} have no usable feature any more: is the mapping right?"
        else:
            what = (
                f"{away + bad:,} {of} are not in the source any more ({away:,}) or have no usable feature any more "
                f"({bad:,}): is it the right store, and the mapping right?"
            )
        raise ConflictError(f"{what} If so, refresh with --removals 1")


def of_run(connection: Connection, run_id: int) -> Allowance | None:
    """Return what a run may remove, None where that is for no one to say.

    The run is locked until the end of the transaction, so that of two shards the later one knows of the earlier one.
    """
    query = (
        "SELECT v.number, g.name, r.removals, r.templates, r.vanished"
        " FROM pfstore.runs r JOIN pfstore.versions v USING (version_id) JOIN pfstore.galleries g USING (gallery_id)"
        " WHERE r.run_id = %s AND r.removals IS NOT NULL FOR NO KEY UPDATE OF r"
    )
    found = connection.execute(query, (run_id,)).fetchone()
    if found is None:
        return None
    number, gallery, share, templates, vanished = found
    # A statement of its own, to see what was committed while the lock was waited for.
    row = connection.execute("SELECT sum(removed)::bigint FROM pfstore.shards WHERE run_id = %s", (run_id,)).fetchone()
    unusable = (row and row[0]) or 0
    return Allowance(f"version {number} of gallery {gallery!r}", share, templates, vanished, unusable)
