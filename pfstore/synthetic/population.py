"""Made-up people and the features that an extractor would give of them: no real person, the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pfstore.features import FeatureBatch, Floats, Offsets, offsets_of, within

CHUNK_FEATURES = 8192
"""Features made at once: 16 MB at 512 values."""

MOST_FEATURES = 5000
"""No subject has more: the end of the heavy tail."""

_BLOCK = 256  # identities drawn together, so that any of them can be made again without all before it
_WORST, _BEST = 0.05, 1.0  # the range of qualities
_TAIL = 1.3  # the standard deviation of the logarithm of the features per subject
_VIDEO_SHARE = 0.4

# Everything random has a stream of its own, so that more probes do not change the gallery.
_IDENTITIES, _COUNTS, _GALLERY, _STRANGERS, _PROBES = range(5)


@dataclass(frozen=True)
class Faces:
    """Consecutive features and what is known of each; a subject's rows are adjacent, and in it a medium's.

    subjects: [n] int64, who the row is filed under. media: [n] int64, which of the subject's media.
    videos: [n] bool, whether the medium is a video. qualities: [n] float32 in (0, 1].
    wrong: [n] bool, whether the row shows another person. features: [n, D] of the population's dtype.
    """

    subjects: Offsets
    media: Offsets
    videos: NDArray[np.bool_]
    qualities: Floats
    wrong: NDArray[np.bool_]
    features: NDArray[np.floating]

    @property
    def medium_offsets(self) -> Offsets:
        """[M+1] int64: medium m has the rows offsets[m]:offsets[m+1]."""
        changes = (np.diff(self.subjects) != 0) | (np.diff(self.media) != 0)
        return np.concatenate(([0], changes.nonzero()[0] + 1, [len(self.subjects)])).astype(np.int64)


@dataclass(frozen=True)
class Population:
    """The parameters of a made-up store; equal ones give equal stores, digit for digit.

    features_per_subject: the mean of a heavy-tailed (log-normal) distribution from 1 to MOST_FEATURES.
    media_per_subject: the mean. wrong_person_share: of the rows, those that show somebody who is not enrolled.
    noise: the strength of a frame's noise at quality 1, which grows as 1 / quality. medium_noise: the strength
    of what all frames of a medium share. drift: how far bad frames lean towards one direction that is the same
    for everybody, as unrecognisable faces do. better_is: whether a better frame's feature is longer, as
    ArcFace's are, or shorter, as MobileFace's.
    effective_dimension: how many dimensions people really differ in, from 1 to D: the participation ratio
    (Σλ)² / Σλ² of the variances λ along the axes, which fall exponentially, before identities are brought to
    length 1; None: all D alike.
    Of two public extractors' class means it is 75 (512 values) and 104 (256 values).
    Raises ValueError for another one.
    """

    subjects: int = 1000
    dimension: int = 512
    seed: int = 0
    features_per_subject: float = 30.0
    media_per_subject: float = 6.0
    wrong_person_share: float = 0.02
    noise: float = 0.65
    medium_noise: float = 0.7
    drift: float = 0.3
    better_is: Literal["longer", "shorter"] = "longer"
    dtype: Literal["float16", "float32", "float64"] = "float32"
    effective_dimension: float | None = None

    def __post_init__(self) -> None:
        if self.effective_dimension is not None and not 1 < self.effective_dimension < self.dimension:
            raise ValueError(
                f"effective_dimension is {self.effective_dimension}, it must be between 1 and {self.dimension}"
            )

    @property
    def extractor(self) -> str:
        """The label "detector/extractor" of these features."""
        return f"synthetic/sphere-{self.dimension}"

    @cached_property
    def counts(self) -> Offsets:
        """[subjects] int64, the features of each subject."""
        mean = math.log(self.features_per_subject) - _TAIL**2 / 2
        drawn = self._random(_COUNTS).lognormal(mean, _TAIL, self.subjects)
        return np.clip(np.rint(drawn), 1, MOST_FEATURES).astype(np.int64)

    def name(self, subject: int) -> str:
        """Return the key of a subject."""
        return f"person-{subject:06d}"

    def faces(self) -> Iterator[Faces]:
        """Yield the whole gallery side in subjects' order, about CHUNK_FEATURES rows and whole subjects at a time."""
        first = 0
        while first < self.subjects:
            # Enough subjects for a chunk even if each had one feature; most chunks use far fewer.
            ends = np.cumsum(self.counts[first : first + CHUNK_FEATURES])
            last = first + max(1, int(np.searchsorted(ends, CHUNK_FEATURES, side="right")))
            subjects = np.arange(first, last)
            yield self._gallery(subjects, self._random(_GALLERY, first))
            first = last

    def batches(self) -> Iterator[FeatureBatch]:
        """Yield the gallery side as batches of features, as a source would give them."""
        for faces in self.faces():
            cuts = faces.medium_offsets
            owners = faces.subjects[cuts[:-1]]
            subjects, media = np.unique(owners, return_counts=True)
            yield FeatureBatch(
                faces.features.astype(np.float32, copy=False),
                cuts,
                offsets_of(media),
                [self.name(subject) for subject in subjects.tolist()],
                [str(medium) for medium in faces.media[cuts[:-1]].tolist()],
            )

    def identities(self, subjects: Sequence[int] | Offsets) -> Floats:
        """[n, D] float32: the directions of these subjects, of length 1; uniform without an effective_dimension."""
        wanted = np.asarray(subjects, dtype=np.int64)
        made = np.empty((len(wanted), self.dimension), dtype=np.float32)
        for block in np.unique(wanted // _BLOCK).tolist():
            rows = wanted // _BLOCK == block
            made[rows] = self._people(self._random(_IDENTITIES, block), _BLOCK)[wanted[rows] % _BLOCK]
        return made

    def mated(self, subjects: Sequence[int] | Offsets, frames: float = 4.0, number: int = 0) -> Faces:
        """Return one probe of each subject: a new medium of mediocre quality with about `frames` frames.

        number: another number gives another medium of the same subject.
        """
        chosen = np.asarray(subjects, dtype=np.int64)
        # Subjects asked for in several calls must not share their noise.
        random = self._random(_PROBES, number, int(chosen[0]) if len(chosen) else 0)
        return self._probes(self.identities(chosen), chosen, frames, random)

    def strangers(self, count: int, frames: float = 4.0) -> Faces:
        """Return probes of so many people of whom nothing is in the gallery; their `subjects` count from 0."""
        random = self._random(_STRANGERS)
        return self._probes(self._people(random, count), np.arange(count), frames, random)

    def _random(self, stream: int, *part: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence((self.seed, stream, *part))))

    def _people(self, random: np.random.Generator, count: int) -> Floats:
        drawn = random.standard_normal((count, self.dimension), dtype=np.float32)
        if self.effective_dimension is not None:
            drawn *= self._spreads
        drawn /= _lengths(drawn)[:, None]
        return drawn

    @cached_property
    def _spreads(self) -> Floats:
        """[D] float32: the standard deviations of identities along the axes."""
        assert self.effective_dimension is not None
        decay = _decay(self.effective_dimension, self.dimension)
        spreads: Floats = np.exp(-decay / 2 * np.arange(self.dimension)).astype(np.float32)
        return spreads

    def _gallery(self, subjects: Offsets, random: np.random.Generator) -> Faces:
        features = self.counts[subjects]
        media = np.minimum(features, 1 + random.poisson(self.media_per_subject - 1, len(subjects)))
        videos = np.where(media < features, np.maximum(1, np.rint(media * _VIDEO_SHARE)).astype(np.int64), 0)
        frames = _frames_of_media(features, media, videos, random)
        ranks = within(media)
        owners = np.repeat(np.arange(len(subjects)), media)
        qualities = random.beta(2.5, 2.0, len(frames))
        is_video = ranks >= (media - videos)[owners]
        directions = self.identities(subjects)[owners]
        return self._shot(directions, subjects[owners], ranks, is_video, frames, qualities, random)

    def _probes(self, identities: Floats, subjects: Offsets, mean: float, random: np.random.Generator) -> Faces:
        frames = 1 + random.poisson(mean - 1, len(subjects))
        qualities = random.beta(1.8, 3.5, len(subjects))
        media = np.zeros(len(subjects), dtype=np.int64)
        return self._shot(identities, subjects, media, frames > 1, frames, qualities, random)

    def _shot(
        self,
        directions: Floats,
        subjects: Offsets,
        media: Offsets,
        videos: NDArray[np.bool_],
        frames: Offsets,
        qualities: NDArray[np.float64],
        random: np.random.Generator,
    ) -> Faces:
        """Make the frames of media: every argument but the last has a row for each medium."""
        owners = np.repeat(np.arange(len(frames)), frames)
        jitter = random.normal(0, 0.15, len(owners))
        quality = np.clip(qualities[owners] + jitter, _WORST, _BEST).astype(np.float32)
        wrong = random.random(len(owners)) < self.wrong_person_share
        shown = directions + _noise(random, len(frames), self.dimension) * self.medium_noise
        features = self._blurred(shown[owners], quality, random)
        if wrong.any():
            # All wrong frames of a medium show the same bystander.
            affected, rows = np.unique(owners[wrong], return_inverse=True)
            bystanders = self._people(random, len(affected))[rows]
            features[wrong] = self._blurred(bystanders, quality[wrong], random)
        features *= (self._norms(quality, random) / _lengths(features))[:, None]
        stored = features.astype(self.dtype, copy=False)
        return Faces(subjects[owners], media[owners], videos[owners], quality, wrong, stored)

    def _blurred(self, directions: Floats, quality: Floats, random: np.random.Generator) -> Floats:
        noise = _noise(random, len(directions), self.dimension)
        # Any fixed direction serves; this one needs no random numbers and no memory.
        noise += np.float32(self.drift / math.sqrt(self.dimension))
        noise *= (self.noise / quality)[:, None]
        noise += directions
        return noise

    def _norms(self, quality: Floats, random: np.random.Generator) -> Floats:
        """[n] float32: about 10 to 25, with the quality or against it, and some jitter."""
        rank = quality if self.better_is == "longer" else 1 - quality
        return (10 + 15 * rank + random.normal(0, 1, len(quality))).astype(np.float32)


def _frames_of_media(features: Offsets, media: Offsets, videos: Offsets, random: np.random.Generator) -> Offsets:
    """[ΣM] int64: one frame for each medium; the rest of a subject's features is spread over its last, the videos."""
    frames = np.ones(int(media.sum()), dtype=np.int64)
    surplus = features - media
    ends = np.repeat(np.cumsum(media), surplus)
    back = (random.random(len(ends)) * np.repeat(videos, surplus)).astype(np.int64) + 1
    np.add.at(frames, ends - back, 1)
    return frames


def _decay(ratio: float, dimension: int) -> float:
    """Return the x for which the variances exp(-x k), k = 0 … D-1, have this participation ratio."""
    low, high = 0.0, 80.0  # the ratio is tanh(D x / 2) / tanh(x / 2), and falls from D to 1
    for _ in range(60):
        middle = (low + high) / 2
        above = math.tanh(dimension * middle / 2) > ratio * math.tanh(middle / 2)
        low, high = (middle, high) if above else (low, middle)
    return high


def _noise(random: np.random.Generator, count: int, dimension: int) -> Floats:
    """[n, D] float32 of length about 1. In many dimensions uniform noise passes for normal at a fifth of the time."""
    noise = random.random((count, dimension), dtype=np.float32)
    noise -= np.float32(0.5)
    noise *= np.float32(math.sqrt(12 / dimension))
    return noise


def _lengths(vectors: Floats) -> Floats:
    lengths: Floats = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return lengths
