"""IJB-B and IJB-C: 1:1 by a list of pairs of templates, 1:N with each gallery apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import InputError
from pfstore.evaluation.protocols.experiment import Experiment, Pairs
from pfstore.evaluation.protocols.pairs import codes_of, owners_of, read_pairs
from pfstore.evaluation.protocols.samples import IndexedSamples, numbered
from pfstore.evaluation.protocols.survey import Compared, shown, surveyed
from pfstore.features import Offsets, offsets_of
from pfstore.sources.arrays import feature_array, read_npy
from pfstore.sources.formats.ijb import index_columns, template_subjects

_INDEX = "*_face_tid_mid.txt"
_PAIRS = "*_template_pair_label.txt"
_GALLERIES = ("*_1N_gallery_[GS]1.csv", "*_1N_gallery_[GS]2.csv")
_PROBES = "*_1N_probe_mixed.csv"
_HEADERS = frozenset({"template_id", "templateid", "template", "tid"})


@dataclass(frozen=True)
class _Index:
    """The features and which template and medium each row is of: codes [N] int64, and their names."""

    features: NDArray[Any]
    templates: Offsets
    media: Offsets
    template_codes: Mapping[str, int]
    media_names: Sequence[str]

    @property
    def dimension(self) -> int:
        return int(self.features.shape[1])


def ijb_11(
    features: Path,
    *,
    index: Path | None = None,
    pairs: Path | None = None,
    subjects: Sequence[Path] = (),
    extractor: str = "",
) -> Experiment:
    """Return the 1:1 protocol: the pairs of templates that a text lists, "template1 template2 label" a line.

    features: npy [N, D] in the order of index, a text "image template medium"; it is mapped, not loaded. The first
    templates of the pairs are the references, the second the probes. index, pairs: else the only file beside features
    that is called so. subjects: CSVs "template,subject", as those of 1:N; a template of no CSV is of the subject of
    those that it is paired with by label 1, so that a pair is mated where the subjects are equal.

    Raises InputError where a label contradicts the subjects or the other labels, or the files do not fit each other.
    """
    opened = _opened(features, index)
    path = pairs or _beside(features, _PAIRS)
    listed = read_pairs(path)
    owners = owners_of(listed, _known(subjects), path)
    sides = [_side(opened, listed[:, column], owners, path) for column in (0, 1)]
    places = [place for _, place in sides]
    references, probes = (samples for samples, _ in sides)
    mated = int(listed[:, 2].sum())
    return surveyed(
        f"{_benchmark(features, path)} 1:1",
        [Compared("templates", references, probes)],
        dimension=opened.dimension,
        extractor=extractor,
        pairs=Pairs(references.ids, probes.ids, *places),
        facts={"comparisons": {"mated": mated, "non_mated": len(listed) - mated}},
    )


def ijb_1n(
    features: Path,
    *,
    index: Path | None = None,
    galleries: Sequence[Path] = (),
    probes: Path | None = None,
    extractor: str = "",
) -> Experiment:
    """Return the 1:N protocol: the mixed probes against each gallery apart, so that non-mated searches exist.

    features, index: as ijb_11. galleries, probes: CSVs "template,subject" with any further columns; else the ones
    beside features, "…_1N_gallery_G1.csv" and G2 (S1 and S2 in IJB-B) and "…_1N_probe_mixed.csv". The templates of a
    subject in a gallery are one reference. A template that has no row of features fails to acquire or enrol.

    Raises InputError where a file is missing, or a CSV names none of the templates.
    """
    opened = _opened(features, index)
    paths = list(galleries) or [_beside(features, one) for one in _GALLERIES]
    path = probes or _beside(features, _PROBES)
    searched = _templates(path)
    searches = _samples(opened, [(template, subject, [template]) for template, subject in searched.items()], path)
    compared = [Compared(_gallery_name(one), _enrolled(opened, one), searches) for one in paths]
    return surveyed(f"{_benchmark(features, path)} 1:N", compared, dimension=opened.dimension, extractor=extractor)


def _opened(features: Path, index: Path | None) -> _Index:
    array = feature_array(read_npy(features), str(features))
    path = index or _beside(features, _INDEX)
    _, templates, media = index_columns(path)
    if array.ndim != 2 or len(array) != len(templates):
        raise InputError(f"{features}: the shape is {list(array.shape)}, but {path} has {len(templates):,} lines")
    template_codes, media_codes = codes_of(templates), codes_of(media)
    return _Index(
        array,
        np.array([template_codes[one] for one in templates], dtype=np.int64),
        np.array([media_codes[one] for one in media], dtype=np.int64),
        template_codes,
        list(media_codes),
    )


def _beside(features: Path, pattern: str) -> Path:
    found = sorted(features.parent.glob(pattern))
    if len(found) != 1:
        there = f"{len(found)} files {pattern} ({shown(one.name for one in found)})" if found else f"no {pattern}"
        raise InputError(f"beside {features} there is {there}; name the file")
    return found[0]


def _benchmark(features: Path, path: Path) -> str:
    """Return "IJB-C" where the name of a file begins so."""
    name = path.name.lower()
    return f"IJB-{name[3].upper()}" if name[:3] == "ijb" and name[3:4].isalpha() else features.stem


def _side(
    index: _Index, templates: NDArray[np.int64], owners: Mapping[int, str], path: Path
) -> tuple[IndexedSamples, Offsets]:
    """Return the templates of a column of pairs as samples, and the place of each entry among them."""
    distinct, places = np.unique(templates, return_inverse=True)
    listed = [(str(one), owners[one], [str(one)]) for one in distinct.tolist()]
    return _samples(index, listed, path), places.astype(np.int64)


def _templates(path: Path) -> dict[str, str]:
    """Return the subject of each template of a CSV, without the header."""
    return {one: subject for one, subject in template_subjects(path).items() if one.lower() not in _HEADERS}


def _known(paths: Sequence[Path]) -> dict[str, str]:
    """Return the subject of each template of some CSVs. Raises InputError where they do not agree."""
    known: dict[str, str] = {}
    for path in paths:
        for template, subject in _templates(path).items():
            if known.setdefault(template, subject) != subject:
                raise InputError(f"{path}: template {template!r} is of {subject!r}, elsewhere of {known[template]!r}")
    return known


def _enrolled(index: _Index, path: Path) -> IndexedSamples:
    templates: dict[str, list[str]] = {}
    for template, subject in _templates(path).items():
        templates.setdefault(subject, []).append(template)
    return _samples(index, [(subject, subject, listed) for subject, listed in templates.items()], path)


def _gallery_name(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def _samples(index: _Index, listed: Sequence[tuple[str, str, Sequence[str]]], path: Path) -> IndexedSamples:
    """Return samples of (id, subject, templates). path: of the file that names them, for a message."""
    sample_of = np.full(len(index.template_codes), -1, dtype=np.int64)
    for number, (_, _, templates) in enumerate(listed):
        sample_of[[index.template_codes[one] for one in templates if one in index.template_codes]] = number
    owners = sample_of[index.templates]
    rows = (owners >= 0).nonzero()[0]
    if len(rows) == 0:
        raise InputError(f"{path}: names none of the templates that have features; does it belong to them?")
    rows = rows[np.lexsort((index.media[rows], owners[rows]))]
    samples, media = owners[rows], index.media[rows]
    starts = np.flatnonzero(np.r_[True, (np.diff(samples) != 0) | (np.diff(media) != 0)])
    return IndexedSamples(
        numbered(((sample, subject) for sample, subject, _ in listed), f"{path}: template"),
        index.features,
        rows,
        media_offsets=np.r_[starts, len(rows)].astype(np.int64),
        sample_offsets=offsets_of(np.bincount(samples[starts], minlength=len(listed))),
        media=[index.media_names[one] for one in media[starts].tolist()],
    )
