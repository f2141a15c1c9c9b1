"""Features by medium, as protocols name media: by a path below a folder of feature files, or inside an HDF5 file."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import InputError
from pfstore.features import Floats
from pfstore.sources.arrays import feature_array, first_line, read_npy
from pfstore.sources.assembly import Chunk, Fault
from pfstore.sources.base import Reason
from pfstore.sources.keyed import HDF5_SUFFIXES, SLICE_VALUES

_PICKLES = (".pkl", ".pickle")
_SUFFIXES = (".npy", *_PICKLES, *HDF5_SUFFIXES)


class MediaFeatures(ABC):
    """The features of media, each medium known by a key: its path without the suffix of a file of features."""

    @property
    @abstractmethod
    def keys(self) -> Sequence[str]:
        """The keys of all media, sorted."""

    @abstractmethod
    def chunks(self, key: str, sample: str, medium: str) -> Iterator[Chunk]:
        """Yield the rows of a medium a slice at a time, as rows of this sample and medium.

        A medium without any row gives one that is rejected as empty. Raises InputError or SourceError where its file
        is damaged.
        """

    def find(self, *names: str) -> str | None:
        """Return the key of the first of some names that is there; a name may end as the medium's own file does.

        So "a/b.mp4" is found as "a/b.mp4.npy" and as "a/b.npy".
        """
        for name in names:
            path = name.strip().removeprefix("./").lstrip("/")
            folder, slash, last = path.rpartition("/")
            for key in (path, f"{folder}{slash}{last.rpartition('.')[0] or last}"):
                if key in self:
                    return key
        return None

    @abstractmethod
    def __contains__(self, key: str) -> bool: ...


def open_media(path: Path) -> MediaFeatures:
    """Open a folder of feature files at any depth (npy, pickled pandas frames, HDF5) or one HDF5 file of datasets.

    In a file: npy `[n, D]` or `[D]`; a pickled frame with a column `feature`, which is never run; HDF5 with one
    dataset. In one HDF5 file for all, the path of a dataset is the medium's.

    Raises InputError where there is neither, or a medium has two files; SourceError where the HDF5 file is damaged.
    """
    if path.is_dir():
        return _Folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder of features")
    if path.suffix not in HDF5_SUFFIXES:
        raise InputError(
            f"{path}: features by medium are a folder of files, or one HDF5 file that ends in .hdf5 or .h5"
        )
    return _File(path)


class _Folder(MediaFeatures):
    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        for file in _below(folder):
            key = file.relative_to(folder).as_posix().removesuffix(file.suffix)
            if key in self._files:
                raise InputError(f"{folder}: {self._files[key].name} and {file.name} are both of {key!r}; remove one")
            self._files[key] = file
        if not self._files:
            raise InputError(f"{folder}: holds no features ({', '.join(_SUFFIXES)}), at any depth")

    @property
    def keys(self) -> Sequence[str]:
        return sorted(self._files)

    def __contains__(self, key: str) -> bool:
        return key in self._files

    def chunks(self, key: str, sample: str, medium: str) -> Iterator[Chunk]:
        file = self._files[key]
        if _size(file) == 0:
            yield from _chunks(sample, medium, key, Fault(Reason.EMPTY, "an empty file"))
        elif file.suffix in HDF5_SUFFIXES:
            yield from _dataset_chunks(file, None, sample, medium, key)
        elif file.suffix in _PICKLES:
            yield from _chunks(sample, medium, key, _pickled(file))
        else:
            yield from _chunks(sample, medium, key, _array(file))


class _File(MediaFeatures):
    def __init__(self, path: Path) -> None:
        # h5py takes a while to load, and most protocols come without it.
        from pfstore.sources import hdf5

        self._path = path
        with hdf5.open_file(path) as file:
            self._names = {one.name: None for one in hdf5.datasets(file)}
        if not self._names:
            raise InputError(f"{path}: holds no dataset of features")

    @property
    def keys(self) -> Sequence[str]:
        return sorted(self._names)

    def __contains__(self, key: str) -> bool:
        return key in self._names

    def chunks(self, key: str, sample: str, medium: str) -> Iterator[Chunk]:
        yield from _dataset_chunks(self._path, key, sample, medium, key)


def _dataset_chunks(path: Path, name: str | None, sample: str, medium: str, key: str) -> Iterator[Chunk]:
    """Yield the rows of a dataset of a file, of its only one where name is None."""
    from pfstore.evaluation.protocols.hdf5 import dataset_at
    from pfstore.sources import hdf5

    with hdf5.open_file(path) as file:
        found = list(hdf5.datasets(file)) if name is None else [dataset_at(file, name)]
        if len(found) != 1:
            raise InputError(f"{path}: the features of one medium are one dataset; this file has {len(found)}")
        yield from hdf5.dataset_chunks(found[0], sample, medium, key)


def _array(path: Path) -> NDArray[Any] | Fault:
    array = read_npy(path)
    if array.size == 0:
        return Fault(Reason.EMPTY, "no feature")
    return np.atleast_2d(feature_array(array, str(path)))


def _pickled(path: Path) -> list[Floats | Fault] | Fault:
    from pfstore.sources.formats.frames import features_of

    found = features_of(path)
    if isinstance(found, Fault) and found.reason is not Reason.EMPTY:
        raise InputError(f"{path}: {found.detail}")
    return found


def _chunks(sample: str, medium: str, key: str, found: Any) -> Iterator[Chunk]:
    """Yield the rows of [n, D] features, of a list of features and faults, or of one fault in the place of all."""
    if isinstance(found, Fault):
        yield Chunk([sample], [medium], [key], [None], {0: found})
        return
    longest = max((len(one) for one in found[:1] if not isinstance(one, Fault)), default=1)
    step = max(1, SLICE_VALUES // max(1, longest))
    for start in range(0, len(found), step):
        part = found[start : start + step]
        rows = [f"{key}[{row}]" for row in range(start, start + len(part))]
        faults = {i: one for i, one in enumerate(part) if isinstance(one, Fault)}
        features = part if isinstance(part, np.ndarray) else [None if isinstance(x, Fault) else x for x in part]
        yield Chunk([sample] * len(part), [medium] * len(part), rows, features, faults)


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files of features below a folder; links to folders are not followed."""

    def fail(error: OSError) -> None:
        raise InputError(f"{folder}: cannot be read: {first_line(error)}") from None

    for parent, _, names in os.walk(folder, onerror=fail):
        yield from (Path(parent, name) for name in names if name.endswith(_SUFFIXES))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {first_line(error)}") from None
