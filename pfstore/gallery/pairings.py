"""What a gallery is calibrated with: its own templates against each other, or probes against them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfstore.evaluation.comparing import Keys
from pfstore.features import Floats, Offsets
from pfstore.gallery.non_mated import NOBODY, Best, Counts, NonMated, References
from pfstore.gallery.thresholds import Kind


@dataclass(frozen=True)
class GalleryAgainstGallery(NonMated):
    """Some subjects' templates, or all, against all other references; each pair once. places: rising.

    seed: of the draw.
    """

    seed: int

    @classmethod
    def draw(
        cls, references: References, sample: int | None, seed: int, *, whole: bool = True
    ) -> GalleryAgainstGallery:
        """Take so many subjects, or all, as a seed decides; not whole: they are compared with each other only."""
        enrolled = len(references)
        if sample is None or sample >= enrolled:
            return cls(references, np.arange(enrolled, dtype=np.int64), enrolled, seed)
        places = references.drawn(sample, seed, "calibration")
        if whole:
            return cls(references, places, enrolled, seed)
        chosen = References(references.connection, references.version, [references.ids[one] for one in places.tolist()])
        return cls(chosen, np.arange(sample, dtype=np.int64), enrolled, seed)

    @property
    def persons(self) -> Offsets:
        """Each row is a reference's person."""
        return self.places

    @property
    def comparisons(self) -> int:
        """All pairs of which one at least is searched."""
        rows, others = len(self.places), len(self.references) - len(self.places)
        return rows * (rows - 1) // 2 + rows * others

    @property
    def most(self) -> Mapping[Kind, int]:
        """All pairs; a search for every subject."""
        return {"fmr": self.enrolled * (self.enrolled - 1) // 2, "fpir": self.enrolled}

    @property
    def shared(self) -> float:
        """A comparison of two searched subjects is one of both their searches."""
        others = max(1, len(self.references) - 1)
        return 1 + (len(self.places) - 1) / others

    @property
    def basis(self) -> str:
        """What is compared, in words."""
        if len(self.places) == self.enrolled:
            who = f"all {self.enrolled:,} subjects" if self.enrolled > 1 else "its one subject"
            return f"gallery against gallery, {who}"
        sample = f"gallery against gallery, {len(self.places):,} of {self.enrolled:,} subjects"
        others = "all" if self.is_whole else "each other"
        return f"{sample} against {others}, seed {self.seed}"

    def _values(self, rows: slice) -> Floats:
        return self.references.read([self.references.ids[one] for one in self.places[rows].tolist()])

    @property
    def _open(self) -> int:
        """Pairs of two searched subjects are made where the earlier one is the row."""
        unsearched = np.flatnonzero(self.places != np.arange(len(self.places)))
        return int(unsearched[0]) if len(unsearched) else len(self.places)

    def _left_out(self, rows: slice, columns: slice) -> NDArray[np.bool_] | None:
        numbers = np.arange(columns.start, min(columns.stop, len(self.references)))
        searched = np.isin(numbers, self.places, assume_unique=True)
        if not searched.any() or self.places[rows][-1] < columns.start:
            return None
        return searched & (self.places[rows][:, None] >= numbers)

    def _made(self) -> Counts:
        made = Counts.of(self)
        made.columns += len(self.places)
        # A searched subject is compared with all others; what it is a column for is among them.
        made.columns[self.places] = len(self.references) - 1
        return made

    def _searched(self, best: Best) -> Keys:
        """A comparison of two searched subjects counts in the searches of both."""
        return np.maximum(best.rows, best.columns[self.places])


@dataclass(frozen=True)
class ProbesAgainstGallery(NonMated):
    """Probes against all references but their own. templates: [R, blocks*D] float32 of half precision.

    numbers: [R] int64, the persons' (see `persons`).
    """

    templates: Floats
    numbers: Offsets

    @classmethod
    def matched(cls, references: References, ids: Sequence[str], templates: Floats) -> ProbesAgainstGallery:
        """Find each probe's mate: the subject of this very id, or of the first part of "<subject>/probe_<n>"."""
        numbered = {name: place for place, name in enumerate(references.ids)}
        names = [_person(one, numbered) for one in ids]
        places = np.array([numbered.get(name, NOBODY) for name in names], dtype=np.int64)
        numbers = np.array([numbered.setdefault(name, len(numbered)) for name in names], dtype=np.int64)
        halves = templates.astype(np.float16).astype(np.float32)
        return cls(references, places, len(references), halves, numbers)

    @property
    def persons(self) -> Offsets:
        """A mated probe is of its reference's person; others are told apart by their names."""
        return self.numbers

    @property
    def comparisons(self) -> int:
        """All but the mated ones."""
        return len(self.places) * len(self.references) - self.mated

    @property
    def basis(self) -> str:
        """What is compared, in words."""
        probes = "1 probe" if len(self.places) == 1 else f"{len(self.places):,} probes"
        mated = f", {self.mated:,} mated left out" if self.mated else ", none of them of a subject of it"
        return f"{probes} against the gallery's {len(self.references):,} subjects{mated}"

    @property
    def mated(self) -> int:
        """How many probes have a mate in the gallery."""
        return int(np.count_nonzero(self.places != NOBODY))

    def _values(self, rows: slice) -> Floats:
        return self.templates[rows]

    def _left_out(self, rows: slice, columns: slice) -> NDArray[np.bool_] | None:
        numbers = np.arange(columns.start, min(columns.stop, len(self.references)))
        mated = self.places[rows]
        here = (mated >= columns.start) & (mated < columns.stop)
        return (mated[:, None] == numbers) if here.any() else None

    def _made(self) -> Counts:
        made = Counts.of(self)
        made.rows += len(self.references) - (self.places != NOBODY)
        made.columns += len(self.places)
        np.subtract.at(made.columns, self.places[self.places != NOBODY], 1)
        return made

    def _searched(self, best: Best) -> Keys:
        return best.rows


def _person(probe: str, known: dict[str, int]) -> str:
    # HDF5 files name a probe after its subject and its number.
    named = re.fullmatch(r"(.+)/probe_.+", probe)
    return probe if probe in known or named is None else named[1]
