"""Lists of pairs to compare, and the subjects that their labels tell."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import InputError
from pfstore.sources.arrays import first_line


def codes_of(names: Sequence[str]) -> dict[str, int]:
    """Return a number for each name, in the order in which they come first."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def read_pairs(path: Path) -> NDArray[np.int64]:
    """Return the pairs [C, 3]: two templates and whether they are of one subject."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file, which is refused below
            listed = np.loadtxt(path, dtype=np.int64, ndmin=2)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f'{path}: not lines of three whole numbers "template1 template2 label": {first_line(error)}'
        ) from None
    if len(listed) == 0 or listed.shape[1] != 3:
        raise InputError(f'{path}: {list(listed.shape)} numbers instead of lines "template1 template2 label"')
    labels = listed[:, 2]
    wrong = ((labels != 0) & (labels != 1)).nonzero()[0]
    if len(wrong):
        raise InputError(f"{path}:{wrong[0] + 1}: the label is 1 (one subject) or 0, not {labels[wrong[0]]}")
    return listed


def owners_of(listed: NDArray[np.int64], names: Mapping[str, str], path: Path) -> dict[int, str]:
    """Return the subject of each template in the pairs: those that the labels say are of one subject have one.

    names: the subjects that are known, by template; a subject of which no template is known is called by one of its
    templates. Raises InputError where a label contradicts them or the other labels.
    """
    templates = np.union1d(listed[:, 0], listed[:, 1])
    subjects = _Classes()
    for template in templates.tolist():
        subjects.join(f"template {template}", f"subject {names[str(template)]}" if str(template) in names else None)
    for first, second in np.unique(listed[listed[:, 2] == 1, :2], axis=0).tolist():
        subjects.join(f"template {first}", f"template {second}")
    _check_known(subjects, names, path)
    owners = {template: subjects.of(f"template {template}") for template in templates.tolist()}
    _check_labels(listed, templates, owners, path)
    return {template: owner.removeprefix("subject ") for template, owner in owners.items()}


def _check_known(subjects: _Classes, names: Mapping[str, str], path: Path) -> None:
    by_class: dict[str, str] = {}
    for subject in dict.fromkeys(names.values()):
        other = by_class.setdefault(subjects.of(f"subject {subject}"), subject)
        if other != subject:
            raise InputError(f"{path}: a label is 1 for templates of the subjects {other!r} and {subject!r}")


def _check_labels(
    listed: NDArray[np.int64], templates: NDArray[np.int64], owners: Mapping[int, str], path: Path
) -> None:
    classes = codes_of([owners[one] for one in templates.tolist()])
    codes = np.array([classes[owners[one]] for one in templates.tolist()], dtype=np.int64)
    equal = codes[np.searchsorted(templates, listed[:, 0])] == codes[np.searchsorted(templates, listed[:, 1])]
    wrong = (equal & (listed[:, 2] == 0)).nonzero()[0]
    if len(wrong):
        first, second, _ = listed[wrong[0]].tolist()
        raise InputError(
            f"{path}: {len(wrong):,} labels are 0 for templates of one subject, as templates {first} and {second}"
        )


class _Classes:
    """Names put together into classes (a union-find); a class is called by one of its names, the same each time."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Return the class of a name."""
        top = name
        while (above := self._above.setdefault(top, top)) != top:
            top = above
        while name != top:
            self._above[name], name = top, self._above[name]
        return top

    def join(self, name: str, other: str | None) -> None:
        """Put two names into one class; a subject's name is taken for it before a template's, else the lesser."""
        first, second = self.of(name), self.of(other or name)
        low, high = sorted((first, second))
        self._above[high] = low
