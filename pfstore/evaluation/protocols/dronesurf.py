"""DroneSURF: faces seen from a drone that follows its subject (active) or watches a place (passive)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from pfstore.errors import InputError
from pfstore.evaluation.protocols.experiment import Experiment
from pfstore.evaluation.protocols.samples import ChunkedSamples, numbered, usual_dimension
from pfstore.evaluation.protocols.sheets import read_names
from pfstore.evaluation.protocols.survey import Compared, shown, surveyed
from pfstore.sources.assembly import Chunk
from pfstore.sources.keyed import HDF5_SUFFIXES
from pfstore.sources.keys import storable

Scenario: TypeAlias = Literal["active", "passive"]
Wise: TypeAlias = Literal["video", "frame"]

_TESTED = 24
_IMAGES = 4

_Open: TypeAlias = Callable[[str, str], Iterator[Chunk]]
_Media: TypeAlias = dict[str, dict[str, _Open]]
"""By subject and name: gives the rows of a medium, when it is told the sample and the medium to call them by."""


def dronesurf_experiment(
    features: Path,
    *,
    scenario: Scenario,
    wise: Wise = "video",
    subjects: Path | None = None,
    extractor: str = "",
    dimension: int | None = None,
) -> Experiment:
    """Return DroneSURF's identification: the videos of a scenario against the four high-resolution images of each.

    features: a folder of feature files (npy, pickled pandas frames or HDF5), `gallery/<subject>/<image>` and
    `<scenario>/<subject>/<video>`, a row for each face of that subject; or HDF5 in the reference's files,
    `<subject>/gallery/images/<n>` and `<subject>/<scenario>/<video>`. wise: whether each video is a probe or each
    frame. subjects: a text that names the subjects to test, one a line, as 34 of the 58 are for training; without it
    all are tested, and a warning says if they are not 24.

    An empty video, and frame-wise each frame that is not usable, is a failure to acquire. Raises InputError where the
    files are not so laid out, or a subject to test has no gallery.
    """
    gallery, videos = _of_files(features, scenario) if _is_hdf5(features) else _of_folder(features, scenario)
    tested = _tested(gallery, subjects)
    references = {subject: gallery[subject] for subject in tested}
    probes = {f"{one}/{scenario}/{name}": (one, videos[one][name]) for one in tested for name in videos.get(one, {})}
    if not probes:
        raise InputError(f"{features}: has no video <{scenario}/subject/video> of a subject to test")
    dimension = dimension or usual_dimension(_reference_chunks(references))
    enrolled = ChunkedSamples(storable, partial(_reference_chunks, references), dimension)
    return surveyed(
        f"DroneSURF {scenario}, {wise}-wise",
        [Compared("gallery", enrolled, _probe_samples(probes, wise, dimension))],
        dimension=dimension,
        extractor=extractor,
        facts={"scenario": scenario, "probe": f"each {wise}"},
        warnings=_unusual(references, listed=subjects is not None),
    )


def _is_hdf5(path: Path) -> bool:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder of features")
    return path.suffix in HDF5_SUFFIXES or not (path / "gallery").is_dir()


def _of_folder(folder: Path, scenario: Scenario) -> tuple[_Media, _Media]:
    from pfstore.evaluation.protocols.media import open_media

    store = open_media(folder)
    found: dict[str, _Media] = {"gallery": defaultdict(dict), scenario: defaultdict(dict)}
    for key in store.keys:
        kind, _, below = key.partition("/")
        subject, slash, name = below.partition("/")
        if kind in found and slash:
            found[kind][subject][name] = partial(store.chunks, key)
    return found["gallery"], found[scenario]


def _of_files(path: Path, scenario: Scenario) -> tuple[_Media, _Media]:
    from pfstore.sources import hdf5

    gallery: _Media = defaultdict(dict)
    videos: _Media = defaultdict(dict)
    for file in hdf5.find(path).files:
        with hdf5.open_file(file) as opened:
            for subject, group in hdf5.subject_groups(opened).items():
                for dataset in hdf5.datasets(opened[group]):
                    kind, _, name = dataset.name.partition("/")
                    reading = partial(_dataset_chunks, file, group, dataset.name)
                    if kind == "gallery":
                        gallery[subject][name] = reading
                    elif kind == scenario:
                        videos[subject][name] = reading
    return gallery, videos


def _dataset_chunks(path: Path, group: bytes, name: str, sample: str, medium: str) -> Iterator[Chunk]:
    from pfstore.evaluation.protocols.hdf5 import dataset_at
    from pfstore.sources import hdf5

    with hdf5.open_file(path) as file:
        yield from hdf5.dataset_chunks(dataset_at(file[group], name), sample, medium, name)


def _tested(gallery: _Media, subjects: Path | None) -> list[str]:
    if subjects is None:
        return sorted(gallery)
    tested = list(dict.fromkeys(read_names(subjects)))
    without = [one for one in tested if one not in gallery]
    if without:
        raise InputError(f"{subjects}: {len(without):,} of the subjects to test have no gallery: {shown(without)}")
    return tested


def _reference_chunks(references: _Media) -> Iterator[Chunk]:
    for subject, images in references.items():
        for name, reading in images.items():
            yield from reading(storable(subject), name)


def _probe_samples(probes: Mapping[str, tuple[str, _Open]], wise: Wise, dimension: int) -> ChunkedSamples:
    subjects = numbered(((video, subject) for video, (subject, _) in probes.items()), "video")

    def chunks() -> Iterator[Chunk]:
        for video, (_, reading) in probes.items():
            yield from reading(storable(video), video)

    if wise == "video":
        return ChunkedSamples(subjects.__getitem__, chunks, dimension)

    def subject_of(frame: str) -> str:
        # A video without any frame stands for itself.
        return subjects.get(frame) or subjects[frame.rpartition("[")[0]]

    return ChunkedSamples(subject_of, lambda: map(_framed, chunks()), dimension)


def _framed(chunk: Chunk) -> Chunk:
    """Return a chunk of videos with each row as a sample of its own, "<video>[<row>]"."""
    samples = [
        f"{sample}{row[row.rindex('[') :]}" if row.endswith("]") else sample
        for sample, row in zip(chunk.subjects, chunk.rows, strict=True)
    ]
    return Chunk(samples, chunk.media, chunk.rows, chunk.features, chunk.faults)


def _unusual(references: _Media, *, listed: bool) -> list[str]:
    found = []
    if len(references) != _TESTED and not listed:
        found.append(
            f"DroneSURF tests {_TESTED} of its 58 subjects, these are {len(references)}; name those in subjects"
        )
    other = [subject for subject, images in references.items() if len(images) != _IMAGES]
    if other:
        found.append(f"subjects with more or fewer than {_IMAGES} gallery images: {shown(other)}")
    return found
