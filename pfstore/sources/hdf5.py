"""HDF5 feature files in the layout of ProxyFusion's reference.

`<data>/<split>/<detector>/<extractor>/features_<subject>.hdf5`, in each file one subject or many:
`<subject>/gallery/{images,video}/<n>` and `<subject>/probe_<n>`, datasets of [frames, D] floats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np
from numpy.typing import NDArray

from pfstore.errors import ConfigError, PfstoreError, SourceError
from pfstore.sources.arrays import first_line
from pfstore.sources.assembly import Chunk, Fault
from pfstore.sources.base import Reason
from pfstore.sources.keyed import HDF5_SUFFIXES, SLICE_VALUES, KeyedSource

ESCAPED = "pfstore_escaped_names"
"""A file with this attribute has its subjects' names percent-encoded, as a name in HDF5 cannot hold "/"."""

MOST_VALUES = 16_000
"""Values of the longest feature that is read."""

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"})
_DEEPEST = 8  # groups within groups: hard links could go round in circles
_LARGEST_CHUNK = 2**28  # bytes that HDF5 would have to unpack at once
_BUILT_IN_FILTERS = frozenset(
    {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SZIP,
     h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET, h5py.h5z.FILTER_LZF}
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The feature files found under a path, sorted, and "detector/extractor" where their folders tell it."""

    files: Sequence[Path]
    extractor: str | None


@dataclass(frozen=True)
class Dataset:
    """One set of features in an open file.

    name: its path below the group in question. shape: (frames, D). fault: why it cannot be read as features.
    """

    name: str
    shape: tuple[int, int]
    dtype: str
    fault: Fault | None
    data: h5py.Dataset

    @property
    def rows(self) -> int:
        """Rows that reading gives: frames, or one reject for what is no features at all."""
        return 1 if self.fault else self.shape[0]

    def slices(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the features a part at a time: the first frame's number and [n, D]."""
        step = max(1, SLICE_VALUES // self.shape[1])
        for start in range(0, self.shape[0], step):
            part = self.data[:] if self.data.ndim == 1 else self.data[start : start + step]
            yield start, part.reshape(-1, self.shape[1])


class Hdf5Source(KeyedSource):
    """The gallery features in HDF5 files: one file, a folder of them, or a folder above.

    Media are named "images/0", "video/3". A subject without any gallery dataset is not in the source.
    Without an extractor the label is taken from the two last folders. dimension: where the configuration says it.

    Raises SourceError where there are no such files, more than one folder of them, a subject in two files,
    anything that would make HDF5 open another file or load a plugin, or a damaged file; ConfigError where
    nothing tells the extractor.
    """

    def __init__(self, path: Path, *, extractor: str | None, name: str, dimension: int | None = None) -> None:
        layout = find(path)
        label = extractor or layout.extractor
        if label is None:
            raise ConfigError(
                f"sources.{name}: {path} is not in folders <split>/<detector>/<extractor>, "
                'so nothing tells what made its features; set extractor = "…"'
            )
        super().__init__(label, dimension)
        self._files = layout.files
        self._open: tuple[Path, h5py.File] | None = None

    @property
    def has_media(self) -> bool:
        """Whether features are grouped by image or video: here always."""
        return True

    @cached_property
    def subjects(self) -> Sequence[str]:
        """All subjects with a gallery, sorted."""
        return sorted(self._where)

    def count(self, subject: str) -> int:
        """Return the number of rows of a subject without reading them."""
        with self._gallery(subject) as group:
            return sum(dataset.rows for dataset in datasets(group))

    def chunks(self, subject: str) -> Iterator[Chunk]:
        """Yield the rows of a subject a slice at a time, a medium's rows together."""
        with self._gallery(subject) as group:
            for dataset in datasets(group):
                yield from dataset_chunks(dataset, subject, dataset.name, f"gallery/{dataset.name}")

    def __exit__(self, *exc: object) -> None:
        """Close the file that was read last."""
        if self._open:
            self._open[1].close()
            self._open = None

    @cached_property
    def _where(self) -> dict[str, tuple[Path, bytes]]:
        """The file and the group of each subject."""
        where: dict[str, tuple[Path, bytes]] = {}
        for path in self._files:
            with open_file(path) as file:
                for subject, name in subject_groups(file).items():
                    if not has_gallery(file[name]):
                        continue
                    if subject in where:
                        raise SourceError(f"subject {subject!r} is in {where[subject][0]} and in {path}; remove one")
                    where[subject] = path, name
        return where

    @contextmanager
    def _gallery(self, subject: str) -> Iterator[h5py.Group]:
        path, name = self._where[subject]
        # With all subjects in one file it would be opened once for each of them.
        if self._open is None or self._open[0] != path or not self._open[1]:
            self.__exit__()
            with _readable(path):
                self._open = path, _opened(path)
        with _readable(path):
            yield self._open[1][name]["gallery"]


def find(path: Path) -> Layout:
    """Find the feature files of a path: an HDF5 file, a folder of features_*.hdf5, or at most three folders above.

    Raises SourceError where there is none, or more than one folder of them.
    """
    if path.is_file():
        return Layout([path], _label(path, path.parent))
    if not path.is_dir():
        raise SourceError(f"{path}: no such file or folder")
    for depth in range(4):
        pattern = "*/" * depth + "features_*"
        files = sorted(file for file in path.glob(pattern) if file.suffix in HDF5_SUFFIXES)
        folders = sorted({file.parent for file in files})
        if len(folders) > 1:
            listed = ", ".join(str(folder.relative_to(path)) for folder in folders)
            raise SourceError(f"{path}: holds features of several kinds ({listed}); point to one of these folders")
        if files:
            return Layout(files, _label(path, folders[0]))
    raise SourceError(f"{path}: holds no features_*.hdf5, nor do three levels of folders below it")


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; what HDF5 says of damage while it is open becomes a SourceError."""
    with _readable(path), _opened(path) as file:
        yield file


def subject_groups(file: h5py.File) -> dict[str, bytes]:
    """Return the name of each subject's group, as the file has it, by the subject's key, in natural order."""
    escaped = ESCAPED in file.attrs
    return {unquote(name) if escaped else name: _bytes(name) for name in members(file) if _is_group(file, name)}


def datasets(group: h5py.Group, depth: int = 0) -> Iterator[Dataset]:
    """Yield all datasets below a group in natural order of their names ("2" before "10"). Raises SourceError."""
    if depth > _DEEPEST:
        raise SourceError(f"{group.file.filename}: {_text(group.name)} is nested too deep for feature files")
    for name in members(group):
        member = _opened_member(group, name)
        if isinstance(member, h5py.h5g.GroupID):
            below = datasets(h5py.Group(member), depth + 1)
            yield from (replace(one, name=f"{name}/{one.name}") for one in below)
        elif isinstance(member, h5py.h5d.DatasetID):
            yield _dataset(group, name, member)


def members(group: h5py.Group) -> list[str]:
    """Return the names in a group in natural order. Raises SourceError where one is a link to elsewhere."""
    names = sorted(map(_text, group), key=_natural)
    for name in names:
        if group.id.links.get_info(_bytes(name)).type != h5py.h5l.TYPE_HARD:
            raise SourceError(
                f"{_place(group, name)} is a link to elsewhere, which is not followed; store the features themselves"
            )
    return names


def dataset_of(group: h5py.Group, name: str) -> Dataset | None:
    """Return a group's member as a dataset, None where it is none.

    Raises SourceError where reading it would open another file or load a plugin.
    """
    member = _opened_member(group, name)
    return _dataset(group, name, member) if isinstance(member, h5py.h5d.DatasetID) else None


def dataset_chunks(dataset: Dataset, subject: str, medium: str, key: str) -> Iterator[Chunk]:
    """Yield the rows of a dataset a slice at a time, all of one subject and medium; row n's key is "key[n]"."""
    if dataset.fault:
        yield Chunk([subject], [medium], [key], [None], {0: dataset.fault})
        return
    for start, features in dataset.slices():
        rows = [f"{key}[{frame}]" for frame in range(start, start + len(features))]
        yield Chunk([subject] * len(rows), [medium] * len(rows), rows, features)


def has_gallery(subject: h5py.Group) -> bool:
    """Tell whether a subject's group has any dataset in its gallery. Raises SourceError."""
    if "gallery" not in members(subject) or not _is_group(subject, "gallery"):
        return False
    return next(datasets(subject["gallery"]), None) is not None


def _dataset(group: h5py.Group, name: str, member: h5py.h5d.DatasetID) -> Dataset:
    # Even a look at the shape of a virtual dataset could open the files that it is made of.
    if elsewhere := _needs_more_than_the_file(member.get_create_plist()):
        raise SourceError(f"{_place(group, name)} {elsewhere}; store plain values in this file")
    data = h5py.Dataset(member)
    shape, dtype = data.shape, data.dtype
    fault = _fault(shape, dtype) or _storage_fault(data)
    frames = 1 if shape is None or len(shape) < 2 else shape[0]
    return Dataset(name, (frames, shape[-1]) if shape and data.size else (0, 0), str(dtype), fault, data)


def _needs_more_than_the_file(plan: h5py.h5p.PropDCID) -> str | None:
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        return "is a virtual dataset, whose values are in other files"
    if plan.get_external_count():
        return "has its values in another file (external storage)"
    for position in range(plan.get_nfilters()):
        code, _, _, name = plan.get_filter(position)
        if code not in _BUILT_IN_FILTERS:
            return f"is packed by a plugin (filter {code} {name.decode('utf-8', 'replace')})".replace(" )", ")")
    return None


def _fault(shape: tuple[int, ...] | None, dtype: np.dtype[Any]) -> Fault | None:
    if dtype.kind != "f" or dtype.itemsize > 8:
        return Fault(Reason.UNDECODABLE, f"{dtype} instead of float16, float32 or float64")
    if shape is None or 0 in shape:
        return Fault(Reason.EMPTY, "no feature")
    if len(shape) not in (1, 2):
        return Fault(Reason.UNDECODABLE, f"the shape is {list(shape)} instead of [frames, D]")
    if shape[-1] > MOST_VALUES:
        return Fault(Reason.UNDECODABLE, f"{shape[-1]:,} values in a feature, at most {MOST_VALUES:,} are read")
    return None


def _storage_fault(data: h5py.Dataset) -> Fault | None:
    if data.id.get_storage_size() == 0:
        return Fault(Reason.UNDECODABLE, "declared but never written")
    if data.chunks and math.prod(data.chunks) * data.dtype.itemsize > _LARGEST_CHUNK:
        return Fault(Reason.UNDECODABLE, f"chunks of {list(data.chunks)} are too large to unpack")
    return None


def _is_group(group: h5py.Group, name: str) -> bool:
    return isinstance(_opened_member(group, name), h5py.h5g.GroupID)


def _opened_member(group: h5py.Group, name: str) -> h5py.h5o.ObjectID:
    return h5py.h5o.open(group.id, _bytes(name))


def _label(path: Path, folder: Path) -> str | None:
    """Return "detector/extractor" if the folders below path are such, or the third from the end is a known split."""
    extractor, *above = folder.resolve(), *folder.resolve().parents
    if len(above) < 3:
        return None
    below = len(folder.relative_to(path).parts) if path != folder and path.is_dir() else 0
    told = below >= 2 or above[1].name.lower() in _SPLITS
    return f"{above[0].name}/{extractor.name}" if told else None


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts], name


def _text(name: str | bytes) -> str:
    # h5py gives a name that is no UTF-8 as bytes.
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _place(group: h5py.Group, name: str) -> str:
    return f"{group.file.filename}: {_text(group.name).rstrip('/')}/{name}"


def _opened(path: Path) -> h5py.File:
    # A lock would make the legacy system's writer fail.
    return h5py.File(path, "r", locking=False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except PfstoreError:
        raise
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise SourceError(f"{path}: damaged or not HDF5: {first_line(error)}") from None
