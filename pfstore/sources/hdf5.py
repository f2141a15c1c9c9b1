"""HDF5 feature files in the layout of ProxyFusion's reference.

`<data>/<split>/<detector>/<extractor>/features_<subject>.hdf5`, in each file one subject or many:
`<subject>/gallery/{images,video}/<n>` and `<subject>/probe_<n>`, datasets of [frames, D] floats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py

from pfstore.errors import ConfigError, PfstoreError, SourceError
from pfstore.sources.arrays import first_line
from pfstore.sources.assembly import Chunk
from pfstore.sources.base import ShardRange, SourceBatch
from pfstore.sources.hdf5_datasets import Dataset, ElsewhereError, dataset, descriptor_of
from pfstore.sources.hdf5_pages import Page
from pfstore.sources.keyed import HDF5_SUFFIXES, SLICE_VALUES, KeyedSource
from pfstore.sources.stamps import stamp

ESCAPED = "pfstore_escaped_names"
"""A file with this attribute has its subjects' names percent-encoded, as a name in HDF5 cannot hold "/"."""

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"})
_DEEPEST = 8  # groups within groups: hard links could go round in circles


@dataclass(frozen=True)
class Layout:
    """The feature files found under a path, sorted, and "detector/extractor" where their folders tell it."""

    files: Sequence[Path]
    extractor: str | None


@dataclass(frozen=True)
class _Held:
    """Where a subject is: its file, its group's name there, and the number of its rows."""

    path: Path
    group: bytes
    rows: int


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
        self._open: tuple[Path, h5py.File, int | None] | None = None

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
        return self._where[subject].rows

    def chunks(self, subject: str) -> Iterator[Chunk]:
        """Yield the rows of a subject a slice at a time, a medium's rows together."""
        return self.chunks_of([subject])

    def chunks_of(self, subjects: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows of a part of `subjects`, many small datasets in one slice."""
        page = Page(SLICE_VALUES)
        for subject in subjects:
            with self._gallery(subject) as (gallery, descriptor):
                for dataset in datasets(gallery):
                    yield from page.filled(dataset, subject, dataset.name, f"gallery/{dataset.name}", descriptor)
        yield from page.rest()

    def stamp(self, subject: str) -> bytes:
        """Return the stamp of a subject's file."""
        return stamp([self._where[subject].path])

    def read(self, range_: ShardRange, *, dimension: int, features: int, marks: bool = False) -> Iterator[SourceBatch]:
        """Read a shard in batches of about `features` features and whole subjects, with their marks if wanted."""
        if marks:
            self.__exit__()  # what is open may have been replaced since, and a mark is of what is there now
        yield from super().read(range_, dimension=dimension, features=features, marks=marks)

    def __exit__(self, *exc: object) -> None:
        """Close the file that was read last."""
        if self._open:
            self._open[1].close()
            self._open = None

    @cached_property
    def _where(self) -> dict[str, _Held]:
        where: dict[str, _Held] = {}
        for path in self._files:
            with open_file(path) as file:
                for subject, name in subject_groups(file).items():
                    rows = _gallery_rows(file[name])
                    if not rows:
                        continue
                    if subject in where:
                        raise SourceError(f"subject {subject!r} is in {where[subject].path} and in {path}; remove one")
                    where[subject] = _Held(path, name, rows)
        return where

    @contextmanager
    def _gallery(self, subject: str) -> Iterator[tuple[h5py.Group, int | None]]:
        held = self._where[subject]
        # With all subjects in one file it would be opened once for each of them.
        if self._open is None or self._open[0] != held.path or not self._open[1]:
            self.__exit__()
            with _readable(held.path):
                file = _opened(held.path)
                self._open = held.path, file, descriptor_of(file)
        _, file, descriptor = self._open
        with _readable(held.path):
            yield file[held.group]["gallery"], descriptor


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


def datasets(group: h5py.Group) -> Iterator[Dataset]:
    """Yield all datasets below a group in natural order of their names ("2" before "10"). Raises SourceError."""
    return _datasets(group, "", 0)


def _datasets(group: h5py.Group, above: str, depth: int) -> Iterator[Dataset]:
    if depth > _DEEPEST:
        raise SourceError(f"{group.file.filename}: {_text(group.name)} is nested too deep for feature files")
    opening = h5py.h5o.open
    for name in members(group):
        member = _opened_member(group, name, opening)
        if isinstance(member, h5py.h5g.GroupID):
            yield from _datasets(h5py.Group(member), f"{above}{name}/", depth + 1)
        elif isinstance(member, h5py.h5d.DatasetID):
            # What stands beside a dataset is one as a rule, and opened as such in half the time.
            opening = h5py.h5d.open
            yield _dataset(group, name, above + name, member)


def members(group: h5py.Group) -> list[str]:
    """Return the names in a group in natural order. Raises SourceError where one is a link to elsewhere."""
    links: list[tuple[bytes, int]] = []
    group.id.links.iterate(lambda name, info: links.append((name, info.type)), info=True)
    names = sorted((_text(name) for name, _ in links), key=_natural)
    if any(kind != h5py.h5l.TYPE_HARD for _, kind in links):
        kinds = {_text(name): kind for name, kind in links}
        name = next(name for name in names if kinds[name] != h5py.h5l.TYPE_HARD)
        raise SourceError(
            f"{_place(group, name)} is a link to elsewhere, which is not followed; store the features themselves"
        )
    return names


def dataset_of(group: h5py.Group, name: str) -> Dataset | None:
    """Return a group's member as a dataset, None where it is none.

    Raises SourceError where reading it would open another file or load a plugin.
    """
    member = _opened_member(group, name)
    return _dataset(group, name, name, member) if isinstance(member, h5py.h5d.DatasetID) else None


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
    return next(_gallery_datasets(subject), None) is not None


def _gallery_rows(subject: h5py.Group) -> int:
    """Return how many rows reading a subject's gallery gives: none where it has no dataset."""
    return sum(dataset.rows for dataset in _gallery_datasets(subject))


def _gallery_datasets(subject: h5py.Group) -> Iterator[Dataset]:
    if "gallery" in members(subject):
        gallery = _opened_member(subject, "gallery")
        if isinstance(gallery, h5py.h5g.GroupID):
            yield from datasets(h5py.Group(gallery))


def _dataset(group: h5py.Group, name: str, below: str, member: h5py.h5d.DatasetID) -> Dataset:
    try:
        return dataset(below, member)
    except ElsewhereError as elsewhere:
        raise SourceError(f"{_place(group, name)} {elsewhere}; store plain values in this file") from None


def _is_group(group: h5py.Group, name: str) -> bool:
    return isinstance(_opened_member(group, name), h5py.h5g.GroupID)


def _opened_member(
    group: h5py.Group, name: str, opening: Callable[[Any, bytes], Any] = h5py.h5o.open
) -> h5py.h5o.ObjectID:
    try:
        return opening(group.id, _bytes(name))
    except KeyError:  # no dataset after all
        if opening is h5py.h5o.open:
            raise
    return _opened_member(group, name)


def _label(path: Path, folder: Path) -> str | None:
    """Return "detector/extractor" if the folders below path are such, or the third from the end is a known split."""
    extractor, *above = folder.resolve(), *folder.resolve().parents
    if len(above) < 3:
        return None
    below = len(folder.relative_to(path).parts) if path != folder and path.is_dir() else 0
    told = below >= 2 or above[1].name.lower() in _SPLITS
    return f"{above[0].name}/{extractor.name}" if told else None


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    if name.isascii() and name.isdecimal():
        return [(0, ""), (int(name), ""), (0, "")], name
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts], name


def _text(name: str | bytes) -> str:
    # h5py gives a name as bytes where it is no UTF-8.
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
