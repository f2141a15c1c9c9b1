"""One batch of a shard: what is unchanged is left, the rest is fused, everything is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import CancelledSetsError
from pfstore.features import FeatureBatch, Floats, TemplateBatch
from pfstore.fusion import Fuser
from pfstore.gallery.galleries import Strategy
from pfstore.gallery.runs import Counts
from pfstore.gallery.writing import ShardWriter
from pfstore.sources.base import Reason, Reject, SourceBatch


@dataclass(frozen=True)
class Fused:
    """What a batch of a source became.

    kept: the subjects that are as they were. rejected_subjects: those that have no usable feature.
    excluded: rows that the mapping left out, by cause. marks: by subject, what the source said of it.
    """

    templates: TemplateBatch
    rejects: Sequence[Reject]
    rejected_subjects: Sequence[str]
    kept: Sequence[str]
    excluded: Mapping[str, int]
    marks: Mapping[str, bytes]
    counts: Counts

    def write(self, writer: ShardWriter) -> None:
        """Hand it over to be written with the shard."""
        writer.add(self.templates)
        writer.reject(self.rejects, self.rejected_subjects)
        writer.keep(self.kept)
        writer.exclude(self.excluded)
        writer.mark(self.marks)


@dataclass(frozen=True)
class ShardFuser:
    """Fuses batches by one model and strategy."""

    fuser: Fuser
    strategy: Strategy

    def fuse(self, batch: SourceBatch, prints: Sequence[bytes], known: Mapping[str, bytes]) -> Fused:
        """Fuse a batch's new and changed subjects; count all of it.

        prints: [S] the fingerprints of the batch's subjects. known: those of templates that are there already.
        """
        features = batch.features
        changed = np.array(
            [known.get(subject) != print_ for subject, print_ in zip(features.subject_ids, prints, strict=True)],
            dtype=bool,
        )
        todo = features.select(changed)
        templates, fused = self._templates(todo)
        void = todo.select(~fused)
        rejects = [*batch.rejects, *_rejected(void)]
        rejected_subjects = [*batch.rejected_subjects, *void.subject_ids]
        by_subject = dict(zip(features.subject_ids, prints, strict=True))
        counts = Counts(
            read=batch.read,
            fused=batch.read - len(rejects),
            rejected=len(rejects),
            seen=batch.subjects,
            written=len(templates),
            unchanged=len(features.subject_ids) - len(todo.subject_ids),
            subjects_rejected=len(rejected_subjects),
        )
        made = _batch(todo.select(fused), templates, by_subject)
        kept = features.select(~changed).subject_ids
        return Fused(made, rejects, rejected_subjects, kept, batch.excluded, batch.marks, counts)

    def _templates(self, batch: FeatureBatch) -> tuple[Floats, NDArray[np.bool_]]:
        """Fuse a batch: the templates of those subjects for which the mask ([S] bool) is true."""
        fused = np.ones(len(batch.subject_ids), dtype=bool)
        while fused.any():
            left = batch.select(fused)
            try:
                return self._fused(left), fused
            except CancelledSetsError as error:
                void = np.array(error.numbers)
                if error.of == "medium":
                    void = np.searchsorted(left.subject_offsets, void, side="right") - 1
                fused[fused.nonzero()[0][void]] = False
        return np.empty((0, 0), dtype=np.float32), fused

    def _fused(self, batch: FeatureBatch) -> Floats:
        if self.strategy == "set":
            return self.fuser.templates(batch.features, batch.set_offsets, role="gallery")
        return self.fuser.templates_media(batch.features, batch.media_offsets, batch.subject_offsets, role="gallery")


def _batch(batch: FeatureBatch, templates: Floats, prints: Mapping[str, bytes]) -> TemplateBatch:
    return TemplateBatch(
        batch.subject_ids,
        templates,
        np.diff(batch.set_offsets),
        np.diff(batch.subject_offsets),
        [prints[subject] for subject in batch.subject_ids],
    )


def _rejected(void: FeatureBatch) -> list[Reject]:
    """Return a reject for each feature of subjects whose features cancel each other to nothing."""
    media_of = np.repeat(np.arange(len(void.media_ids)), np.diff(void.media_offsets))
    subject_of = np.repeat(np.arange(len(void.subject_ids)), np.diff(void.set_offsets))
    return [
        Reject(void.subject_ids[subject], void.media_ids[medium], "", Reason.CANCELLED, "the mean is zero")
        for subject, medium in zip(subject_of.tolist(), media_of.tolist(), strict=True)
    ]
