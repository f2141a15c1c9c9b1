"""Streamed scoring against a whole matrix of scores that is sorted, and against the product that both rest on."""

from __future__ import annotations

import numpy as np

from bench.harness import Result, medians
from pfstore.evaluation.scoring import Targets, scored
from pfstore.evaluation.templates import FusedGallery, Templates
from pfstore.features import Floats

NOISE = 2.5


def run(*, big: bool) -> list[Result]:
    """Score one probe of each subject against all references."""
    subjects, values = (10_000, 2048) if big else (3000, 512)
    gallery = _gallery(subjects, values)
    contestants = {
        "the whole matrix, sorted": lambda: _naive(gallery),
        "pfstore": lambda: scored([gallery], kinds=["raw"], bootstrap=0),
        "pfstore, with intervals": lambda: scored([gallery], kinds=["raw"]),
        "pfstore, raw and cohort": lambda: scored([gallery], bootstrap=0),
        "the bare sgemm": lambda: gallery.probes.values @ gallery.references.values.T,
    }
    return [Result("scoring", "comparisons", subjects**2, medians(contestants), "the whole matrix, sorted")]


def _gallery(subjects: int, values: int) -> FusedGallery:
    random = np.random.default_rng(0)
    centres = random.standard_normal((subjects, values), dtype=np.float32)
    names = [str(number) for number in range(subjects)]
    ones = np.ones(subjects, dtype=np.int64)
    sides = [centres + NOISE * random.standard_normal(centres.shape, dtype=np.float32) for _ in range(2)]
    units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    references, probes = (Templates(unit, names, names, ones) for unit in units)
    return FusedGallery("gallery", references, probes)


def _naive(gallery: FusedGallery) -> list[float]:
    """FNMR at the targets from float32 scores that are all kept, and the ranks of the mates."""
    scores: Floats = gallery.probes.values @ gallery.references.values.T
    mated = scores.diagonal().copy()
    (scores >= mated[:, None]).sum(axis=1)
    np.fill_diagonal(scores, -2)
    falling = np.sort(scores, axis=None)[::-1]
    allowed = [int(target * len(falling)) for target in Targets().fmr]
    return [float(np.mean(mated <= falling[count])) for count in allowed]
