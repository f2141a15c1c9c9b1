"""How good a model is on subjects that are not trained on, in the words of evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pfstore.errors import CancelledSetsError, InputError
from pfstore.evaluation.results import AtFmr
from pfstore.evaluation.scoring import Targets, scored
from pfstore.evaluation.templates import FusedGallery, Templates
from pfstore.features import Offsets
from pfstore.fusion import Fuser, Role
from pfstore.training.data import TrainingData
from pfstore.training.drawing import Drawing, Pairs, Sets, usable

DRAWS = 3
NAMED = 5  # subjects that a message names
LEAST_ERRORS = 10
"""False matches that a target must expect here; fewer would make the threshold a matter of luck."""

_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


@dataclass(frozen=True)
class Validation:
    """Pairs of held-out subjects, drawn once, so that every model meets the same.

    data: of the held-out subjects. draws: DRAWS of pairs of every subject with one, and probes of the strangers.
    """

    data: TrainingData
    draws: Sequence[Pairs]
    mated: Offsets
    single: Offsets

    @classmethod
    def of(cls, data: TrainingData, drawing: Drawing, seed: int) -> Validation:
        """Draw the pairs of held-out subjects."""
        mated, single = usable(data)
        draws = [
            drawing.pairs(data, mated, single, np.random.default_rng((seed, 1, number))) for number in range(DRAWS)
        ]
        return cls(data, draws, mated, single)

    @cached_property
    def targets(self) -> Sequence[float]:
        """The FMR targets that so many comparisons can tell, the loosest first; at least that."""
        comparisons = DRAWS * len(self.mated) * (len(self.mated) - 1 + len(self.single))
        told = [target for target in _TARGETS if target * comparisons >= LEAST_ERRORS]
        return told or _TARGETS[:1]

    def figures(self, fuser: Fuser, bootstrap: int = 0) -> Sequence[AtFmr]:
        """Return FNMR at each of the targets; bootstrap: replicates for the intervals, 0 for none.

        Raises InputError where the features of a held-out set cancel.
        """
        try:
            galleries = [self._fused(fuser, pairs, number) for number, pairs in enumerate(self.draws)]
        except CancelledSetsError as error:
            numbers = [*self.mated.tolist(), *self.single.tolist()]
            who = sorted({self.data.subjects[numbers[one]] for one in error.numbers})
            raise InputError(
                f"held-out features of {', '.join(map(repr, who[:NAMED]))} cancel to zero or are too large by "
                f"{fuser.name}: leave them out of the source"
            ) from None
        [found] = scored(
            galleries, Targets(fmr=self.targets), identification=False, kinds=("raw",), bootstrap=bootstrap
        )
        return found.verification.at

    def error(self, figures: Sequence[AtFmr]) -> float:
        """Return the geometric mean of FNMR over the targets: what early stopping makes small."""
        trials = DRAWS * len(self.mated)
        return math.exp(sum(math.log(one.fnmr.value + 0.5 / trials) for one in figures) / len(figures))

    def _fused(self, fuser: Fuser, pairs: Pairs, number: int) -> FusedGallery:
        names = [self.data.subjects[one] for one in [*self.mated.tolist(), *self.single.tolist()]]
        references = _templates(fuser, pairs.references, names[: len(self.mated)], "gallery")
        return FusedGallery(f"draw {number + 1}", references, _templates(fuser, pairs.probes, names, "probe"))


def _templates(fuser: Fuser, sets: Sets, names: Sequence[str], role: Role) -> Templates:
    values = fuser.templates(sets.features, sets.offsets, role=role)
    return Templates(values, names, names, np.diff(sets.offsets))
