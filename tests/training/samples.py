"""Made-up people to train on: as a source, as a table of features, as HDF5 files with probes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pfstore.config import SourceConfig
from pfstore.features import FeatureBatch, offsets_of
from pfstore.sources import open_source
from pfstore.synthetic.population import Population
from pfstore.training.data import TrainingData, of_source

DIMENSION = 24


def joined(batches: Sequence[FeatureBatch]) -> TrainingData:
    """Put the subjects of batches together."""
    return TrainingData(
        FeatureBatch(
            np.concatenate([one.features for one in batches]),
            offsets_of(np.concatenate([np.diff(one.media_offsets) for one in batches])),
            offsets_of(np.concatenate([np.diff(one.subject_offsets) for one in batches])),
            [name for one in batches for name in one.subject_ids],
            [name for one in batches for name in one.media_ids],
        )
    )


@cache
def people(subjects: int = 60, seed: int = 0) -> TrainingData:
    """Subjects of several media, good frames and bad ones."""
    population = Population(
        subjects,
        DIMENSION,
        seed,
        features_per_subject=12,
        media_per_subject=5,
        wrong_person_share=0,
        noise=0.5,
        medium_noise=0.2,
        drift=1.5,
        better_is="shorter",
    )
    return joined(list(population.batches()))


def half_bad(subjects: int = 160) -> TrainingData:
    """Subjects of four media of three frames, of which a third show nobody: all such frames point one way, about."""
    random = np.random.default_rng(0)
    identities = random.normal(size=(subjects, 1, DIMENSION))
    noise = random.normal(size=(subjects, 12, DIMENSION))
    nobody = random.normal(size=DIMENSION)
    bad = random.random((subjects, 12, 1)) < 0.5
    bad[:, ::3] = False  # one good frame in each medium, so that weights alone can tell people apart
    features = np.where(bad, 2 * nobody + noise, identities + 0.5 * noise)
    return TrainingData(
        FeatureBatch(
            features.reshape(-1, DIMENSION).astype(np.float32),
            offsets_of([3] * (4 * subjects)),
            offsets_of([4] * subjects),
            [f"subject-{number}" for number in range(subjects)],
            [str(number) for number in range(4)] * subjects,
        )
    )


def write_npz(path: Path, data: TrainingData, *, media: bool = True) -> None:
    """Write the data as a source's file."""
    counts = np.diff(data.batch.media_offsets)
    owners = np.repeat(np.arange(len(data.subjects)), np.diff(data.batch.subject_offsets))
    arrays: dict[str, Any] = {
        "features": data.batch.features,
        "subject": np.repeat(np.array(data.subjects)[owners], counts),
    }
    if media:
        arrays["medium"] = np.repeat(np.arange(len(counts)).astype(str), counts)
    np.savez(path, **arrays)


def of_file(path: Path) -> TrainingData:
    """Read a source's file as training does."""
    config = SourceConfig(path=path, extractor="made-up/sphere")
    with open_source(config, "people", path.parent) as source:
        return of_source(source)


def write_hdf5(folder: Path, data: TrainingData) -> None:
    """Write the data in the reference's layout: of each subject the last medium as its probe, the others as gallery."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "features_all.hdf5", "w") as file:
        for number, subject in enumerate(data.subjects):
            first, last = data.batch.subject_offsets[number : number + 2]
            for medium in range(first, last):
                frames = data.batch.features[data.batch.media_offsets[medium] : data.batch.media_offsets[medium + 1]]
                kind = "images" if len(frames) == 1 else "video"
                name = "probe_0" if medium == last - 1 and last - first > 1 else f"gallery/{kind}/{medium}"
                file[f"{subject}/{name}"] = frames
