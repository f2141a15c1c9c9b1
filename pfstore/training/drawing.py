"""Drawing pairs of feature sets: for each subject one probe and one reference that share no medium.

Each draw depends on its generator alone, so a step of training can be made again from its number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfstore.features import Floats, Offsets, expanded, offsets_of, within
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

    media: the fewest and the most media in a set, where probes are drawn from the media; half of what a subject has
    where that is fewer. most: the most features of a set.
    """

    media: tuple[int, int] = (1, 3)
    most: int = 128

    def pairs(
        self, data: TrainingData, mated: Offsets, single: Offsets, random: np.random.Generator, repeats: int = 1
    ) -> Pairs:
        """Draw so many pairs for each entry of mated, one probe for each entry of single: [B], [n] numbers of subjects.

        The pairs of a subject come one after all others' first, second, …, and no medium is in a probe of one and in a
        reference of another. A subject in mated needs two media, or with probes told a probe and another medium.
        """
        probes, references = self._media(data, mated, repeats, random)
        media, ranks, _ = _ranked(data, single, random)
        alone = _picked(media, ranks, np.ones(len(single), dtype=np.int64))
        return Pairs(
            self._sets(data, [*probes, *alone], random),
            self._sets(data, references, random),
        )

    def _media(
        self, data: TrainingData, subjects: Offsets, repeats: int, random: np.random.Generator
    ) -> tuple[list[Offsets], list[Offsets]]:
        """Return the media of each drawn probe and of each drawn reference."""
        media, ranks, counts = _ranked(data, subjects, random)
        probes: list[Offsets] = []
        references: list[Offsets] = []
        if data.probes is not None:
            for _ in range(repeats):
                media, _, _ = _ranked(data, subjects, random)
                one, other = _told(data, media, counts, random)
                probes += one
                references += other
            return probes, references
        # Of a subject with too few media for both sides, each has half.
        least = np.minimum(self.media[0], counts // 2)
        cut = random.integers(least, counts - least + 1)
        on_probe = ranks < np.repeat(cut, counts)
        for _ in range(repeats):
            probes += self._some(media[on_probe], cut, least, random)
            references += self._some(media[~on_probe], counts - cut, least, random)
        return probes, references

    def _some(self, media: Offsets, counts: Offsets, least: Offsets, random: np.random.Generator) -> list[Offsets]:
        """Take some of the media that each subject has on one side."""
        owners = np.repeat(np.arange(len(counts)), counts)
        shuffled = media[np.lexsort((random.random(len(media)), owners))]
        sizes = random.integers(least, np.minimum(self.media[1], counts) + 1)
        return _picked(shuffled, within(counts), sizes)

    def _sets(self, data: TrainingData, media: list[Offsets], random: np.random.Generator) -> Sets:
        chosen = np.concatenate([np.empty(0, np.int64), *media])
        lengths = np.diff(data.batch.media_offsets)[chosen]
        rows = expanded(data.batch.media_offsets[chosen], lengths)
        per_medium = np.repeat(np.arange(len(media)), [len(one) for one in media])
        owners = np.repeat(per_medium, lengths)
        keys = random.random(len(rows))
        keep = self._kept(owners, keys)
        counts = np.bincount(owners[keep], minlength=len(media))
        return Sets(data.batch.features[rows[keep]], offsets_of(counts))

    def _kept(self, owners: Offsets, keys: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[n] bool, the features that stay: those of the smallest keys of each set."""
        order = np.lexsort((keys, owners))
        ranks = np.empty(len(keys), dtype=np.int64)
        ranks[order] = within(np.bincount(owners))
        kept: NDArray[np.bool_] = ranks < self.most
        return kept


def usable(data: TrainingData) -> tuple[Offsets, Offsets]:
    """Return the numbers of the subjects that pairs can be drawn of, and of those that can only be non-mated."""
    counts = np.diff(data.batch.subject_offsets)
    if data.probes is None:
        paired = counts >= 2
    else:
        owners = np.repeat(np.arange(len(counts)), counts)
        probes = np.bincount(owners[data.probes], minlength=len(counts))
        paired = (probes > 0) & (probes < counts)
    return np.flatnonzero(paired), np.flatnonzero(~paired)


def _ranked(data: TrainingData, subjects: Offsets, random: np.random.Generator) -> tuple[Offsets, Offsets, Offsets]:
    """Return the media of the subjects in random order ([m]), the place of each in its subject's, the counts ([B])."""
    counts = np.diff(data.batch.subject_offsets)[subjects]
    media = expanded(data.batch.subject_offsets[subjects], counts)
    owners = np.repeat(np.arange(len(subjects)), counts)
    return media[np.lexsort((random.random(len(media)), owners))], within(counts), counts


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
        is_video = np.diff(data.batch.media_offsets)[others] > 1
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
