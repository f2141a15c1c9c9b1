"""NIST FRTE's enrolment database (EDB): templates one after the other, and a manifest that says where each one is."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import ConfigError, SourceError
from pfstore.features import Offsets
from pfstore.sources.arrays import first_line
from pfstore.sources.assembly import Fault
from pfstore.sources.base import Reason
from pfstore.sources.encodings import Encoding
from pfstore.sources.encodings.values import MAX_BYTES
from pfstore.sources.formats.common import labelled, mapped
from pfstore.sources.formats.rows import RowSource, Values

_SLICE_BYTES = 4 << 20
_MOST = 2**62  # of a size or an offset, so that no sum overflows


class _Manifest(NamedTuple):
    """The lines of a manifest, [N] each. numbers: of the lines in the file."""

    ids: list[str]
    sizes: Offsets
    offsets: Offsets
    numbers: Offsets


class EdbSource(RowSource):
    """Templates in the EDB and manifest of NIST's FRTE 1:N (FRVT), lines "id size offset".

    index: the manifest; without it the file beside whose name has "manifest" for "edb". encoding: of a template,
    which is the algorithm's own business, as "float32-le@16". A subject is an id; an id on several lines has several
    features. A template of no bytes, which is what a failure to enrol leaves, is rejected as empty; one that is not
    wholly in the file or overlaps with another as undecodable. A row's key is the number of its line.

    Raises ConfigError where nothing tells the extractor or the manifest, SourceError where a file cannot be read or
    a line is none of a manifest.
    """

    def __init__(
        self,
        path: Path,
        *,
        index: Path | None = None,
        encoding: Encoding,
        extractor: str | None,
        name: str,
        dimension: int | None = None,
    ) -> None:
        extractor = labelled(extractor, name, path)
        self._encoding = encoding
        self._data = mapped(path)
        index = index or _beside(path, name)
        self._manifest = _read_manifest(index)
        self._faults = _faults(self._manifest, len(self._data))
        sizes = np.delete(self._manifest.sizes, list(self._faults))
        step = _SLICE_BYTES // max(1, int(sizes.max(initial=1)))
        super().__init__(extractor, dimension, subjects=self._manifest.ids, media=None, step=step)
        self.beside = index

    def values(self, rows: NDArray[np.int64]) -> Values:
        """Return the features of the rows of these numbers, and what is wrong with some."""
        known = {i: self._faults[row] for i, row in enumerate(rows.tolist()) if row in self._faults}
        places = zip(self._manifest.offsets[rows].tolist(), self._manifest.sizes[rows].tolist(), strict=True)
        templates = [None if i in known else self._bytes(*place) for i, place in enumerate(places)]
        decoded = self._encoding.decode_many(templates)
        return Values(decoded.features, decoded.faults | known)

    def row_key(self, row: int) -> str:
        """Return the number of the row's line in the manifest."""
        return str(self._manifest.numbers[row])

    def _bytes(self, start: int, size: int) -> bytes:
        return self._data[start : start + size].tobytes()


def _beside(path: Path, name: str) -> Path:
    manifest = path.with_name(path.name.replace("edb", "manifest"))
    if manifest == path or not manifest.is_file():
        raise ConfigError(
            f'sources.{name}: {path}: there is no manifest beside it; set index = "…" to the text "id size offset"'
        )
    return manifest


def _read_manifest(path: Path) -> _Manifest:
    ids: list[str] = []
    sizes, offsets, numbers = array("q"), array("q"), array("q")
    for number, line in _lines(path):
        parts = line.split()
        if not parts:
            continue
        try:
            identity, size, offset = parts[0], *map(_whole, parts[1:])
        except ValueError:
            raise SourceError(f'{path}:{number}: {line.strip()[:80]!r} is not of the form "id size offset"') from None
        ids.append(identity)
        sizes.append(size)
        offsets.append(offset)
        numbers.append(number)
    return _Manifest(ids, *(np.array(column, dtype=np.int64) for column in (sizes, offsets, numbers)))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            yield from enumerate(file, 1)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {first_line(error)}") from None


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) >= _MOST:
        raise ValueError
    return value


def _faults(manifest: _Manifest, length: int) -> dict[int, Fault]:
    """Find the rows whose template cannot be taken from the file."""
    sizes, offsets = manifest.sizes, manifest.offsets
    empty = sizes == 0
    outside = ~empty & ((sizes < 0) | (offsets < 0) | (offsets + sizes > length))
    large = ~empty & ~outside & (sizes > MAX_BYTES)
    inside = (~empty & ~outside).nonzero()[0]
    overlapping = np.zeros(len(sizes), dtype=bool)
    overlapping[inside] = _overlapping(offsets[inside], sizes[inside])
    faults = {row: Fault(Reason.EMPTY, "a template of 0 bytes") for row in empty.nonzero()[0].tolist()}
    for wrong, which in (
        (f"not within the file's {length:,} bytes", outside),
        (f"more than {MAX_BYTES:,} bytes", large),
        ("overlaps with another template", overlapping),
    ):
        for row in which.nonzero()[0].tolist():
            detail = f"size {sizes[row]}, offset {offsets[row]}: {wrong}"
            faults[row] = Fault(Reason.UNDECODABLE, detail)
    return faults


def _overlapping(offsets: Offsets, sizes: Offsets) -> NDArray[np.bool_]:
    """Tell which ranges share bytes with another: of two templates in one place at least one is wrong."""
    order = np.argsort(offsets, kind="stable")
    starts, ends = offsets[order], (offsets + sizes)[order]
    found = np.zeros(len(order), dtype=bool)
    if len(order) > 1:
        found[1:] = starts[1:] < np.maximum.accumulate(ends)[:-1]
        found[:-1] |= starts[1:] < ends[:-1]
    within_order = np.empty_like(found)
    within_order[order] = found
    return within_order
