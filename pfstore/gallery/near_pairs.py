"""Pairs of a version's templates at or above a score, in memory that does not grow with the gallery.

What the first stage of a search reads is compared by matrix products in float32, which tells what no score can exceed
(see pfstore.gallery.coarse). The few pairs that could be at the threshold are compared in full, as keys (see
pfstore.evaluation.comparing), which for halves are exact: whether a pair is one depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pfstore.evaluation.comparing import STEP, pair_blocks
from pfstore.features import Offsets
from pfstore.gallery.coarse import SLACK
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version

SIDE = 1024
"""Templates on each side of a product of matrices, which then stays in the processor's cache."""


@dataclass(frozen=True)
class Tile:
    """What the first stage reads of some subjects. ids: [n] str, rising. vectors: [n, D+1] float32 on the device.

    The last value of a vector is its residual, so that a product of two is the bound of their score.
    """

    ids: NDArray[np.object_]
    vectors: torch.Tensor


@dataclass(frozen=True)
class Found:
    """What some comparisons gave: their number, and the pairs that reached the threshold.

    first, second: [p] str, keys of subjects, the first before the second. scores: [p] float64.
    """

    comparisons: int
    first: NDArray[np.object_]
    second: NDArray[np.object_]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Gallery:
    """A version whose templates are read by their subjects' keys, many at once."""

    connection: Connection
    version: Version
    device: torch.device

    def tiles(self, after: str | None, last: str | None, size: int) -> Iterator[Tile]:
        """Yield all subjects after one, to the last one (None: all), by so many."""
        while True:
            where = "(%(after)s::text IS NULL OR subject_id > %(after)s)"
            where += " AND (%(last)s::text IS NULL OR subject_id <= %(last)s)"
            tile = self._tile(where, {"after": after, "last": last, "size": size})
            if tile is None:
                return
            yield tile
            after = tile.ids[-1]

    def templates(self, ids: NDArray[np.object_]) -> NDArray[np.float16]:
        """Return the templates of subjects ([n] str, rising): [n, blocks*D], NaN for who has none."""
        made = np.full((len(ids), self.version.template_dimension), np.nan, dtype=np.float16)
        row = self._read("template", "subject_id = ANY(%(ids)s)", {"ids": ids.tolist(), "size": None})
        if row is not None:
            made[np.searchsorted(ids, np.array(row[0], dtype=object))] = _halves(row[1], len(row[0]))
        return made

    def _tile(self, where: str, values: dict[str, Any]) -> Tile | None:
        row = self._read(self.version.scanned, where, values)
        if row is None:
            return None
        ids, vectors, residuals = row
        halves = torch.from_numpy(_halves(vectors, len(ids))).to(self.device)
        made = torch.zeros((len(ids), halves.shape[1] + 1), dtype=torch.float32, device=self.device)
        made[:, :-1] = halves
        if residuals is not None:
            made[:, -1] = torch.from_numpy(np.frombuffer(residuals, ">f4").astype(np.float32))
        return Tile(np.array(ids, dtype=object), made)

    def _read(self, column: str, where: str, values: dict[str, Any]) -> tuple[list[str], bytes, bytes | None] | None:
        """Return keys, vectors and residuals (None where there are none) as the server sends them, each a whole."""
        query = f"""
            SELECT array_agg(subject_id ORDER BY subject_id),
                   string_agg(halfvec_send({column}), '' ORDER BY subject_id),
                   string_agg(float4send(residual), '' ORDER BY subject_id)
            FROM (SELECT subject_id, {column}, residual FROM pfstore.templates
                  WHERE version_id = %(version)s AND {where} ORDER BY subject_id LIMIT %(size)s) t
        """
        # Planned for these very keys: a plan for any keys would sort the whole gallery.
        row = self.connection.cursor(binary=True).execute(
            query.encode(), values | {"version": self.version.version_id}, prepare=False
        )
        found = row.fetchone()
        assert found is not None
        return None if found[0] is None else found


def near_pairs(gallery: Gallery, after: str | None, last: str | None, rows: int, threshold: float) -> Iterator[Found]:
    """Compare subjects after one (None: the first) to the last one (None: of all) with each other and all after them.

    rows: how many subjects are compared with others at once, where there are more of them.
    """
    for block in gallery.tiles(after, last, rows):
        comparing = _Block(gallery, block, threshold)
        for first in range(0, len(block.ids), SIDE):
            yield from comparing.within(slice(first, first + SIDE))
        for tile in gallery.tiles(block.ids[-1], None, SIDE):
            yield from comparing.with_later(tile)


class _Block:
    """Subjects that are compared with others, and such of their templates as were needed."""

    def __init__(self, gallery: Gallery, block: Tile, threshold: float) -> None:
        self._gallery = gallery
        self._block = block
        self._threshold = threshold
        # A GPU has no use for a small product.
        self._side = SIDE if gallery.device.type == "cpu" else max(SIDE, len(block.ids))
        self._bounds = torch.empty((self._side, SIDE), dtype=torch.float32, device=gallery.device)
        # Read when first needed; NaN stands for subjects that are gone.
        self._templates = np.empty((len(block.ids), gallery.version.template_dimension), dtype=np.float16)
        self._is_read = np.zeros(len(block.ids), dtype=np.bool_)

    def within(self, columns: slice) -> Iterator[Found]:
        """Compare some of the block's subjects with each other and those before them."""
        tile = Tile(self._block.ids[columns], self._block.vectors[columns])
        before, there = columns.start, len(tile.ids)
        row, column = self._suspects(before + there, tile)
        earlier = row < column + before
        yield from self._found(tile, row[earlier], column[earlier], there * before + there * (there - 1) // 2)

    def with_later(self, tile: Tile) -> Iterator[Found]:
        """Compare all of the block's subjects with others."""
        rows = len(self._block.ids)
        yield from self._found(tile, *self._suspects(rows, tile), rows * len(tile.ids))

    def _suspects(self, rows: int, tile: Tile) -> tuple[Offsets, Offsets]:
        """Return the places [s], [s] among the first rows and in the tile whose score may reach the threshold."""
        least = self._threshold - SLACK
        row, column = [], []
        for first in range(0, rows, self._side):
            vectors = self._block.vectors[first : min(first + self._side, rows)]
            bounds = self._bounds[: len(vectors), : len(tile.ids)]
            torch.mm(vectors, tile.vectors.T, out=bounds)
            # The greatest of each row is cheaper to have than the places of all that reach a bound.
            some = torch.nonzero(bounds.amax(dim=1) >= least)[:, 0]
            if len(some):
                of_some, places = torch.nonzero(bounds[some] >= least, as_tuple=True)
                row.append(some[of_some] + first)
                column.append(places)
        if not row:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        return torch.cat(row).cpu().numpy(), torch.cat(column).cpu().numpy()

    def _found(self, tile: Tile, row: Offsets, column: Offsets, comparisons: int) -> Iterator[Found]:
        """Compare the suspects [s], [s] in full, some at a time."""
        none = np.empty(0, dtype=object)
        yield Found(comparisons, none, none, np.empty(0))
        if not len(row):
            return
        rows, row = np.unique(row, return_inverse=True)
        columns, column = np.unique(column, return_inverse=True)
        left, right = self._of_block(rows), self._gallery.templates(tile.ids[columns])
        there = ~(np.isnan(left[row, 0]) | np.isnan(right[column, 0]))
        row, column = row[there], column[there]
        for places, keys in pair_blocks(left.astype(np.float32), right.astype(np.float32), row, column):
            scores = keys.astype(np.float64) * STEP
            reached = scores >= self._threshold
            which = places[reached]
            yield Found(0, self._block.ids[rows[row[which]]], tile.ids[columns[column[which]]], scores[reached])

    def _of_block(self, rows: Offsets) -> NDArray[np.float16]:
        wanting = rows[~self._is_read[rows]]
        if len(wanting):
            self._templates[wanting] = self._gallery.templates(self._block.ids[wanting])
            self._is_read[wanting] = True
        return self._templates[rows]


def _halves(sent: bytes, count: int) -> NDArray[np.float16]:
    """[count, D], halfvecs as the server sends them: two bytes of length, two of nothing, the values, big-endian."""
    values = np.frombuffer(sent, ">u2").reshape(count, -1)[:, 2:]
    return values.astype(np.uint16).view(np.float16)
