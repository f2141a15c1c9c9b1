"""The input normalisation: what is done to every feature before a model sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pfstore.errors import ModelError


@dataclass(frozen=True)
class Normalisation:
    """Features as they are ("raw"), divided by their norms ("unit") or times a factor ("scale:<factor>").

    A model under a normalisation gives what the same model gives "raw" for features normalised beforehand.
    """

    kind: str
    factor: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Normalisation:
        """Read the normalisation that the text states. Raises ModelError for any other text."""
        kind, _, factor = text.partition(":")
        if text in ("raw", "unit"):
            return cls(text)
        try:
            value = float(factor)
        except ValueError:
            value = math.nan
        if kind != "scale" or not 0 < value < math.inf:
            raise ModelError(f"unknown input normalisation {text!r}: use raw, unit or scale:<factor above 0>")
        return cls(kind, value)

    def __str__(self) -> str:
        return f"scale:{self.factor:.9g}" if self.kind == "scale" else self.kind

    def apply(self, features: Tensor) -> Tensor:
        """[N, D] normalised features; no copy where there is nothing to do."""
        if self.kind == "unit":
            return torch.nn.functional.normalize(features, dim=1)
        return features if self.factor == 1.0 else features * self.factor
