"""What is trained on: all features of some subjects, in memory, with the media or sets that they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import psutil
from numpy.typing import NDArray

from pfstore.errors import InputError
from pfstore.evaluation.protocols.memory import hold
from pfstore.features import FeatureBatch, Floats, Offsets, offsets_of

if TYPE_CHECKING:
    from pfstore.evaluation.protocols.experiment import Experiment
    from pfstore.sources.base import FeatureSource

_SHARD_FEATURES = 250_000
_BATCH_FEATURES = 20_000
_MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class TrainingData:
    """The features of some subjects, ragged: subjects of media of features.

    features: [N, D] float32, finite, no zero row. media_offsets: [M+1] int64, counting features. subject_offsets: [S+1]
    int64, counting media. subject_ids: [S]. probes: [M] bool, the media that are probes' sets, or None where the
    store does not tell and probes are drawn from the media. counts: what was read and left out, by reason. warnings:
    what was left out or is unusual, a sentence each.
    """

    features: Floats
    media_offsets: Offsets
    subject_offsets: Offsets
    subject_ids: Sequence[str]
    probes: NDArray[np.bool_] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.features.shape[1])

    @property
    def set_offsets(self) -> Offsets:
        """[S+1] int64, counting features: the subjects' media put together."""
        return self.media_offsets[self.subject_offsets]

    def digest(self) -> str:
        """Hex SHA-256 over every subject's key, media and values; does not depend on the order of subjects."""
        prints = sorted(self._prints())
        return hashlib.sha256(b"".join(prints)).hexdigest()

    def select(self, keep: Callable[[str], bool]) -> TrainingData:
        """Return the data of the subjects whose key is to be kept; the features themselves are shared if all are."""
        kept = np.array([keep(subject) for subject in self.subject_ids], dtype=bool)
        if kept.all():
            return self
        media_counts, feature_counts = np.diff(self.subject_offsets), np.diff(self.media_offsets)
        media = np.repeat(kept, media_counts)
        return TrainingData(
            self.features[np.repeat(media, feature_counts)],
            offsets_of(feature_counts[media]),
            offsets_of(media_counts[kept]),
            [one for one, stays in zip(self.subject_ids, kept, strict=True) if stays],
            None if self.probes is None else self.probes[media],
            self.counts,
            self.warnings,
        )

    def ordered(self) -> TrainingData:
        """Return the data with subjects in the order of their keys, so that the store's order decides nothing."""
        names = [one.encode("utf-8", "surrogatepass") for one in self.subject_ids]
        order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
        media_counts = np.diff(self.subject_offsets)[order]
        media = expanded(self.subject_offsets[order], media_counts)
        feature_counts = np.diff(self.media_offsets)[media]
        return TrainingData(
            self.features[expanded(self.media_offsets[media], feature_counts)],
            offsets_of(feature_counts),
            offsets_of(media_counts),
            [self.subject_ids[one] for one in order.tolist()],
            None if self.probes is None else self.probes[media],
            self.counts,
            self.warnings,
        )

    def prepared(self, prepare: Callable[[Floats], Floats]) -> TrainingData:
        """Return the data with its features as `prepare` makes them: [N, D] to [N, D]."""
        return replace(self, features=prepare(self.features))

    def _prints(self) -> Iterator[bytes]:
        bounds = zip(self.subject_ids, self.subject_offsets[:-1], self.subject_offsets[1:], strict=True)
        for subject, first, last in bounds:
            cuts = self.media_offsets[first : last + 1]
            digest = hashlib.sha256(subject.encode("utf-8", "surrogatepass"))
            digest.update((cuts - cuts[0]).astype("<i8").tobytes())
            if self.probes is not None:
                digest.update(self.probes[first:last].tobytes())
            digest.update(np.ascontiguousarray(self.features[cuts[0] : cuts[-1]]).data)
            yield digest.digest()


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
    return TrainingData(held.features, held.media_offsets, held.subject_offsets, held.subjects, None, counts)


def of_experiment(experiment: Experiment) -> TrainingData:
    """Read the references and probes of an experiment with one gallery, as of HDF5 files, to train on.

    A subject's references are its gallery media, each of its probes is a set by itself. Raises InputError where there
    are more features than there is memory for.
    """
    read = experiment.facts["features"]
    _check_memory(read["read"], experiment.dimension)
    gallery = experiment.galleries[0]
    sides = {False: gallery.references, True: gallery.probes}
    pieces: dict[str, list[tuple[bool, Floats]]] = {}
    for is_probe, samples in sides.items():
        for batch in samples.read(_BATCH_FEATURES):
            for subject, sets in zip(batch.subjects, _by_subject(batch.features), strict=True):
                pieces.setdefault(subject, []).extend((is_probe, one) for one in _sets(sets, is_probe))
    flat = [piece for sets in pieces.values() for piece in sets]
    return TrainingData(
        np.concatenate([features for _, features in flat]),
        offsets_of([len(features) for _, features in flat]),
        offsets_of([len(sets) for sets in pieces.values()]),
        list(pieces),
        np.array([is_probe for is_probe, _ in flat], dtype=bool),
        {"read": read["read"], **read["rejected"]},
        experiment.warnings,
    )


def expanded(starts: Offsets, counts: Offsets) -> Offsets:
    """[Σ counts] int64, the numbers start, start + 1, … of each range."""
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    numbers: Offsets = np.repeat(starts, counts) + within
    return numbers


def _sets(media: list[Floats], is_probe: bool) -> list[Floats]:
    return [np.concatenate(media)] if is_probe else media


def _by_subject(batch: FeatureBatch) -> Iterator[list[Floats]]:
    for first, last in zip(batch.subject_offsets[:-1], batch.subject_offsets[1:], strict=True):
        cuts = batch.media_offsets[first : last + 1].tolist()
        yield [batch.features[begin:end] for begin, end in pairwise(cuts)]


def _check_memory(features: int, dimension: int) -> None:
    # Three times: while batches are joined, then while subjects are parted and their features normalised.
    needed, free = 3 * features * dimension * 4, psutil.virtual_memory().available
    if needed > _MEMORY_SHARE * free:
        raise InputError(
            f"{features:,} features of {dimension} values take {needed / 2**30:.0f} GiB to train on and "
            f"{free / 2**30:.0f} GiB are free: narrow the source by `where`"
        )
