"""The two things that travel through pfstore: batches of features on the way in, of templates on the way out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Offsets: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class FeatureBatch:
    """The feature sets of some subjects, ragged: no padding, every subject whole.

    features: [N, D] float32, C-contiguous, finite, no zero row; the rows of one medium stand together.
    media_offsets: [M+1] int64; medium m is features[media_offsets[m]:media_offsets[m+1]].
    subject_offsets: [S+1] int64, counting media; subject s has the media
        subject_offsets[s]:subject_offsets[s+1].
    subject_ids: [S] str, each once.
    media_ids: [M] str, unique within a subject; "" where the source names no media.
    """

    features: Floats
    media_offsets: Offsets
    subject_offsets: Offsets
    subject_ids: Sequence[str]
    media_ids: Sequence[str]

    @classmethod
    def empty(cls, dimension: int) -> FeatureBatch:
        """The batch of no subject."""
        none = np.zeros(1, dtype=np.int64)
        return cls(np.empty((0, dimension), dtype=np.float32), none, none, [], [])

    @classmethod
    def joined(cls, batches: Sequence[FeatureBatch]) -> FeatureBatch:
        """One batch of all subjects of some batches, at least one, of one dimension and without a common subject."""
        return cls(
            np.concatenate([one.features for one in batches]),
            offsets_of(np.concatenate([np.diff(one.media_offsets) for one in batches])),
            offsets_of(np.concatenate([np.diff(one.subject_offsets) for one in batches])),
            [subject for one in batches for subject in one.subject_ids],
            [medium for one in batches for medium in one.media_ids],
        )

    @property
    def dimension(self) -> int:
        """D, the number of values in one feature."""
        return int(self.features.shape[1])

    @property
    def set_offsets(self) -> Offsets:
        """[S+1] int64, counting features: the subjects' sets with their media put together."""
        return self.media_offsets[self.subject_offsets]

    def fingerprints(self) -> list[bytes]:
        """[S] digests of 16 bytes, each over all that is fused for the subject: values, media and their order."""
        values = np.ascontiguousarray(self.features)
        bounds = zip(self.subject_offsets[:-1], self.subject_offsets[1:], strict=True)
        return [self._fingerprint(values, int(first), int(last)) for first, last in bounds]

    def _fingerprint(self, values: Floats, first: int, last: int) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        cuts = self.media_offsets[first : last + 1]
        digest.update((cuts - cuts[0]).astype("<i8").tobytes())
        digest.update("\0".join(self.media_ids[first:last]).encode())
        digest.update(values[cuts[0] : cuts[-1]].data)
        return digest.digest()

    def select(self, keep: NDArray[np.bool_]) -> FeatureBatch:
        """The batch of the subjects whose entry in keep ([S] bool) is true, in the same order."""
        return self if keep.all() else self.take(keep.nonzero()[0])

    def take(self, subjects: NDArray[np.int64]) -> FeatureBatch:
        """The batch of the subjects of these numbers ([n] int64, each at most once), in their order."""
        media_counts = np.diff(self.subject_offsets)[subjects]
        media = expanded(self.subject_offsets[subjects], media_counts)
        feature_counts = np.diff(self.media_offsets)[media]
        return FeatureBatch(
            self.features[expanded(self.media_offsets[media], feature_counts)],
            offsets_of(feature_counts),
            offsets_of(media_counts),
            [self.subject_ids[one] for one in subjects.tolist()],
            [self.media_ids[one] for one in media.tolist()],
        )


@dataclass(frozen=True)
class TemplateBatch:
    """The fused templates of some subjects and what each was made of.

    subject_ids: [S] str. templates: [S, blocks*D] float32, L2-normalised.
    features, media: [S] int64, how many of each were fused. fingerprints: [S] digests of 16 bytes.
    """

    subject_ids: Sequence[str]
    templates: Floats
    features: Offsets
    media: Offsets
    fingerprints: Sequence[bytes]


def offsets_of(counts: NDArray[np.integer] | Sequence[int]) -> Offsets:
    """The [n+1] int64 offsets of n consecutive segments with these counts."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def expanded(starts: Offsets, counts: NDArray[np.integer]) -> Offsets:
    """The [Σ counts] int64 numbers start, start + 1, … of each range."""
    return np.repeat(starts, counts) + within(counts)


def within(counts: NDArray[np.integer]) -> Offsets:
    """The [Σ counts] int64 places 0, 1, … in consecutive segments with these counts."""
    places: Offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return places
