"""Deduplication: every pair of a version's subjects whose score reaches a threshold, resumable at any moment.

A run goes over the gallery in blocks of subjects by their keys, fixed when it begins; what a block gave is committed
with its "done" mark. Blocks are read one after the other, each as it then is, so that writers need not wait: of a
gallery that is being written, a subject who is enrolled or fused anew meanwhile may be left out or be compared as
before, and who is removed is in no pair. The next run takes everything anew, as the contents have changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pfstore.errors import ConfigError, ContractError
from pfstore.gallery import duplicates
from pfstore.gallery.database import Connection
from pfstore.gallery.duplicates import Cluster, Dedupe, Pair
from pfstore.gallery.galleries import Version
from pfstore.gallery.near_pairs import Found, Gallery, near_pairs

ROWS = 8192
"""Subjects that are compared with all after them at once, and what a killed run has to do again at the most."""

BLOCK_VALUES = 2**24
"""The most values in the templates of a block, 32 MB of them; templates of more than 2,048 make smaller blocks."""

MOST_PAIRS = 2_000_000
"""The most pairs that a run keeps."""

Observer = Callable[[float], None]
"""Is told which part of the comparisons is made, from 0 to 1."""


@dataclass(frozen=True)
class Summary:
    """What a run found.

    templates: when it began. comparisons: all their pairs. resumed: some or all of it was made by an earlier call.
    pairs: the greatest score first, of subjects who are there now. seconds: of this call.
    """

    run: int
    gallery: str
    version: int
    threshold: float
    templates: int
    comparisons: int
    resumed: bool
    pairs: list[Pair]
    seconds: float

    def clusters(self) -> list[Cluster]:
        """Return the subjects that pairs hold together."""
        return duplicates.clusters(self.pairs)

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return vars(self) | {"pairs": [one._asdict() for one in self.pairs], "seconds": round(self.seconds, 3)}


def dedupe(
    connection: Connection,
    version: Version,
    threshold: float,
    *,
    restart: bool = False,
    rows: int | None = None,
    observer: Observer = lambda _: None,
) -> Summary:
    """Find all pairs of a version's subjects with this score or a higher one, and store them.

    Of an interrupted run at the same threshold only what is missing is done, and nothing of one that is through, if
    no template was written or removed since it began. restart: compare all again. rows: subjects in a block.

    A pair's score is exact for templates as they are kept, in steps of 2^-22; the server's own may be 2e-6 off.
    Raises ConfigError for a threshold beyond -1 and 1, ContractError where more than MOST_PAIRS pairs reach it,
    BusyError where another process does the same. After an error or a kill, finished blocks stay.
    """
    if not -1 <= threshold <= 1:
        raise ConfigError(f"the threshold {threshold:g} is no score: give one between -1 and 1")
    started = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with duplicates.alone(connection, version):
        run = None if restart else duplicates.known(connection, version, threshold)
        resumed = run is not None
        if run is None:
            run = duplicates.start(connection, version, threshold, rows or _rows(version))
        if run.state == "running":
            _work(Gallery(connection, version, device), run, rows or _rows(version), observer)
            duplicates.finish(connection, run)
    return Summary(
        run=run.dedupe_id,
        gallery=version.gallery,
        version=version.number,
        threshold=run.threshold,
        templates=run.templates,
        comparisons=run.comparisons,
        resumed=resumed,
        pairs=duplicates.pairs(connection, run),
        seconds=time.monotonic() - started,
    )


def _rows(version: Version) -> int:
    return max(1024, min(ROWS, BLOCK_VALUES // version.template_dimension))


def _work(gallery: Gallery, run: Dedupe, rows: int, observer: Observer) -> None:
    connection, blocks = gallery.connection, duplicates.blocks(gallery.connection, run)
    kept = duplicates.count(connection, run)
    left = [block for block in blocks if not block.done]
    # Of a triangle whose rows are all there are, those that are left make one that is as much smaller on both sides.
    made = run.comparisons * (1 - (len(left) / max(1, len(blocks))) ** 2)
    for block in left:
        found: list[Found] = []
        for some in near_pairs(gallery, block.after, block.last, rows, run.threshold):
            found.append(some)
            made += some.comparisons
            kept += len(some.scores)
            part = min(1.0, made / max(1, run.comparisons))
            if kept > MOST_PAIRS:
                duplicates.abandon(connection, run)
                raise ContractError(_too_many(gallery.version, run.threshold, part))
            observer(part)
        duplicates.keep(connection, run, block, _pairs(found))


def _pairs(found: list[Found]) -> Iterator[Pair]:
    for some in found:
        yield from map(Pair, some.first.tolist(), some.second.tolist(), some.scores.tolist())


def _too_many(version: Version, threshold: float, part: float) -> str:
    return (
        f"more than {MOST_PAIRS:,} pairs of {version.said} have a score of {threshold:g} or more, after {part:.1%} of "
        "the comparisons: no one can look through so many, so raise the threshold"
    )
