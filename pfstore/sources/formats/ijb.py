"""Features of the IARPA Janus benchmarks (IJB): an npy file, and a text that tells each row's template and medium."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import ConfigError, SourceError
from pfstore.sources.arrays import feature_array, first_line, read_npy
from pfstore.sources.formats.common import labelled
from pfstore.sources.formats.rows import RowSource, Values
from pfstore.sources.keyed import SLICE_VALUES

_INDEX = "*_face_tid_mid.txt"


class IjbSource(RowSource):
    """Features [N, D] in an npy file, in the order of a text's lines "image template medium".

    index: that text; without it the only `*_face_tid_mid.txt` beside the npy file. A subject is a template, or with
    subjects, a CSV "template,subject" with any further columns and with or without a header, what that says; then
    the rows of templates that are not in it are left out and counted. A row's key is the name of its image.

    Raises ConfigError where nothing tells the extractor or the text, SourceError where the files are not such or do
    not fit each other.
    """

    def __init__(
        self,
        path: Path,
        *,
        index: Path | None = None,
        extractor: str | None,
        name: str,
        dimension: int | None = None,
        subjects: Path | None = None,
    ) -> None:
        extractor = labelled(extractor, name, path)
        self._features = feature_array(read_npy(path), str(path))
        index = index or _beside(path, name)
        self._images, templates, media = index_columns(index)
        if self._features.ndim != 2 or len(self._features) != len(templates):
            shape = list(self._features.shape)
            raise SourceError(f"{path}: the shape is {shape}, but {index} has {len(templates):,} lines")
        owners: Sequence[str | None] = templates if subjects is None else _owners(templates, subjects)
        left_out = owners.count(None)
        self._excluded = {f"template not in {subjects.name}": left_out} if subjects and left_out else {}
        step = SLICE_VALUES // self._features.shape[1]
        super().__init__(extractor, dimension, subjects=owners, media=media, step=step)
        self.beside = index

    @property
    def excluded(self) -> Mapping[str, int]:
        """How many rows are of templates that the CSV of subjects does not name."""
        return self._excluded

    def values(self, rows: NDArray[np.int64]) -> Values:
        """Return the features of the rows of these numbers."""
        return Values(self._features[rows], {})

    def row_key(self, row: int) -> str:
        """Return the name of the image."""
        return self._images[row]


def _beside(path: Path, name: str) -> Path:
    found = sorted(path.parent.glob(_INDEX))
    if len(found) != 1:
        there = f"{len(found)} files {_INDEX}" if found else f"no {_INDEX}"
        raise ConfigError(f'sources.{name}: beside {path} there is {there}; set index = "…" to the text of its rows')
    return found[0]


def index_columns(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the images, templates and media of a text's lines, [N] each. Raises SourceError."""
    lines = [line.split() for line in _lines(path)]
    while lines and not lines[-1]:
        lines.pop()
    if not all(len(line) == 3 for line in lines):
        number, line = next((i, line) for i, line in enumerate(lines, 1) if len(line) != 3)
        raise SourceError(f'{path}:{number}: {" ".join(line)[:80]!r} is not of the form "image template medium"')
    images, templates, media = ([line[column] for line in lines] for column in range(3))
    return images, templates, media


def template_subjects(path: Path) -> dict[str, str]:
    """Return the subject of each template of a CSV "template,subject" with any further columns, in its order.

    A header is a template like any other. Raises SourceError where a line is no such, or a template is of two subjects.
    """
    owner: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        template, subject = _pair(line, f"{path}:{number}")
        if owner.setdefault(template, subject) != subject:
            both = f"{owner[template]!r} and {subject!r}"
            raise SourceError(f"{path}:{number}: template {template!r} is of two subjects, {both}")
    return owner


def _owners(templates: Sequence[str], path: Path) -> list[str | None]:
    """Return the subject of each row's template, None where the CSV does not name the template."""
    owner = template_subjects(path)
    # A header names no template either, so nothing has to be known about it.
    found = [owner.get(template) for template in templates]
    if found and all(subject is None for subject in found):
        raise SourceError(f"{path}: names none of the templates, not even {templates[0]!r}")
    return found


def _pair(line: str, where: str) -> tuple[str, str]:
    try:
        template, subject, *_ = next(csv.reader([line]))
    except (ValueError, csv.Error):
        raise SourceError(f'{where}: {line[:80]!r} is not of the form "template,subject"') from None
    return template.strip(), subject.strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: not a text: {first_line(error)}") from None
