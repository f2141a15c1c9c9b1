"""What is trained on: all features of some subjects, in memory, with the media or sets that they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from numpy.typing import NDArray

from pfstore.errors import ConfigError, InputError
from pfstore.evaluation.protocols.memory import hold
from pfstore.features import FeatureBatch, Floats, Offsets, expanded, offsets_of

if TYPE_CHECKING:
    from pfstore.evaluation.protocols.experiment import Experiment
    from pfstore.sources.base import FeatureSource

_SHARD_FEATURES = 250_000
_BATCH_FEATURES = 20_000
_MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class TrainingData:
    """What is trained on.

    batch: the features of some subjects. probes: [M] bool, the media that are probes' sets, or None where the store
    does not tell and probes are drawn from the media. counts: what was read and left out, by reason. warnings: what was
    left out or is unusual, a sentence each.
    """

    batch: FeatureBatch
    probes: NDArray[np.bool_] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def subjects(self) -> Sequence[str]:
        """[S] the subjects' keys."""
        return self.batch.subject_ids

    def digest(self) -> str:
        """Hex SHA-256 over every subject's key, media and values; does not depend on the order of subjects."""
        prints = [
            hashlib.sha256(_bytes(subject) + print_ + self._sides(number)).digest()
            for number, (subject, print_) in enumerate(zip(self.subjects, self.batch.fingerprints(), strict=True))
        ]
        return hashlib.sha256(b"".join(sorted(prints))).hexdigest()

    def select(self, keep: Callable[[str], bool]) -> TrainingData:
        """Return the data of the subjects whose key is to be kept, in the same order."""
        return self._take(np.array([place for place, one in enumerate(self.subjects) if keep(one)], dtype=np.int64))

    def ordered(self) -> TrainingData:
        """Return the data with subjects in the order of their keys, so that the store's order decides nothing."""
        names = [_bytes(one) for one in self.subjects]
        return self._take(np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64))

    def prepared(self, prepare: Callable[[Floats], Floats]) -> TrainingData:
        """Return the data with its features as `prepare` makes them: [N, D] to [N, D]."""
        return replace(self, batch=replace(self.batch, features=prepare(self.batch.features)))

    def _take(self, subjects: Offsets) -> TrainingData:
        if self.probes is None:
            return replace(self, batch=self.batch.take(subjects))
        media = expanded(self.batch.subject_offsets[subjects], np.diff(self.batch.subject_offsets)[subjects])
        return replace(self, batch=self.batch.take(subjects), probes=self.probes[media])

    def _sides(self, number: int) -> bytes:
        """Tell which media of a subject are probes."""
        first, last = self.batch.subject_offsets[number : number + 2]
        return b"" if self.probes is None else self.probes[first:last].tobytes()


def of_source(source: FeatureSource, dimension: int | None = None) -> TrainingData:
    """Read every usable feature of a source; where it has no media, each feature is a medium of its own.

    Raises InputError where the source has no usable feature, or more of them than there is memory for.
    """
    size = dimension or source.sample().dimension or 0
    _check_memory(sum(shard.features for shard in source.shards(_SHARD_FEATURES)), size)
    held = hold(source, lambda _: True, dimension)
    if not held.subjects:
        raise InputError("no feature of the source can be used, so there is nothing to train on")
    counts = {"read": held.read, **held.rejected, **held.excluded}
    return TrainingData(held.batch, None, counts)


def of_hdf5(path: Path, extractor: str | None = None, dimension: int | None = None) -> tuple[TrainingData, str]:
    """Read HDF5 files in the reference's layout, and return their extractor's label too.

    Where there are probes, a subject's references are its gallery media and each of its probes is a set by itself;
    where there are none, as in the files of `hdf5 pack`, both are drawn from the gallery's media. extractor: where the
    folders do not tell it.

    Raises ConfigError where nothing tells the extractor, InputError and SourceError as hdf5_experiment and of_source.
    """
    from pfstore.evaluation.protocols.hdf5 import has_probes, hdf5_experiment
    from pfstore.sources import hdf5

    label = extractor or hdf5.find(path).extractor
    if not label:
        raise ConfigError(f"{path} does not tell what made its features: name it by --extractor")
    if has_probes(path):
        return _of_experiment(hdf5_experiment(path, extractor=label, dimension=dimension)), label
    with hdf5.Hdf5Source(path, extractor=label, name=path.name, dimension=dimension) as source:
        return of_source(source, dimension), label


def _of_experiment(experiment: Experiment) -> TrainingData:
    read = experiment.facts["features"]
    _check_memory(read["read"], experiment.dimension)
    gallery = experiment.galleries[0]
    sides = {False: gallery.references, True: gallery.probes}
    pieces: dict[str, list[tuple[bool, Floats]]] = {}
    for is_probe, samples in sides.items():
        for batch in samples.read(_BATCH_FEATURES):
            for subject, sets in zip(batch.subjects, _by_subject(batch.features), strict=True):
                whole = [np.concatenate(sets)] if is_probe else sets
                pieces.setdefault(subject, []).extend((is_probe, one) for one in whole)
    flat = [piece for sets in pieces.values() for piece in sets]
    joined = FeatureBatch(
        np.concatenate([features for _, features in flat]),
        offsets_of([len(features) for _, features in flat]),
        offsets_of([len(sets) for sets in pieces.values()]),
        list(pieces),
        [""] * len(flat),
    )
    is_of_probe = np.array([is_probe for is_probe, _ in flat], dtype=bool)
    return TrainingData(joined, is_of_probe, {"read": read["read"], **read["rejected"]}, experiment.warnings)


def _by_subject(batch: FeatureBatch) -> Iterator[list[Floats]]:
    for first, last in zip(batch.subject_offsets[:-1], batch.subject_offsets[1:], strict=True):
        cuts = batch.media_offsets[first : last + 1].tolist()
        yield [batch.features[begin:end] for begin, end in pairwise(cuts)]


def _bytes(subject: str) -> bytes:
    return subject.encode("utf-8", "surrogatepass")


def _check_memory(features: int, dimension: int) -> None:
    # Three times: while batches are joined, then while subjects are parted and their features normalised.
    needed, free = 3 * features * dimension * 4, psutil.virtual_memory().available
    if needed > _MEMORY_SHARE * free:
        raise InputError(
            f"{features:,} features of {dimension} values take {needed / 2**30:.0f} GiB to train on and "
            f"{free / 2**30:.0f} GiB are free: narrow the source by `where`"
        )
