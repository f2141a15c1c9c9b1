"""Before the first step: the file can be written, the data are enough and in proportion, the subjects are parted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import ConfigError, ConflictError, InputError
from pfstore.features import Floats
from pfstore.fusion.devices import device_of
from pfstore.fusion.normalisation import Normalisation
from pfstore.training.data import TrainingData
from pfstore.training.drawing import usable
from pfstore.training.options import Options
from pfstore.training.validating import NAMED

MOST_TIMES_MEDIAN = 1e6
"""A norm so many times the median, or so many times below it, is no feature of the same extractor."""


@dataclass(frozen=True)
class Split:
    """The data of the subjects to train on and of those to validate on. counts: subjects of each of the three parts."""

    train: TrainingData
    validation: TrainingData
    counts: Mapping[str, int]


def check_ready(out: Path, options: Options, *, overwrite: bool) -> None:
    """Check what can be checked before anything is read.

    Raises ConflictError where the file is there, InputError where it cannot be written, ConfigError where it is no
    model's by its name, the extra `train` is not installed or the device is not here.
    """
    if find_spec("pytorch_metric_learning") is None:
        raise ConfigError("training needs the extra train: pip install 'pfstore[train]'")
    device_of(options.device)
    if out.suffix != ".safetensors":
        raise ConfigError(f"{out}: a model's file ends in .safetensors")
    try:
        there = out.exists()
    except OSError as error:
        raise InputError(f"{out}: {error.strerror}") from None
    if there and not overwrite:
        raise ConflictError(f"{out} is there already: name another file, or say --overwrite")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"{out}: the folder {out.parent} is not there or cannot be written to")


def split(data: TrainingData, options: Options) -> Split:
    """Part the subjects and check that there are enough of them.

    Raises InputError where fewer than two subjects of a part have what a pair takes: two media, or a probe and a
    medium of the gallery.
    """
    parts = {subject: options.parts.of(subject) for subject in data.subjects}
    pieces = {part: data.select(_in_part(parts, part)) for part in ("train", "validation")}
    counts = {part: sum(one == part for one in parts.values()) for part in ("train", "validation", "test")}
    need = "two media" if data.probes is None else "a probe and a medium of the gallery"
    for part, piece in pieces.items():
        if not getattr(options.parts, part):
            raise InputError(f"the {part} part has a share of 0, and training needs it")
        paired = len(usable(piece)[0])
        if paired < 2:
            raise InputError(
                f"{paired} of the {counts[part]:,} subjects of the {part} part have {need}, as a pair takes, and at "
                f"least two must: of all {len(data.subjects):,} subjects {len(usable(data)[0]):,} have; "
                "take another source or other parts"
            )
    return Split(pieces["train"], pieces["validation"], counts)


def normalisation_of(data: TrainingData, options: Options) -> Normalisation:
    """Find the input scale in the data: what brings the median norm to the options'.

    Raises InputError where a feature is out of all proportion to the others, naming its subject.
    """
    norms = _norms(data.batch.features)
    median = float(np.median(norms))
    odd = (norms > MOST_TIMES_MEDIAN * median) | (norms < median / MOST_TIMES_MEDIAN)
    if odd.any():
        row = int(odd.argmax())
        subject = data.subjects[int(np.searchsorted(data.batch.set_offsets, row, side="right")) - 1]
        raise InputError(
            f"subject {subject!r} has a feature of norm {norms[row]:.3g}, the median is {median:.3g}: "
            "leave it out of the source"
        )
    # As its text says it, which is what the model's file keeps.
    return Normalisation.parse(str(Normalisation("scale", options.scale / median)))


def left_out(data: TrainingData) -> list[str]:
    """Name the subjects of HDF5 files that no pair can be drawn of."""
    _, single = usable(data)
    if not len(single) or data.probes is None:
        return []
    named = ", ".join(repr(data.subjects[one]) for one in single[:NAMED].tolist())
    more = f" and {len(single) - NAMED:,} more" if len(single) > NAMED else ""
    return [f"{len(single):,} subjects lack a probe or a gallery and serve as non-mated alone: {named}{more}"]


def _in_part(parts: Mapping[str, str], part: str) -> Callable[[str], bool]:
    return lambda subject: parts[subject] == part


def _norms(features: Floats) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    return norms
