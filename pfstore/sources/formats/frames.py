"""Folders of pickled pandas frames, one for each medium, as research code keeps the features of BRIAR."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pfstore.errors import SourceError
from pfstore.features import Floats
from pfstore.sources import pickled
from pfstore.sources.arrays import first_line
from pfstore.sources.assembly import Chunk, Fault
from pfstore.sources.base import Reason
from pfstore.sources.formats.common import labelled, pattern, subject_in, vectors
from pfstore.sources.formats.rows import NOBODY
from pfstore.sources.keyed import SLICE_VALUES, KeyedSource
from pfstore.sources.stamps import stamp

_SUFFIXES = (".pkl", ".pickle")
_COLUMN = "feature"
_ROW_BYTES = 2200  # of a row with 512 values of float32
_TRIED = 3  # files from which the size of a row is learnt


class _File(NamedTuple):
    """A pickle: the medium that it is, which is its path below the folder without suffix, and that path."""

    medium: str
    below: str
    path: Path


class FramesSource(KeyedSource):
    """A tree of folders with pickled pandas frames (*.pkl, *.pickle), one for each medium.

    The column `feature` holds [D] numbers for each row. A medium is a file, by its path below the folder without
    suffix; a subject is the first group that subject_pattern finds in that path, or its first part: the folder in the
    folder. Links to folders are not followed. No pickle is run; a file that is no such frame is one rejected row.
    count is estimated from the size of the files, as otherwise all would have to be read.

    Raises ConfigError where nothing tells the extractor, SourceError where there is no such file or a folder cannot be
    read.
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
        super().__init__(labelled(extractor, name, path), dimension)
        expression = pattern(subject_pattern, name)
        self._files: dict[str, list[_File]] = defaultdict(list)
        for file in _found(path):
            # A file right in the folder has no folder to be named by.
            first = file.medium.partition("/")[0] if "/" in file.medium else NOBODY
            self._files[subject_in(file.medium, expression) if expression else first].append(file)

    @property
    def has_media(self) -> bool:
        """Whether features are grouped by image or video: here always."""
        return True

    @cached_property
    def subjects(self) -> Sequence[str]:
        """All subjects, sorted."""
        return sorted(subject for subject in self._files if subject != NOBODY)

    def count(self, subject: str) -> int:
        """Return about how many rows a subject has, estimated from the size of its files."""
        files = self._files.get(subject, [])
        return sum(max(1, round(_size(file.path) / self._row_bytes)) for file in files)

    def chunks(self, subject: str) -> Iterator[Chunk]:
        """Yield the rows of a subject a slice at a time, a medium's rows together."""
        for file in self._files[subject]:
            yield from _chunks(subject, file)

    def count_nobody(self) -> int:
        """Return about how many rows are in files whose path tells no subject."""
        return self.count(NOBODY)

    def nobody(self) -> Iterator[Chunk]:
        """Yield the rows of the files whose path tells no subject."""
        for file in self._files.get(NOBODY, []):
            yield from _chunks(None, file)

    def stamp(self, subject: str) -> bytes:
        """Return the stamp of a subject's files."""
        return stamp(file.path for file in self._files[subject])

    def __exit__(self, *exc: object) -> None:
        """Do nothing: no file stays open between reads."""

    @cached_property
    def _row_bytes(self) -> float:
        """The size of a row in a file, learnt from the first one that can be read."""
        for subject in self.subjects[:_TRIED]:
            file = self._files[subject][0]
            features = features_of(file.path)
            if not isinstance(features, Fault) and features:
                return _size(file.path) / len(features)
        return _ROW_BYTES


def _found(folder: Path) -> list[_File]:
    """Return the pickles in a folder and all folders in it, in the order of their media."""
    try:
        paths = [path for path in _below(folder) if path.suffix in _SUFFIXES and (path.is_file() or not path.exists())]
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"{folder}: no such folder; a folder of pickled frames is expected") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder}: cannot be read: {first_line(error)}") from None
    files = []
    for path in paths:
        below = path.relative_to(folder).as_posix()
        files.append(_File(below.removesuffix(path.suffix), below, path))
    if not files:
        raise SourceError(f"{folder}: holds no {' or '.join(f'*{suffix}' for suffix in _SUFFIXES)}, at any depth")
    return sorted(files)


def _below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder. Raises OSError where one of its folders cannot be read."""

    def fail(error: OSError) -> None:
        raise error

    for parent, _, names in os.walk(folder, onerror=fail):
        yield from (Path(parent, name) for name in names)


def _chunks(subject: str | None, file: _File) -> Iterator[Chunk]:
    found = features_of(file.path)
    if isinstance(found, Fault):
        yield Chunk([subject], [file.medium], [file.below], [None], {0: found})
        return
    step = max(1, SLICE_VALUES // max((len(one) for one in found if not isinstance(one, Fault)), default=1))
    for start in range(0, len(found), step):
        part = found[start : start + step]
        faults = {i: one for i, one in enumerate(part) if isinstance(one, Fault)}
        features = [None if isinstance(one, Fault) else one for one in part]
        rows = [f"{file.below}[{row}]" for row in range(start, start + len(part))]
        yield Chunk([subject] * len(part), [file.medium] * len(part), rows, features, faults)


def features_of(path: Path) -> list[Floats | Fault] | Fault:
    """Return the feature of each row of a pickled frame or why there is none, or why there is no row.

    Raises SourceError where the file cannot be read.
    """
    try:
        frame = pickled.read(path)
        if not isinstance(frame, pickled.Frame):
            return Fault(Reason.UNDECODABLE, f"the pickle is a {type(frame).__name__} instead of a pandas DataFrame")
        found = vectors(frame.column(_COLUMN), _size(path))
    except pickled.Unreadable as error:
        return Fault(Reason.UNDECODABLE, f"the pickle {error}"[:200])
    return found or Fault(Reason.EMPTY, "a frame without rows")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {first_line(error)}") from None
