"""The comparisons that a 1:1 protocol lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import InputError
from pfstore.evaluation.collecting import Collector, Mated, Subjects
from pfstore.evaluation.comparing import Keys, pair_blocks
from pfstore.evaluation.protocols.experiment import Pairs
from pfstore.evaluation.tails import Codes, Hashes, Locate, hashes
from pfstore.evaluation.templates import FusedGallery, Templates
from pfstore.evaluation.trials import Trials, pairs_among
from pfstore.features import Floats, Offsets

FAILED = -1


@dataclass(frozen=True)
class Listed:
    """One role's samples in listed comparisons.

    values, features: as in Templates. rows: [C] the comparisons' templates, FAILED where there is none.
    codes: [C] int32 of their subjects. hashes: [C].
    """

    values: Floats
    features: Offsets
    rows: Offsets
    codes: Codes
    hashes: Hashes

    @classmethod
    def of(cls, templates: Templates, ids: Sequence[str], chosen: Offsets, subjects: Subjects, role: str) -> Listed:
        """Look the samples up. Raises InputError for an id that is neither a template's nor a failure's."""
        known = {one.sample: (FAILED, subjects.codes[one.subject]) for one in templates.failures}
        codes = subjects.of_templates(templates).tolist()
        known.update({sample: (row, code) for row, (sample, code) in enumerate(zip(templates.ids, codes, strict=True))})
        missing = next((sample for sample in ids if sample not in known), None)
        if missing is not None:
            raise InputError(f"the listed comparisons name the {role} {missing!r}, of which there is nothing")
        found = np.array([known[sample] for sample in ids], dtype=np.int64).reshape(-1, 2)
        return cls(
            templates.values,
            templates.features,
            found[chosen, 0],
            found[chosen, 1].astype(np.int32),
            hashes(ids, role)[chosen],
        )


class PairsPass:
    """All listed comparisons."""

    def __init__(self, gallery: FusedGallery, pairs: Pairs, subjects: Subjects) -> None:
        self.references = Listed.of(gallery.references, pairs.reference_ids, pairs.references, subjects, "reference")
        self.probes = Listed.of(gallery.probes, pairs.probe_ids, pairs.probes, subjects, "probe")
        self.mated = self.references.codes == self.probes.codes
        self.made = (self.references.rows != FAILED) & (self.probes.rows != FAILED)
        self.subjects = len(subjects)

    def trials(self) -> Trials:
        """Count them by outcome."""
        missed = np.bincount(self.probes.codes[self.mated & ~self.made], minlength=self.subjects)
        crossed = ~self.mated & self.made
        sides = [side.codes[crossed] for side in (self.references, self.probes)]
        present = np.bincount(np.concatenate(sides), minlength=self.subjects)
        count = int(np.count_nonzero(crossed))
        return Trials(missed, count, int(np.count_nonzero(~self.mated)), pairs_among(present, count))

    def run(self, collector: Collector, mated: Mated) -> None:
        """Make them."""
        made = np.flatnonzero(self.made)
        probes, references = self.probes, self.references
        for places, keys in pair_blocks(probes.values, references.values, probes.rows[made], references.rows[made]):
            self._add(made[places], keys, collector, mated)

    def _add(self, chosen: NDArray[np.intp], keys: Keys, collector: Collector, mated: Mated) -> None:
        own = self.mated[chosen]
        collector.mated.append(keys[own])
        mated.subjects.append(self.probes.codes[chosen[own]].astype(np.int64))
        mated.features.append(self.probes.features[self.probes.rows[chosen[own]]])
        others = chosen[~own]
        collector.add(keys[~own], self.probes.hashes[others] + self.references.hashes[others], self._locating(others))

    def _locating(self, chosen: NDArray[np.intp]) -> Locate:
        def locate(places: NDArray[np.intp]) -> tuple[Codes, Codes]:
            return self.references.codes[chosen[places]], self.probes.codes[chosen[places]]

        return locate
