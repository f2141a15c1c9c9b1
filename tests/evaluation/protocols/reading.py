"""What the tests of all protocols do with samples: read them whole, and look at what came out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pfstore.evaluation.protocols.experiment import Samples
from pfstore.features import Floats

D = 8


def frames(count: int, seed: int = 0) -> Floats:
    """Return features [count, D] that are all different."""
    return np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32)


def bad(count: int, *rows: int, value: float = np.nan, seed: int = 0) -> Floats:
    """Return features of which these rows are not usable."""
    features = frames(count, seed)
    features[list(rows)] = value
    return features


@dataclass
class Collected:
    """Samples as read. media: by sample, its media and their features. subjects, failures: by sample."""

    media: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)


def collected(samples: Samples, features: int = 10**6) -> Collected:
    """Read all samples, and check what every batch promises."""
    found = Collected()
    for batch in samples.read(features):
        one = batch.features
        assert one.features.dtype == np.float32
        assert one.features.flags.c_contiguous
        assert one.media_offsets[-1] == len(one.features)
        assert one.subject_offsets[-1] == len(one.media_ids)
        assert (np.diff(one.media_offsets) > 0).all()
        assert (np.diff(one.subject_offsets) > 0).all()
        assert len(batch.subjects) == len(one.subject_ids)
        found.batches.append(len(one.features))
        for number, (sample, subject) in enumerate(zip(one.subject_ids, batch.subjects, strict=True)):
            assert sample not in found.subjects
            found.subjects[sample] = subject
            media = range(one.subject_offsets[number], one.subject_offsets[number + 1])
            found.media[sample] = {
                one.media_ids[m]: one.features[one.media_offsets[m] : one.media_offsets[m + 1]].tolist() for m in media
            }
            assert len(found.media[sample]) == len(media)
        for failure in batch.failures:
            assert failure.sample not in found.subjects
            assert failure.sample not in found.failures
            found.failures[failure.sample] = failure.subject, failure.reason
    return found


def store(path: Path, content: dict[str, Any]) -> Path:
    """Write datasets into an HDF5 file by their path in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value
    return path
