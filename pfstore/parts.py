"""Train, validation and test: which part a subject belongs to, told by its key alone."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from pfstore.errors import InputError

Part: TypeAlias = Literal["train", "validation", "test"]

PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Parts:
    """A split of subjects, never of their features, into three disjoint parts.

    train, validation, test: the fraction of subjects in each, which sum to 1. A subject's part follows from its key and
    the seed by a hash, so it depends neither on which other subjects there are nor on their order, and a store that
    grows moves nobody. The sizes are those fractions on average, not to the subject.

    Raises InputError where a fraction is no number of 0 to 1, or they do not sum to 1.
    """

    train: float = 0.7
    validation: float = 0.1
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        fractions = {part: getattr(self, part) for part in PARTS}
        for part, fraction in fractions.items():
            if not 0 <= fraction <= 1:
                raise InputError(f"parts: {part} is a fraction of the subjects, 0 to 1, not {fraction}")
        total = math.fsum(fractions.values())
        if abs(total - 1) > 1e-9:
            told = ", ".join(f"{part} {fraction:g}" for part, fraction in fractions.items())
            raise InputError(f"parts: {told} sum to {total:g} instead of 1")

    def of(self, subject: str) -> Part:
        """Return the part that a subject is in."""
        place = hashed(subject, self.seed, "part")
        if place < self.train:
            return "train"
        # The fractions may sum to a little less than 1, and an empty part must stay empty.
        if place < self.train + self.validation or self.test == 0:
            return "validation" if self.validation else "train"
        return "test"

    def as_dict(self) -> dict[str, Any]:
        """Return the fractions and the seed, for a report or a model card."""
        return asdict(self)


def hashed(subject: str, seed: int, purpose: str) -> float:
    """Return a number of [0, 1) that a subject's key, the seed and the purpose decide: uniform over subjects.

    Two purposes are independent of each other.
    """
    # As many bits as a float holds, lest the largest become 1.
    return (hashed_bits(subject, seed, purpose) >> 11) / 2**53


def hashed_bits(subject: str, seed: int, purpose: str) -> int:
    """Return 64 bits that a subject's key, the seed and the purpose decide."""
    text = f"{purpose}\0{seed}\0{subject}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
