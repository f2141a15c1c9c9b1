"""Whether the values of one column are face features, and how they are written: every reading that could be, judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pfstore.features import Floats
from pfstore.sources.base import Reason
from pfstore.sources.encodings import parse_encoding, raw
from pfstore.sources.encodings.binary import Npy, Protobuf
from pfstore.sources.encodings.pickles import Pickle
from pfstore.sources.encodings.values import Leaf
from pfstore.sources.inspection import checks
from pfstore.sources.inspection.candidates import candidates, could_hold_numbers
from pfstore.sources.inspection.decoded import Vectors

FITS = 0.5
"""The score from which a reading looks like face features; below it something speaks against it."""

USUAL = frozenset((64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048, 2622, 4096))
"""The dimensions that extractors of faces have."""

_LOOKED_AT = 32  # values by which encodings are found and most of them ruled out
_TOGETHER = 64  # values decoded at once: each may unpack to a megabyte
_NEAR_MISS = 0.1  # what a first look scores below this is no feature


@dataclass(frozen=True)
class Reading:
    """What one encoding makes of a column's values.

    encoding: as parse_encoding takes it. dimension: the most common one that is no placeholder's; dimensions: all
    there are, with counts. decoded, empty, undecodable: how many values; together all of them, or fewer where a
    look at some ruled the reading out. norms: the 5th, 50th and 95th percentile in the most common dimension.
    score: from 0 to 1; at least FITS where this looks like face features. evidence: what was found, in one line.
    against: why it is not believed, a phrase each; empty where it fits.
    """

    encoding: str
    dimension: int
    dimensions: Mapping[int, int]
    decoded: int
    empty: int
    undecodable: int
    norms: tuple[float, float, float]
    score: float
    evidence: str
    against: Sequence[str]

    @property
    def fits(self) -> bool:
        """Whether this looks like face features."""
        return self.score >= FITS


def readings(values: Sequence[Any], *, allow_pickle: bool = False) -> list[Reading]:
    """Return what each encoding that could be makes of the values of one column, the best first.

    values: as a driver gives them, some hundred rows of a column of any type. Readings of one score are in the
    order in which they are likelier meant; text "[1,2]" is both json and pgvector, and only the column's type tells.
    Pickles are not opened unless allow_pickle; without it their reading decodes nothing and says so.
    """
    some = _evenly(_distinct(filter(could_hold_numbers, values)), _LOOKED_AT)
    found = [_reading(encoding, values, some, allow_pickle) for encoding in candidates(some)]
    return sorted(_one_start([one for one in found if one is not None]), key=lambda reading: -reading.score)


def _reading(encoding: str, values: Sequence[Any], some: Sequence[Any], allow_pickle: bool) -> Reading | None:
    """Judge the whole column, or some of it where that rules the reading out; None where nothing can be decoded."""
    if not allow_pickle and isinstance(_leaf(encoding), Pickle):
        return _closed(encoding, some)
    first = _read(encoding, some)
    if first.decoded == 0:
        return None
    return _read(encoding, values) if first.score >= _NEAR_MISS else first


def _read(encoding: str, values: Sequence[Any]) -> Reading:
    decoded, empty, undecodable = _decoded(encoding, values)
    vectors = Vectors.of(decoded, undecodable)
    dimensions = dict(Counter(map(len, decoded)).most_common())
    dimension = next(iter(vectors.dimensions or dimensions), 0)
    against = checks.against(vectors)
    return Reading(
        encoding,
        dimension,
        dimensions,
        len(decoded),
        empty,
        undecodable,
        vectors.norms,
        _score(vectors, dimension, against),
        _evidence(encoding, vectors, dimension),
        against,
    )


def _decoded(encoding: str, values: Sequence[Any]) -> tuple[list[Floats], int, int]:
    """Return the vectors, and how many values are empty and how many undecodable."""
    reader = parse_encoding(encoding, allow_pickle=True)
    vectors: list[Floats] = []
    reasons: Counter[Reason] = Counter()
    for start in range(0, len(values), _TOGETHER):
        part = reader.decode_many(values[start : start + _TOGETHER])
        reasons.update(fault.reason for fault in part.faults.values())
        vectors += [vector for i, vector in enumerate(part.features) if vector is not None and i not in part.faults]
    return vectors, reasons[Reason.EMPTY], reasons[Reason.UNDECODABLE]


def _score(vectors: Vectors, dimension: int, against: Sequence[str]) -> float:
    if not vectors.dimensions:
        return _NEAR_MISS  # placeholders alone tell nothing
    if not len(vectors.rows):
        return 0.0
    if against:
        return 0.4 * 0.5 ** len(against)
    usable = sum(vectors.dimensions.values()) - vectors.unfinite
    return FITS + 0.3 * usable / vectors.count + (0.2 if dimension in USUAL else 0.0)


def _leaf(encoding: str) -> Leaf:
    return parse_encoding(encoding, allow_pickle=True).leaf


def _closed(encoding: str, values: Sequence[Any]) -> Reading:
    unknown = float("nan")
    against = ["a pickle, which is not opened unless allow_pickle = true"]
    return Reading(encoding, 0, {}, 0, 0, len(values), (unknown,) * 3, 0.0, "pickles", against)


def _one_start(found: Sequence[Reading]) -> list[Reading]:
    """Believe but one of the readings that take raw numbers from the same bytes: most can be read from later on, too.

    A container that says where its numbers are is believed more than any of them.
    """
    best: dict[Any, Reading] = {}
    for reading in found:
        if reading.fits:
            kind = _wrapping(reading)
            best[kind] = max(best.get(kind, reading), reading, key=_likelihood)
    return [_rather(reading, best.get(_wrapping(reading))) for reading in found]


def _wrapping(reading: Reading) -> Any:
    return parse_encoding(reading.encoding, allow_pickle=True).wrappers


def _likelihood(reading: Reading) -> tuple[bool, bool, int]:
    says_where = isinstance(_leaf(reading.encoding), Npy | Protobuf | Pickle)
    return says_where, reading.dimension in USUAL, reading.dimension


def _rather(reading: Reading, best: Reading | None) -> Reading:
    if best is None or best is reading or not reading.fits or not isinstance(_leaf(reading.encoding), raw.Raw):
        return reading
    return replace(reading, score=_NEAR_MISS / 2, against=[f"{best.encoding} explains more of the bytes"])


def _evidence(encoding: str, vectors: Vectors, dimension: int) -> str:
    found = f"{dimension} {_in_words(encoding)}"
    rows = sum(vectors.dimensions.values())
    others = [str(other) for other, count in vectors.dimensions.items() if other != dimension and count > 0.05 * rows]
    found += f", in other rows {' or '.join(others[:3])}" if others else ""
    if not len(vectors.rows):
        return found
    norms = " … ".join(f"{norm:.3g}" for norm in vectors.norms)
    return f"{found}, norms {norms}, {100 * vectors.negative:.0f} % negative"


def _in_words(encoding: str) -> str:
    leaf = _leaf(encoding)
    if not isinstance(leaf, raw.Raw):
        return f"numbers as {encoding}"
    order = "big-endian" if leaf.dtype.byteorder == ">" else "little-endian"
    header = f" after {leaf.offset} byte{'s' * (leaf.offset > 1)}" if leaf.offset else ""
    wrapped = "".join(f" in {wrapper}" for wrapper in reversed(encoding.split("+")[:-1]))
    return f"float{8 * leaf.dtype.itemsize} {order}{header}{wrapped}"


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Return the values with each text or blob once: a column may be full of one placeholder."""
    return list({value if isinstance(value, str | bytes) else id(value): value for value in values}.values())


def _evenly(values: Sequence[Any], count: int) -> Sequence[Any]:
    return values[:: -(-len(values) // count) or 1]
