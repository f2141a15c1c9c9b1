"""Feature files made of any source, in the layout of ProxyFusion's reference, and a list of what such files hold."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import h5py

from pfstore.errors import InputError, SourceError
from pfstore.features import FeatureBatch
from pfstore.sources import hdf5
from pfstore.sources.base import FeatureSource
from pfstore.sources.hdf5_datasets import Dataset

_BATCH_FEATURES = 16_384
_SHARD_FEATURES = 8 * _BATCH_FEATURES
_LONGEST_NAME = 180  # file systems allow 255 bytes


@dataclass(frozen=True)
class Packed:
    """What pack wrote, the rows and subjects of the source that cannot be used, and the rows its mapping leaves out."""

    folder: str
    files: int
    subjects: int
    media: int
    features: int
    rejected: int
    subjects_rejected: int
    excluded: int


@dataclass(frozen=True)
class Listed:
    """One subject of feature files. frames: of all gallery media. dimension: None where there are several or none."""

    subject: str
    media: int
    frames: int
    probes: int
    dimension: int | None
    dtype: str


def pack(source: FeatureSource, folder: Path, *, single_file: bool = False) -> Packed:
    """Write every usable feature of a source into HDF5 files: one for each subject, or one for all.

    Media of one frame become `gallery/images/<n>`, others `gallery/video/<n>`, [frames, D] float32. Subjects' keys are
    percent-encoded in the names of groups and files, and read back as they were. The folder appears when all
    is written, or not at all.

    Raises InputError where the folder holds something, SourceError where no feature of the source can be read.
    """
    dimension = source.sample().dimension
    if dimension is None:
        raise SourceError("no feature of the source can be decoded, so there is nothing to pack")
    with _appearing(folder) as unfinished:
        writer = _Writer(unfinished, single_file)
        for shard in source.shards(_SHARD_FEATURES):
            for batch in source.read(shard.range, dimension=dimension, features=_BATCH_FEATURES):
                writer.add(batch.features)
                writer.rejected += len(batch.rejects)
                writer.subjects_rejected += len(batch.rejected_subjects)
                writer.excluded += sum(batch.excluded.values())
    return writer.packed(folder)


def listing(path: Path) -> Iterator[Listed]:
    """Yield what HDF5 feature files hold, a subject at a time; path is as for Hdf5Source. Raises SourceError."""
    for one in hdf5.find(path).files:
        with hdf5.open_file(one) as file:
            for subject, name in hdf5.subject_groups(file).items():
                yield _listed(subject, list(hdf5.datasets(file[name])))


def _listed(subject: str, datasets: list[Dataset]) -> Listed:
    media = [one for one in datasets if one.name.startswith("gallery/")]
    dimensions = {one.shape[1] for one in datasets if not one.fault}
    return Listed(
        subject,
        len(media),
        sum(one.shape[0] for one in media if not one.fault),
        sum(one.name.startswith("probe_") for one in datasets),
        dimensions.pop() if len(dimensions) == 1 else None,
        ", ".join(sorted({one.dtype for one in datasets})),
    )


class _Writer:
    """Writes subjects into files of a folder and counts them."""

    def __init__(self, folder: Path, single_file: bool) -> None:
        self._folder = folder
        self._single = single_file
        self.files = self.subjects = self.media = self.features = 0
        self.rejected = self.subjects_rejected = self.excluded = 0

    def add(self, batch: FeatureBatch) -> None:
        if self._single and batch.subject_ids:
            self.files = 1
            with _created(self._folder / "features_all.hdf5") as file:
                for number, subject in enumerate(batch.subject_ids):
                    self._subject(file, batch, number, subject)
            return
        for number, subject in enumerate(batch.subject_ids):
            self.files += 1
            with _created(self._folder / f"features_{_file_name(subject)}.hdf5") as file:
                self._subject(file, batch, number, subject)

    def _subject(self, file: h5py.File, batch: FeatureBatch, number: int, subject: str) -> None:
        gallery = file.create_group(_group_name(subject)).create_group("gallery")
        written = {"images": 0, "video": 0}
        for medium in range(batch.subject_offsets[number], batch.subject_offsets[number + 1]):
            frames = batch.features[batch.media_offsets[medium] : batch.media_offsets[medium + 1]]
            kind = "images" if len(frames) == 1 else "video"
            gallery[f"{kind}/{written[kind]}"] = frames
            written[kind] += 1
            self.features += len(frames)
        self.media += sum(written.values())
        self.subjects += 1

    def packed(self, folder: Path) -> Packed:
        return Packed(
            str(folder),
            self.files,
            self.subjects,
            self.media,
            self.features,
            self.rejected,
            self.subjects_rejected,
            self.excluded,
        )


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give a folder to write in that takes its place when all went well, and vanishes when not."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: holds something already; choose a folder that is empty or not there")
    target = folder.absolute()
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(target)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _created(path: Path) -> Iterator[h5py.File]:
    # To some file systems the names of two subjects are one; then both go into one file, which can be read.
    with h5py.File(path, "a") as file:
        file.attrs[hdf5.ESCAPED] = True
        yield file


def _group_name(subject: str) -> str:
    """Return the key without what a name in HDF5 cannot hold: "/", NUL, and "." where it is all of the name."""
    name = subject.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return name.replace(".", "%2E") if not name.strip(".") else name


def _file_name(subject: str) -> str:
    """Return a name that any file system takes; it need not be read back, as the group in the file tells the key."""
    name = quote(subject, safe=" ")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.blake2b(subject.encode(), digest_size=8).hexdigest()}"
