"""What an exhaustive search finds first for some probes, so that others can be measured by it.

Scores are compared and not subjects: of two templates that are equally near either may come first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.comparing import STEP
from pfstore.features import Floats, Offsets
from pfstore.gallery.intervals import Interval, of_searches
from pfstore.gallery.non_mated import ALLOWANCE, COLUMNS, NOBODY, ROWS, Observer, References
from pfstore.gallery.pairings import ProbesAgainstGallery

TOLERANCE = 2 * ALLOWANCE + STEP
"""How far apart the server's score and ours of the same two templates can be: both are sums of float32."""

NOISE = 32
"""Templates whose signed sum wears a template. So many have the gallery's spectrum and resemble nobody."""

POOL = 2048
"""Templates that noise is drawn from."""

BEST_WORN = 0.9
"""The score with its own subject's template of the least worn probe."""


@dataclass(frozen=True)
class Wanted:
    """Probes and the best score that the gallery has for each.

    templates: [P, blocks*D] float32 of half precision. best: [P] float32. mated: [P] bool, whether the probe's own
    subject has it. persons: [P] int64, whose probe it is.
    """

    templates: Floats
    best: Floats
    mated: NDArray[np.bool_]
    persons: Offsets

    @property
    def judged(self) -> NDArray[np.bool_]:
        """[P] the probes that a target is for: the mated ones, or all where there is none."""
        return self.mated if self.mated.any() else np.ones_like(self.mated)


@dataclass(frozen=True)
class Recall:
    """For which probes a search found the best template first. hits: [P] bool."""

    wanted: Wanted
    hits: NDArray[np.bool_]

    @property
    def all(self) -> float:
        """The share of all probes."""
        return float(self.hits.mean())

    @property
    def mated(self) -> float | None:
        """The share of the mated ones, None where there is none."""
        return float(self.hits[self.wanted.mated].mean()) if self.wanted.mated.any() else None

    @property
    def judged(self) -> float:
        """The share that a target is for."""
        return float(self.hits[self.wanted.judged].mean())

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the share that a target is for; probes of one person are a cluster."""
        judged = self.wanted.judged
        low, high = of_searches(~self.hits[judged], self.wanted.persons[judged])
        return 1 - high, 1 - low


def wanted(probes: ProbesAgainstGallery, observer: Observer) -> Wanted:
    """Compare probes with the whole gallery, in blocks: memory is that of the probes and one block."""
    references, templates, places = probes.references, probes.templates, probes.places
    best = np.full(len(templates), -np.inf, dtype=np.float32)
    own = best.copy()
    for start in range(0, len(references), COLUMNS):
        stop = min(start + COLUMNS, len(references))
        values = references.read(references.ids[start:stop])
        for first in range(0, len(templates), ROWS):
            rows = slice(first, first + ROWS)
            scores = templates[rows] @ values.T
            best[rows] = np.maximum(best[rows], scores.max(axis=1))
            here = np.flatnonzero((places[rows] >= start) & (places[rows] < stop))
            own[first + here] = scores[here, places[rows][here] - start]
        observer(stop / len(references))
    mated = (places != NOBODY) & (own >= best - TOLERANCE)
    return Wanted(templates, best, mated, probes.persons)


def worn(references: References, sample: int, seed: int, least: float) -> ProbesAgainstGallery:
    """Make mated probes of a gallery's own templates, for want of real ones.

    A template itself is found far too easily: it is as near as can be, where a real probe is hardly nearer than the
    best of the others. So each of `sample` templates, drawn by the seed, is worn: turned towards a random signed sum
    of others, which has the gallery's own spectrum, until its score with its subject is one of those spread evenly from
    `least` to BEST_WORN.
    """
    chosen, others = (
        [references.ids[place] for place in references.drawn(count, seed, purpose).tolist()]
        for count, purpose in ((sample, "tuning"), (POOL, "tuning, noise"))
    )
    pool = references.read(others)
    templates = references.read(chosen)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    random = np.random.default_rng(seed)
    noise = np.zeros_like(templates)
    for _ in range(min(NOISE, len(pool))):
        signs = random.choice(np.array([-1, 1], dtype=np.float32), size=(len(templates), 1))
        noise += signs * pool[random.integers(0, len(pool), size=len(templates))]
    noise -= np.einsum("ij,ij->i", noise, templates)[:, None] * templates
    lengths = np.linalg.norm(noise, axis=1, keepdims=True)
    scores = random.permutation(np.linspace(min(max(least, 0), BEST_WORN), BEST_WORN, len(templates)))[:, None]
    # Where all templates are the same there is nothing to turn one to.
    scores = np.where(lengths > 1e-3, scores, 1.0).astype(np.float32)
    made = scores * templates + np.sqrt(1 - scores**2) * noise / np.maximum(lengths, 1e-3)
    return ProbesAgainstGallery.matched(references, chosen, made)
