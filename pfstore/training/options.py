"""What can be chosen about a training, with defaults that serve data nobody tuned them for."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from pfstore.errors import ConfigError
from pfstore.parts import Parts

Method: TypeAlias = Literal["proxyfusion", "nan"]
Precision: TypeAlias = Literal["float32", "bfloat16"]

STEPS = 1000
"""Steps of a training whose epochs are not told, at the least; small stores are gone through many times."""

LEAST_EPOCHS = 10
SELECTED = 4


@dataclass(frozen=True)
class Options:
    """The settings of a training.

    method: the network. experts, selected: K in all and how many each set is given to (None: SELECTED, or all of
    fewer); domain: r, of the projection in which they are chosen; proxy_loss_weight: of the loss that pins proxies to a
    simplex; dropout: inside the experts; all these for ProxyFusion alone. temperature: of SupCon.
    subjects_per_batch: subjects that a step draws pairs of; repeats: pairs of each. strangers: the most subjects beside
    them that have no pair and serve as non-mated. epochs: passes over the subjects with pairs; None for STEPS steps and
    LEAST_EPOCHS. media: the fewest and the most media in a drawn set. most_features: of a drawn set. patience:
    validations without progress until training stops. validations: in all. scale: the norm that the median feature is
    brought to. workers: threads that draw batches ahead. device: "auto", "cpu", "cuda" or "cuda:1". precision:
    "bfloat16" computes the experts so (autocast). parts: the split by subject. seed: of everything random.

    Raises ConfigError for a setting that no training can have.
    """

    method: Method = "proxyfusion"
    experts: int = 4
    selected: int | None = None
    domain: int = 10
    proxy_loss_weight: float = 0.01
    dropout: float = 0.1
    temperature: float = 0.05
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    subjects_per_batch: int = 170
    repeats: int = 1
    strangers: int = 100
    epochs: int | None = None
    media: tuple[int, int] = (1, 3)
    most_features: int = 128
    patience: int = 10
    validations: int = 20
    scale: float = 8.0
    workers: int = 1
    device: str = "auto"
    precision: Precision = "float32"
    parts: Parts = field(default_factory=Parts)
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("experts", "domain", "subjects_per_batch", "repeats", "most_features", "patience")
        for name in (*counts, "validations"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("strangers", "workers"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        for name in ("temperature", "learning_rate", "scale"):
            self._check(name, 0 < getattr(self, name) < math.inf, "above 0 and finite")
        for name in ("proxy_loss_weight", "weight_decay"):
            self._check(name, 0 <= getattr(self, name) < math.inf, "at least 0 and finite")
        for name, known in (("method", get_args(Method)), ("precision", get_args(Precision))):
            self._check(name, getattr(self, name) in known, " or ".join(known))
        self._check("seed", 0 <= self.seed < 2**63, "from 0 to below 2^63")
        self._check("dropout", 0 <= self.dropout < 1, "from 0 to below 1")
        self._check("epochs", self.epochs is None or self.epochs >= 1, "at least 1")
        first, last = self.media
        if not 1 <= first <= last < 2**31:
            raise ConfigError(f"training: media must be from at least 1 to no less, not {first}-{last}")
        self._check("subjects_per_batch", self.subjects_per_batch >= 2, "at least 2, as one is compared with another")
        if self.selected is not None:
            self._check("selected", 1 <= self.selected <= self.experts, f"from 1 to the {self.experts} experts in all")
        self._check(
            "experts",
            self.method != "proxyfusion" or self.experts <= self.domain + 1,
            f"at most {self.domain + 1} in a domain of {self.domain} dimensions, as proxies are pinned to a simplex",
        )

    @property
    def blocks(self) -> int:
        """The experts that each set is given to."""
        return min(SELECTED, self.experts) if self.selected is None else self.selected

    def steps_of(self, subjects: int) -> tuple[int, int]:
        """Return the steps of an epoch over so many subjects with pairs, and of all the training."""
        epoch = -(-subjects // self.subjects_per_batch)
        epochs = max(LEAST_EPOCHS, -(-STEPS // epoch)) if self.epochs is None else self.epochs
        return epoch, epoch * epochs

    def as_dict(self) -> dict[str, Any]:
        """Return what a model card keeps: all that decides the result, and none of what does not."""
        kept = asdict(self) | {"media": list(self.media), "selected": self.blocks}
        others = ("experts", "selected", "domain", "proxy_loss_weight", "dropout") if self.method == "nan" else ()
        for name in ("parts", "workers", "device", *others):
            del kept[name]
        return kept

    def _check(self, name: str, holds: bool, must: str) -> None:
        if not holds:
            raise ConfigError(f"training: {name.replace('_', ' ')} must be {must}, not {getattr(self, name)}")
