"""The protocol of ProxyFusion's reference on its own feature files: each subject's gallery against all probes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import h5py

from pfstore.errors import InputError
from pfstore.evaluation.protocols.experiment import Experiment
from pfstore.evaluation.protocols.samples import ChunkedSamples, numbered
from pfstore.evaluation.protocols.survey import Compared, shown, surveyed
from pfstore.parts import Part, Parts
from pfstore.sources import hdf5
from pfstore.sources.assembly import Chunk
from pfstore.sources.hdf5_datasets import Dataset
from pfstore.sources.keys import storable

_PROBE = re.compile(r"probe_.+")


@dataclass(frozen=True)
class Stored:
    """A subject in a feature file.

    group: its name there. gallery: whether it has any medium in its gallery. probes: the paths of the datasets below
    its group that are probes.
    """

    subject: str
    file: Path
    group: bytes
    gallery: bool
    probes: Sequence[str]


def hdf5_experiment(
    features: Path,
    *,
    parts: Parts | None = None,
    part: Part = "test",
    extractor: str = "",
    dimension: int | None = None,
) -> Experiment:
    """Return the reference's protocol on HDF5 feature files: one file, a folder of them, or a folder above.

    A subject's gallery media are one reference, and each of its datasets probe_<n> is a probe, "<subject>/probe_<n>";
    every probe is compared with every reference. The probes of a subject without a gallery are non-mated searches; a
    warning names those subjects. A probe without a usable feature is a failure to acquire; features that are not finite
    or zero are left out, counted and warned of. parts, part: take the subjects of that part alone. extractor: else told
    by the folders. dimension: else that of most features.

    Raises SourceError where there are no such files or one is damaged, InputError where a probe is no dataset of
    features, there is one subject only, no gallery or no mated probe.
    """
    layout = hdf5.find(features)
    found = [one for one in stored(layout.files, _probes) if parts is None or parts.of(one.subject) == part]
    of_part = f", {part} subjects" if parts else ""
    where = f"{features}{of_part}"
    if not any(one.probes for one in found):
        raise InputError(f"{where}: has no probe; a probe is a dataset <subject>/probe_<n>, beside <subject>/gallery")
    references = reference_samples(found, where, dimension)
    return surveyed(
        f"HDF5, each gallery against all probes{of_part}",
        [Compared("gallery", references, probe_samples(found, where, references.dimension))],
        dimension=references.dimension,
        extractor=extractor or layout.extractor or "",
        facts={"part": part, "parts": parts.as_dict()} if parts else None,
        warnings=_without_gallery(found),
    )


def has_probes(features: Path) -> bool:
    """Tell whether any subject of these feature files has a probe. Raises as hdf5_experiment."""
    return any(one.probes for one in stored(hdf5.find(features).files, _probes))


def stored(files: Sequence[Path], probes: Callable[[h5py.Group], list[str]]) -> list[Stored]:
    """Return the subjects of feature files. probes: gives the paths of the probes below a subject's group.

    Raises SourceError where a file is damaged, InputError where a subject is in two files.
    """
    found: dict[str, Stored] = {}
    for path in files:
        with hdf5.open_file(path) as file:
            for key, name in hdf5.subject_groups(file).items():
                subject = storable(key)
                if subject in found:
                    raise InputError(f"subject {subject!r} is in {found[subject].file} and in {path}; remove one")
                group = file[name]
                found[subject] = Stored(subject, path, name, hdf5.has_gallery(group), probes(group))
    return list(found.values())


def reference_samples(found: Sequence[Stored], where: str, dimension: int | None = None) -> ChunkedSamples:
    """Return the gallery of each subject that has one. Raises InputError where none has."""
    enrolled = [one for one in found if one.gallery]
    if not enrolled:
        raise InputError(
            f"{where}: no subject has a gallery; its media are datasets <subject>/gallery/images/<n> or video"
        )
    subjects = numbered(((one.subject, one.subject) for one in enrolled), "subject")
    return ChunkedSamples(subjects.__getitem__, lambda: _gallery_chunks(enrolled), dimension)


def probe_samples(found: Sequence[Stored], where: str, dimension: int) -> ChunkedSamples:
    """Return the probes of all subjects, each named "<subject>/<path>"."""
    named = ((f"{one.subject}/{storable(probe)}", one.subject) for one in found for probe in one.probes)
    subjects = numbered(named, f"{where}: probe")
    return ChunkedSamples(subjects.__getitem__, lambda: _probe_chunks(found), dimension)


def dataset_at(group: h5py.Group, path: str) -> Dataset:
    """Return the dataset at a path below a group. Raises InputError where there is none."""
    folder, _, name = path.rpartition("/")
    dataset = hdf5.dataset_of(group[folder] if folder else group, name)
    if dataset is None:
        raise InputError(f"{group.file.filename}: {group.name}/{path} is no dataset of features")
    return dataset


def _probes(group: h5py.Group) -> list[str]:
    names = [name for name in hdf5.members(group) if _PROBE.fullmatch(name)]
    for name in names:
        dataset_at(group, name)
    return names


def _gallery_chunks(found: Sequence[Stored]) -> Iterator[Chunk]:
    for path, subjects in groupby(found, lambda one: one.file):
        with hdf5.open_file(path) as file:
            for one in subjects:
                for dataset in hdf5.datasets(file[one.group]["gallery"]):
                    yield from hdf5.dataset_chunks(dataset, one.subject, dataset.name, f"gallery/{dataset.name}")


def _probe_chunks(found: Sequence[Stored]) -> Iterator[Chunk]:
    for path, subjects in groupby(found, lambda one: one.file):
        with hdf5.open_file(path) as file:
            for one in subjects:
                for probe in one.probes:
                    dataset = dataset_at(file[one.group], probe)
                    yield from hdf5.dataset_chunks(dataset, f"{one.subject}/{storable(probe)}", probe, probe)


def _without_gallery(found: Sequence[Stored]) -> list[str]:
    without = [one.subject for one in found if one.probes and not one.gallery]
    if not without:
        return []
    have = "subject has" if len(without) == 1 else "subjects have"
    return [f"{len(without):,} {have} no gallery, so all of their probes are non-mated searches: {shown(without)}"]
