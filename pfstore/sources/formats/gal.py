"""OpenBR's binary gallery (.gal): templates of matrices, each with its file's name and metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import SourceError
from pfstore.features import Floats
from pfstore.sources import keys
from pfstore.sources.assembly import Fault
from pfstore.sources.base import Reason
from pfstore.sources.encodings.values import MAX_VALUES, to_float32
from pfstore.sources.formats.common import labelled, mapped, pattern, subject_in
from pfstore.sources.formats.qt import Broken, QtReader
from pfstore.sources.formats.rows import NOBODY, RowSource, Values
from pfstore.sources.keyed import SLICE_VALUES

_SUBJECT_KEYS = ("Label", "Subject", "Name")
_UNKNOWN = "-1"  # OpenBR's own word for a template of nobody known

_DEPTHS = ("CV_8U", "CV_8S", "CV_16U", "CV_16S", "CV_32S", "CV_32F", "CV_64F", "CV_16F")
_SIZES = (1, 1, 2, 2, 4, 4, 8, 2)
# Headers are big-endian, but a matrix is written as it lies in memory: of a PC, as are all that OpenBR runs on.
_FEATURES: dict[int, np.dtype[Any]] = {5: np.dtype("<f4"), 6: np.dtype("<f8")}


@dataclass(frozen=True)
class _Matrix:
    """Where the values of a matrix are, or why it is no feature."""

    start: int
    count: int
    dtype: np.dtype[Any] | None
    fault: Fault | None = None


@dataclass(frozen=True)
class _Row:
    """One matrix of a template, or the one row of a template without any. number: of the template and in it."""

    name: str
    subject: str
    number: tuple[int, int]
    matrix: _Matrix


class GalSource(RowSource):
    """The templates of a gallery that OpenBR wrote with Qt 4.8 to 6.

    Each matrix of 32 or 64-bit floats with one row or one column is a feature; a template may have several. Without
    subject_pattern, of which the first group is searched in the file's name, a subject is what the metadata say:
    Label, else Subject, else Name. A medium is a file, by its name. A template that failed to enrol is rejected as
    empty, a matrix of another kind as undecodable. A row's key is "template[matrix]", counted from 0.

    Raises ConfigError where nothing tells the extractor, SourceError where the file is no such gallery or cut off.
    """

    def __init__(
        self,
        path: Path,
        *,
        extractor: str | None,
        name: str,
        dimension: int | None = None,
        subject_pattern: str | None = None,
    ) -> None:
        extractor = labelled(extractor, name, path)
        self._data = mapped(path)
        try:
            self._rows = list(_rows(self._data, pattern(subject_pattern, name)))
        except Broken as broken:
            raise SourceError(f"{path}: no OpenBR gallery, or cut off: it has {broken}") from None
        longest = max((row.matrix.count for row in self._rows), default=1)
        super().__init__(
            extractor,
            dimension,
            subjects=[row.subject for row in self._rows],
            media=[row.name for row in self._rows],
            step=SLICE_VALUES // max(1, longest),
        )

    def values(self, rows: NDArray[np.int64]) -> Values:
        """Return the features of the rows of these numbers, and what is wrong with some."""
        matrices = [self._rows[row].matrix for row in rows.tolist()]
        faults = {i: matrix.fault for i, matrix in enumerate(matrices) if matrix.fault}
        return Values([self._feature(matrix) for matrix in matrices], faults)

    def row_key(self, row: int) -> str:
        """Return the number of the template and, in brackets, that of the matrix in it."""
        template, matrix = self._rows[row].number
        return f"{template}[{matrix}]"

    def _feature(self, matrix: _Matrix) -> Floats | None:
        if matrix.dtype is None:
            return None
        return to_float32(np.frombuffer(self._data, matrix.dtype, matrix.count, matrix.start))


def _rows(data: NDArray[np.uint8], expression: re.Pattern[str] | None) -> Iterator[_Row]:
    reader, number = QtReader(data, _TYPES), 0
    while not reader.ended:
        # A matrix is at least its four numbers.
        matrices = [_matrix(reader) for _ in range(reader.count(16, "matrices"))]
        name, metadata = reader.text(), reader.map()
        subject = _subject(name, metadata, expression)
        for i, matrix in enumerate(_usable(matrices, metadata)):
            yield _Row(name, subject, (number, i), matrix)
        number += 1


def _usable(matrices: Sequence[_Matrix], metadata: Mapping[str, Any]) -> Sequence[_Matrix]:
    if _failed(metadata.get("FTE", False)):
        return [_no_feature(Reason.EMPTY, "failure to enrol (FTE)")] * max(1, len(matrices))
    return matrices or [_no_feature(Reason.EMPTY, "a template without a matrix")]


def _failed(told: Any) -> bool:
    """Tell whether a flag is set; to OpenBR it is where it has no value."""
    return told.lower() not in ("", "0", "false") if isinstance(told, str) else told is None or bool(told)


def _no_feature(reason: Reason, detail: str) -> _Matrix:
    return _Matrix(0, 0, None, Fault(reason, detail))


def _subject(name: str, metadata: Mapping[str, Any], expression: re.Pattern[str] | None) -> str:
    if expression is not None:
        return subject_in(name, expression)
    told = (metadata.get(key) for key in _SUBJECT_KEYS)
    found = next((keys.part_text(one) for one in told if isinstance(one, str | int | float) and one != ""), NOBODY)
    return NOBODY if found == _UNKNOWN else found


def _matrix(reader: QtReader) -> _Matrix:
    start = reader.at
    rows, columns, kind, size = (reader.i32("a matrix's header") for _ in range(4))
    depth, channels = kind & 7, (kind >> 3 & 511) + 1
    expected = rows * columns * channels * _SIZES[depth]
    # What is now CV_16F once was a type of one's own, of any size.
    if min(rows, columns, size) < 0 or (depth != 7 and size != expected):
        raise Broken(f"a matrix of {rows}×{columns} of type {kind} in {size:,} bytes at byte {start:,}")
    values = reader.skip(size, "a matrix")
    return _unusable(rows, columns, depth, channels) or _Matrix(values, rows * columns, _FEATURES[depth])


def _unusable(rows: int, columns: int, depth: int, channels: int) -> _Matrix | None:
    if rows * columns == 0:
        return _no_feature(Reason.EMPTY, "a matrix without values")
    if depth not in _FEATURES or channels > 1:
        kind = f"{_DEPTHS[depth]}C{channels}" if channels > 1 else _DEPTHS[depth]
        return _no_feature(Reason.UNDECODABLE, f"a matrix of {kind} instead of CV_32F or CV_64F")
    if min(rows, columns) > 1:
        return _no_feature(Reason.UNDECODABLE, f"a matrix of {rows}×{columns} values instead of one feature")
    if rows * columns > MAX_VALUES:
        return _no_feature(Reason.UNDECODABLE, f"{rows * columns} values, more than {MAX_VALUES}")
    return None


def _numbers(size: int) -> Any:
    return lambda reader: reader.skip(size * reader.count(size, "numbers"), "numbers") and None


_TYPES = {
    "cv::Mat": _matrix,
    "cv::RotatedRect": lambda _: None,  # nothing writes it
    "QList<int>": _numbers(4),
    "QList<float>": _numbers(8),  # which QDataStream writes as doubles
    "QList<double>": _numbers(8),
}
