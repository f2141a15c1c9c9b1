"""Features in npz and npy files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import ConfigError, SourceError
from pfstore.features import Offsets
from pfstore.sources.arrays import Npz, feature_array, offset_array, read_npy, text_array
from pfstore.sources.assembly import Chunk, Fault
from pfstore.sources.base import Reason
from pfstore.sources.keyed import SLICE_VALUES, KeyedSource
from pfstore.sources.stamps import stamp


@dataclass(frozen=True)
class _Rows:
    """Some rows of an array of features ([N, D], or [D] for a single one). media: [rows], None where not told."""

    features: NDArray[Any]
    rows: Offsets
    media: NDArray[np.str_] | None = None


class FileSource(KeyedSource):
    """Features in an npz file, an npy file of one subject, or a folder of npy files, one for each subject.

    npz: `features [N, D]` float and either `subject [N]` (text or whole numbers) or `offsets [S+1]` with optional
    `ids [S]`; optional `medium [N]`. npy: `[N, D]`, or `[D]` for one feature; the file's name is the subject's.
    Arrays are mapped, not loaded, unless an npz file is compressed. Nothing is ever unpickled.

    Raises ConfigError without an extractor, SourceError where the files are not such.
    """

    def __init__(self, path: Path, *, extractor: str | None, name: str, dimension: int | None = None) -> None:
        if extractor is None:
            raise ConfigError(f'sources.{name}: {path} does not say what made its features; set extractor = "…"')
        super().__init__(extractor, dimension)
        self._path = path
        self._npz = _npz_rows(path) if path.suffix == ".npz" else None
        self._files = {} if self._npz is not None else _npy_files(path)

    @property
    def has_media(self) -> bool:
        """Whether features are grouped by image or video."""
        return self._npz is not None and any(rows.media is not None for rows in islice(self._npz.values(), 1))

    @cached_property
    def subjects(self) -> Sequence[str]:
        """All subjects, sorted."""
        return sorted(self._npz if self._npz is not None else self._files)

    def count(self, subject: str) -> int:
        """Return the number of rows of a subject without reading them; no row at all counts as one, rejected."""
        return max(1, len(self._rows(subject).rows))

    def chunks(self, subject: str) -> Iterator[Chunk]:
        """Yield the rows of a subject a slice at a time, a medium's rows together."""
        rows = self._rows(subject)
        if len(rows.rows) == 0:
            yield Chunk([subject], [""], [""], [None], {0: Fault(Reason.EMPTY, "no feature")})
        features = np.atleast_2d(rows.features)
        step = max(1, SLICE_VALUES // max(1, features.shape[1]))
        for start in range(0, len(rows.rows), step):
            part = slice(start, start + step)
            picked = rows.rows[part]
            media = [""] * len(picked) if rows.media is None else rows.media[part].tolist()
            yield Chunk([subject] * len(picked), media, [str(row) for row in picked.tolist()], features[picked])

    def stamp(self, subject: str) -> bytes:
        """Return the stamp of a subject's file."""
        return super().stamp(subject) if self._npz is not None else stamp([self._files[subject]])

    def __exit__(self, *exc: object) -> None:
        """Do nothing: no file stays open between reads."""

    def _rows(self, subject: str) -> _Rows:
        if self._npz is not None:
            return self._npz[subject]
        features = feature_array(read_npy(self._files[subject]), str(self._files[subject]))
        return _Rows(features, np.arange(1 if features.ndim == 1 else len(features)))


def _npz_rows(path: Path) -> dict[str, _Rows]:
    """Return the rows of each subject of an npz file."""
    file = Npz(path)
    features = feature_array(file["features"], f"{path}: features")
    if features.ndim != 2:
        raise SourceError(f"{path}: features: the shape is [N, D], this one is {list(features.shape)}")
    told = file.get("medium")
    media = None if told is None else text_array(told, len(features), f"{path}: medium")
    return {
        subject: _Rows(features, rows, None if media is None else media[rows])
        for subject, rows in _rows_by_subject(file, path, len(features), media).items()
    }


def _rows_by_subject(file: Npz, path: Path, count: int, media: NDArray[np.str_] | None) -> Mapping[str, Offsets]:
    subject, cuts = file.get("subject"), file.get("offsets")
    if subject is not None:
        names, owners = np.unique(text_array(subject, count, f"{path}: subject"), return_inverse=True)
    elif cuts is not None:
        offsets = offset_array(cuts, count, f"{path}: offsets")
        names = _ids(file, path, len(offsets) - 1)
        owners = np.repeat(np.arange(len(names)), np.diff(offsets))
    else:
        raise SourceError(f"{path}: has neither 'subject' [N] nor 'offsets' [S+1], so whose features are they?")
    # A subject's rows may lie anywhere, and so may a medium's within it.
    within = np.zeros(count) if media is None else np.unique(media, return_inverse=True)[1]
    order = np.lexsort((within, owners))
    bounds = np.searchsorted(owners[order], np.arange(len(names) + 1))
    return {name: order[first:last] for name, first, last in zip(names.tolist(), bounds[:-1], bounds[1:], strict=True)}


def _ids(file: Npz, path: Path, sets: int) -> NDArray[np.str_]:
    told = file.get("ids")
    if told is None:
        return np.arange(sets).astype(np.str_)
    ids = text_array(told, sets, f"{path}: ids")
    names, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise SourceError(f"{path}: ids: {str(names[counts > 1][0])!r} is there twice; a subject has one set")
    return ids


def _npy_files(path: Path) -> dict[str, Path]:
    if path.is_dir():
        files = {file.stem: file for file in path.glob("*.npy")}
        if not files:
            raise SourceError(f"{path}: holds no .npy file; one per subject is expected")
        return files
    if path.suffix != ".npy":
        raise SourceError(f"{path}: a source's files end in .hdf5, .h5, .npz or .npy")
    if not path.is_file():
        raise SourceError(f"{path}: no such file")
    return {path.stem: path}
