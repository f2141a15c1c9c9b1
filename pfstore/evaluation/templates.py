"""The templates of one side of an experiment, by one method, and the galleries they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pfstore.evaluation.protocols.experiment import Failure
from pfstore.features import Floats, Offsets


@dataclass(frozen=True)
class Templates:
    """Fused samples.

    values: [S, L] float32, L2-normalised. ids: [S] the samples'. subjects: [S] whose they are. features: [S] int64,
    how many were fused. failures: the samples that gave no template.
    """

    values: Floats
    ids: Sequence[str]
    subjects: Sequence[str]
    features: Offsets
    failures: Sequence[Failure] = ()


@dataclass(frozen=True)
class FusedGallery:
    """A gallery of an experiment, fused: its references and the probes that are compared with them."""

    name: str
    references: Templates
    probes: Templates
