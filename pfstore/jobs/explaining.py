"""Explaining a template of a gallery: its subject is read again from the source and fused as its version does."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import CancelledSetsError, ContractError, NotFoundError
from pfstore.features import FeatureBatch
from pfstore.fusion import explaining
from pfstore.fusion.explaining import Explanation, Selection
from pfstore.gallery import models
from pfstore.gallery.galleries import Version
from pfstore.gallery.stored import StoredTemplate, neighbours, template_of
from pfstore.sources.base import FeatureSource, Reject
from pfstore.sources.single import SubjectRows, read_subject

if TYPE_CHECKING:
    from pfstore.fusion import Fuser
    from pfstore.gallery.database import Connection

SAME = 1 - 1e-5
"""Templates whose cosine is no less are the same: half precision, in which they are kept, costs about 1e-7."""


@dataclass(frozen=True)
class ExplainedTemplate:
    """Why the template of one subject is as it is; N frames in M media.

    media: [M] str, "" where the source names none. rows: [N] str, each frame's own key in the source, "" where it has
    none. probe: the experts that the subject's features would be given to as a probe, all at once as probes are.
    rejects: the subject's rows that cannot be fused. excluded: how many the mapping leaves out, by cause.
    cosine: of what fusing gives now to the stored template. changed: whether the subject's features are others than
    those that the stored template was fused of.
    """

    version: Version
    source: str
    subject: str
    media: Sequence[str]
    rows: Sequence[str]
    explanation: Explanation
    probe: Selection | None
    rejects: Sequence[Reject]
    excluded: Mapping[str, int]
    stored: StoredTemplate
    cosine: float
    changed: bool

    @property
    def same(self) -> bool:
        """Whether fusing now gives the stored template."""
        return self.cosine >= SAME

    def medium(self, number: int) -> dict[str, Any]:
        """Describe a medium; JSON-ready."""
        told = self.explanation
        first, last = told.media_offsets[number : number + 2].tolist()
        return {
            "medium": self.media[number] or None,
            "frames": last - first,
            "share": float(told.media_overall[number]),
            "shares": told.media_weights[:, number].tolist(),
            "experts": None if told.media_experts is None else told.media_experts[number].tolist(),
            "cosine": _mean(told.cosines[first:last]),
            "outliers": int(told.outliers[first:last].sum()),
        }

    def frame(self, number: int) -> dict[str, Any]:
        """Describe a frame; its number within the medium counts from 0. JSON-ready."""
        told = self.explanation
        medium = int(np.searchsorted(told.media_offsets, number, side="right")) - 1
        return {
            "medium": self.media[medium] or None,
            "frame": number - int(told.media_offsets[medium]),
            "row": self.rows[number] or None,
            "share": float(told.overall[number]),
            "shares": told.shares[:, number].tolist(),
            "weights": told.weights[:, number].tolist(),
            "cosine": _mean(told.cosines[number : number + 1]),
            "template_cosines": told.template_cosines[:, number].tolist(),
            "flags": self.flags(number),
        }

    def flags(self, number: int) -> list[str]:
        """Say what is conspicuous about a frame, in words."""
        told = self.explanation
        alike = int(told.alike[number])
        words = {
            "outlier": told.outliers[number],
            "more than half": told.dominant[number],
            "negligible": told.negligible[number],
            "duplicate": alike >= 0,
        }
        return [word for word, holds in words.items() if holds]

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        told, version = self.explanation, self.version
        reasons = Counter(str(one.reason) for one in self.rejects)
        return {
            "gallery": version.gallery,
            "version": version.number,
            "subject": self.subject,
            "source": self.source,
            "model": version.model,
            "strategy": told.strategy,
            "exact": told.exact,
            "features": {
                "read": len(self.rows) + len(self.rejects),
                "fused": len(self.rows),
                "rejected": len(self.rejects),
            },
            "effective_frames": told.effective_frames,
            "outlier_limit": told.limit,
            "template": self._template(),
            "experts": {"gallery": ranked(told.selection), "probe": ranked(self.probe)},
            "media": [self.medium(number) for number in range(len(self.media))],
            "frames": [self.frame(number) for number in range(len(self.rows))],
            "rejects": dict(reasons.most_common()),
            "rejected": [
                {"medium": one.medium or None, "row": one.row or None, "reason": str(one.reason), "detail": one.detail}
                for one in self.rejects
            ],
            "excluded": dict(self.excluded),
        }

    def _template(self) -> dict[str, Any]:
        return {
            "cosine": self.cosine,
            "same": self.same,
            "source_changed": self.changed,
            "features": self.stored.features,
            "media": self.stored.media,
            "run": self.stored.run_id,
            "fused_at": self.stored.fused_at.isoformat(),
        }


def explain(
    connection: Connection, source: FeatureSource, version: Version, subject: str, *, source_name: str
) -> ExplainedTemplate:
    """Explain a subject's template in a gallery version by reading the subject's features again.

    Raises NotFoundError where the version has no template of the subject, or the source no usable feature;
    ContractError where the source's extractor is not the version's; ModelError for a model that cannot tell how it
    weighs; and what the source raises.
    """
    if source.extractor != version.extractor:
        raise ContractError(
            f"source {source_name!r} gives features of {source.extractor!r} by now, {version.said} was made of those "
            f"of {version.extractor!r}: explain a version that was made from it"
        )
    stored = template_of(connection, version, subject)
    found = read_subject(source, subject, dimension=version.dimension)
    if stored is None or found is None or not found.rows:
        near = [] if stored or found else neighbours(connection, version, subject)
        raise NotFoundError(_why_not(version, subject, source_name, stored, found, near))
    fuser = models.fuser_of(connection, version)
    return _explained(fuser, version, subject, source_name, stored, found)


def ranked(selection: Selection | None) -> list[dict[str, Any]] | None:
    """Return a selection's experts by rank with the scores that they were selected by."""
    if selection is None:
        return None
    return [
        {"rank": rank, "expert": expert, "score": float(selection.scores[expert])}
        for rank, expert in enumerate(selection.experts.tolist(), 1)
    ]


def _explained(
    fuser: Fuser, version: Version, subject: str, source_name: str, stored: StoredTemplate, found: SubjectRows
) -> ExplainedTemplate:
    batch = found.batch.features
    explanation = _told(fuser, version, subject, batch)
    now = explanation.template.ravel().astype(np.float64)
    kept = stored.template.astype(np.float64)
    return ExplainedTemplate(
        version=version,
        source=source_name,
        subject=subject,
        media=batch.media_ids,
        rows=found.rows,
        explanation=explanation,
        probe=explaining.selection(fuser, batch.features),
        rejects=found.batch.rejects,
        excluded=found.batch.excluded,
        stored=stored,
        cosine=float(now @ kept / (np.linalg.norm(now) * np.linalg.norm(kept))),
        changed=batch.fingerprints() != [stored.fingerprint],
    )


def _told(fuser: Fuser, version: Version, subject: str, batch: FeatureBatch) -> Explanation:
    try:
        return explaining.explain(fuser, batch.features, batch.media_offsets, strategy=version.strategy)
    except CancelledSetsError as error:
        of = f"medium {batch.media_ids[error.numbers[0]]!r}" if error.of == "medium" else "the subject"
        raise NotFoundError(
            f"subject {subject!r} has no template any more: the features of {of} cancel to zero, or are too large; "
            f"the next {version.backfill} rejects them"
        ) from error


def _why_not(
    version: Version,
    subject: str,
    source: str,
    stored: StoredTemplate | None,
    found: SubjectRows | None,
    near: Sequence[str],
) -> str:
    """Say why there is nothing to explain. near: subjects of the version with names like this one."""
    again = version.backfill
    if found is not None and not found.rows:
        counts = Counter(str(one.reason) for one in found.batch.rejects)
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
        ending = f"; the next {again} removes its template" if stored else ", so it has no template"
        return f"every row that source {source!r} has of subject {subject!r} is rejected ({reasons}){ending}"
    if found is not None:
        rows = f"{len(found.rows):,} usable rows"
        return (
            f"{version.said} has no template of subject {subject!r}, of which source {source!r} has {rows}: run {again}"
        )
    if stored is not None:
        fused = f"of {stored.fused_at:%Y-%m-%d} from {stored.features:,} features"
        return (
            f"source {source!r} no longer has subject {subject!r}, so its template {fused} cannot be explained; "
            f"the next {again} removes it"
        )
    close = difflib.get_close_matches(subject, near, n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return f"neither {version.said} nor source {source!r} has a subject {subject!r}{guess}"


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
