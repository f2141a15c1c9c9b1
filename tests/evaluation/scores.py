"""Galleries with scores of one's choice, and the figures of a whole matrix of scores, worked out the slow way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.protocols.experiment import Failure
from pfstore.evaluation.results import AtFmr, Scored
from pfstore.evaluation.templates import FusedGallery, Templates
from pfstore.features import Floats

STEP = 2.0**-22


def side(values: Any, subjects: Sequence[str], prefix: str, failed: Sequence[str] = (), **more: Any) -> Templates:
    """Templates of these subjects, numbered, one feature each unless `features` says otherwise."""
    return Templates(
        np.asarray(values, dtype=np.float32),
        more.get("ids") or [f"{prefix}{number}" for number in range(len(subjects))],
        list(subjects),
        np.asarray(more.get("features", np.ones(len(subjects))), dtype=np.int64),
        [Failure(f"{prefix}-failed{number}", subject, "no face") for number, subject in enumerate(failed)],
    )


def gallery_of(
    scores: Any,
    references: str | Sequence[str],
    probes: str | Sequence[str],
    *,
    failed_references: Sequence[str] = (),
    failed_probes: Sequence[str] = (),
    features: Any = None,
    name: str = "gallery",
) -> FusedGallery:
    """A gallery in which probe i and reference j have the cosine scores[i][j]; a row's squares sum to at most 1.

    The references are unit vectors along the axes, a probe's values its scores, and a last one that makes it a unit.
    """
    matrix = np.asarray(scores, dtype=np.float64).reshape(len(probes), len(references))
    rest = np.sqrt(1 - (matrix**2).sum(axis=1, keepdims=True))
    more = {} if features is None else {"features": features}
    return FusedGallery(
        name,
        side(np.eye(len(references), len(references) + 1), references, "r", failed_references),
        side(np.hstack([matrix, rest]), probes, "p", failed_probes, **more),
    )


def unit(values: NDArray[np.float64]) -> Floats:
    """Rows made unit vectors."""
    units: Floats = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return units


def random_gallery(subjects: int, probes: int, *, others: int = 0, noise: float = 1.5, seed: int = 0) -> FusedGallery:
    """Subjects around centres of their own in 16 dimensions, some noisier than others; `others` are not enrolled."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(subjects + others, 16))
    owners = np.arange(probes) % (subjects + others)
    spread = noise * random.uniform(0.5, 1.5, size=subjects + others)
    names = [f"s{number:05}" for number in range(subjects + others)]
    references = centres[:subjects] + 0.3 * random.normal(size=(subjects, 16))
    taken = centres[owners] + spread[owners, None] * random.normal(size=(probes, 16))
    sizes = random.integers(1, 100, probes)
    return FusedGallery(
        "random",
        side(unit(references), names[:subjects], "r"),
        side(unit(taken), [names[owner] for owner in owners], "p", features=sizes),
    )


@dataclass(frozen=True)
class Matrix:
    """All scores of one gallery. scores: [P, G]; mated: [P, G] bool."""

    scores: NDArray[np.float64]
    mated: NDArray[np.bool_]

    @classmethod
    def of(cls, gallery: FusedGallery, kind: str = "raw") -> Matrix:
        """Score everything at once."""
        probes, references = gallery.probes, gallery.references
        fixed = [np.rint(side.values.astype(np.float64) * 2**26) / 2**26 for side in (probes, references)]
        scores = np.rint(fixed[0] @ fixed[1].T / STEP) * STEP
        if kind == "cohort":
            logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
            scores = np.exp(np.rint(logs / STEP) * STEP)
        return cls(scores, np.asarray(probes.subjects)[:, None] == np.asarray(references.subjects)[None, :])


def pooled(galleries: Sequence[FusedGallery], kind: str = "raw") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mated and the non-mated scores of all galleries together."""
    matrices = [Matrix.of(gallery, kind) for gallery in galleries]
    mated = np.concatenate([one.scores[one.mated] for one in matrices])
    return mated, np.concatenate([one.scores[~one.mated] for one in matrices])


def counts_at(mated: NDArray[np.float64], non_mated: NDArray[np.float64], most: int) -> tuple[int, int]:
    """Matches and false non-matches at the least threshold, a score or just above all, that at most `most` reach."""
    levels = np.array([*sorted({*mated.tolist(), *non_mated.tolist()}), np.inf])
    reaching = np.count_nonzero(non_mated[:, None] >= levels, axis=0)
    threshold = levels[reaching <= most][0]
    return int(np.count_nonzero(non_mated >= threshold)), int(np.count_nonzero(mated < threshold))


def by_target(scored: Scored) -> Mapping[float, AtFmr]:
    """The verification table."""
    return {row.target: row for row in scored.verification.at}
