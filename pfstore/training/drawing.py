"""Drawing pairs of feature sets: for each subject one probe and one reference that share no medium.

Each draw depends on its generator alone, so a step of training can be made again from its number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfstore.features import Floats, Offsets, offsets_of
from pfstore.training.data import TrainingData

IMAGES = 4
"""The most images beside a video in a drawn reference, as in the reference's protocol."""


@dataclass(frozen=True)
class Sets:
    """Drawn sets. features: [n, D] float32. offsets: [B+1] int64."""

    features: Floats
    offsets: Offsets


@dataclass(frozen=True)
class Pairs:
    """Drawn probes and references. probes: B sets. references: the first R sets' mates, R <= B.

    Of the probes after the first R there is no reference: people who serve as non-mated.
    """

    probes: Sets
    references: Sets

    @property
    def features(self) -> int:
        """Features in all sets."""
        return len(self.probes.features) + len(self.references.features)


@dataclass(frozen=True)
class Drawing:
    """How pairs are drawn.

    media: the fewest and the most media in a set, where probes are drawn from the media. keep: the chance of a feature
    to be in a drawn set, at least one being in each; 1 for all. most: the most features of a set.
    """

    media: tuple[int, int] = (1, 3)
    keep: float = 1.0
    most: int = 128

    def pairs(self, data: TrainingData, mated: Offsets, single: Offsets, random: np.random.Generator) -> Pairs:
        """Draw one pair for each entry of mated, one probe for each entry of single: [B], [n] numbers of subjects.

        A subject in mated needs two media, or with probes told a probe and another medium; one may come twice.
        """
        probes, references = self._media(data, mated, random)
        alone = _picked(*_ranked(data, single, random)[:2], np.ones(len(single), dtype=np.int64))
        return Pairs(
            self._sets(data, [*probes, *alone], random),
            self._sets(data, references, random),
        )

    def _media(
        self, data: TrainingData, subjects: Offsets, random: np.random.Generator
    ) -> tuple[list[Offsets], list[Offsets]]:
        """Return the media of each drawn probe and of each drawn reference."""
        media, ranks, counts = _ranked(data, subjects, random)
        if data.probes is None:
            fewest, most = self.media
            first = random.integers(fewest, np.clip(counts - 1, fewest, most) + 1)
            second = random.integers(fewest, np.clip(counts - first, fewest, most) + 1)
            return _picked(media, ranks, first), _picked(media, ranks - np.repeat(first, counts), second)
        return _told(data, media, counts, random)

    def _sets(self, data: TrainingData, media: list[Offsets], random: np.random.Generator) -> Sets:
        chosen = np.concatenate([np.empty(0, np.int64), *media])
        lengths = np.diff(data.media_offsets)[chosen]
        rows = _expanded(data.media_offsets[chosen], lengths)
        per_medium = np.repeat(np.arange(len(media)), [len(one) for one in media])
        owners = np.repeat(per_medium, lengths)
        keys = random.random(len(rows))
        keep = self._kept(owners, keys)
        counts = np.bincount(owners[keep], minlength=len(media))
        return Sets(data.features[rows[keep]], offsets_of(counts))

    def _kept(self, owners: Offsets, keys: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[n] bool, the features that stay: those of small keys, the smallest of each set always."""
        order = np.lexsort((keys, owners))
        ranks = np.empty(len(keys), dtype=np.int64)
        ranks[order] = _ranks(np.bincount(owners))
        kept: NDArray[np.bool_] = (ranks == 0) | ((keys < self.keep) & (ranks < self.most))
        return kept


def usable(data: TrainingData) -> tuple[Offsets, Offsets]:
    """Return the numbers of the subjects that pairs can be drawn of, and of those that can only be non-mated."""
    counts = np.diff(data.subject_offsets)
    if data.probes is None:
        paired = counts >= 2
    else:
        owners = np.repeat(np.arange(len(counts)), counts)
        probes = np.bincount(owners[data.probes], minlength=len(counts))
        paired = (probes > 0) & (probes < counts)
    return np.flatnonzero(paired), np.flatnonzero(~paired)


def _ranked(data: TrainingData, subjects: Offsets, random: np.random.Generator) -> tuple[Offsets, Offsets, Offsets]:
    """Return the media of the subjects in random order ([m]), the place of each in its subject's, the counts ([B])."""
    counts = np.diff(data.subject_offsets)[subjects]
    media = _expanded(data.subject_offsets[subjects], counts)
    owners = np.repeat(np.arange(len(subjects)), counts)
    return media[np.lexsort((random.random(len(media)), owners))], _ranks(counts), counts


def _told(
    data: TrainingData, media: Offsets, counts: Offsets, random: np.random.Generator
) -> tuple[list[Offsets], list[Offsets]]:
    """Draw one probe's set; of the others one video, or else an image, and up to IMAGES images."""
    assert data.probes is not None
    images = random.integers(0, IMAGES + 1, len(counts))
    probes, references = [], []
    for number, own in enumerate(np.split(media, np.cumsum(counts)[:-1])):
        is_probe = data.probes[own]
        others = own[~is_probe]
        is_video = np.diff(data.media_offsets)[others] > 1
        chosen = [*others[is_video][:1], *others[~is_video][: images[number]]]
        probes.append(own[is_probe][:1])
        references.append(np.array(chosen if chosen else others[:1], dtype=np.int64))
    return probes, references


def _picked(media: Offsets, ranks: Offsets, wanted: Offsets) -> list[Offsets]:
    """Split off, for each subject, the media with a rank of 0 to wanted - 1."""
    if not len(wanted):
        return []
    starts = np.flatnonzero(ranks == 0)
    return [media[start : start + count] for start, count in zip(starts.tolist(), wanted.tolist(), strict=True)]


def _ranks(counts: Offsets) -> Offsets:
    """[Σ counts], 0, 1, … in each of consecutive groups of so many."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _expanded(starts: Offsets, counts: Offsets) -> Offsets:
    """[Σ counts], the numbers start, start + 1, … of each range."""
    return np.repeat(starts, counts) + _ranks(counts)
