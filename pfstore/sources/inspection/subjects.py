"""Which columns are the subject, the medium and the model, told by how alike features are that share their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np

from pfstore.sources.inspection.attributes import Attribute
from pfstore.sources.inspection.grouping import ALIKE, Cosines, Labels, Likeness, combined, groups

SUBJECT_WORDS = ("subj", "person", "people", "ident", "name", "employee", "user", "student", "member", "cluster")
MEDIUM_WORDS = ("image", "img", "photo", "media", "medium", "file", "frame", "asset", "video", "picture", "path")
MODEL_WORDS = ("model", "extractor", "network", "backend", "engine", "algo", "version")
TENANT_WORDS = ("tenant", "api_key", "owner", "user", "site", "org", "account", "company", "customer", "realm")

_EXTRACTORS = re.compile(
    r"(?i)arcface|adaface|facenet|vgg|sface|dlib|cosface|magface|insightface|buffalo|antelope|openface|deepid|deepface"
    r"|ghostface|mobileface|elasticface|i?resnet|\bir_?\d|net\b|_r\d\d"
)

_UNLIKE = 0.6  # an area below which rows are not of one person
_MOST_SITES = 50  # values of a column that may be half of a composite key
_MOST_MODELS = 10
_MOST_PAIRS = 60  # of columns that are tried together
_BETTER = 0.03  # the area by which two columns together must be better than one
_PURE, _PURE_IF_NAMED = 0.97, 0.8


@dataclass(frozen=True)
class Subject:
    """The columns whose values are the subject's key. labels: [n], of the rows. rejected: others, and why not they."""

    columns: tuple[Attribute, ...]
    labels: Labels
    likeness: Likeness
    rejected: dict[str, str]


def find_subject(cosines: Cosines, attributes: Sequence[Attribute]) -> Subject | None:
    """Return the coarsest columns whose values persons share and do not share with others, None where none do.

    Finer ones, as the medium, hold features that are alike too; what joins two of their values is the subject if
    the features so joined are alike as well.
    """
    cosines = _of_one_model(cosines, attributes)
    scored = [(one, found) for one in _possible(attributes) if (found := cosines.of(one.labels))]
    rejected = {one.label: _said(found) for one, found in scored if found.area < ALIKE}
    single = [_Candidate((one,), one.labels, found) for one, found in scored if found.area >= ALIKE]
    candidates = sorted([*single, *_pairs(cosines, scored)], key=lambda one: -one.groups)
    if not candidates:
        return None
    current = candidates[0]
    for one in candidates[1:]:
        current, worse, why = _better(cosines, current, one)
        rejected[worse.label] = why
    for column in current.columns:
        rejected.pop(column.label, None)
    whole = _with_tenant(cosines, current, attributes) or current
    return Subject(whole.columns, whole.labels, whole.likeness, rejected)


@dataclass(frozen=True)
class _Candidate:
    """Columns that may be the subject's key together."""

    columns: tuple[Attribute, ...]
    labels: Labels
    likeness: Likeness

    @property
    def label(self) -> str:
        return " with ".join(one.label for one in self.columns)

    @property
    def groups(self) -> int:
        return groups(self.labels)

    @property
    def preference(self) -> tuple[int, int, bool, float]:
        """The lower, the better is it of two that group the rows alike."""
        first = self.columns[-1]
        return len(first.path), len(self.columns), not first.named(SUBJECT_WORDS), first.missing


def _better(cosines: Cosines, fine: _Candidate, coarse: _Candidate) -> tuple[_Candidate, _Candidate, str]:
    """Return which of two is rather the subject, the other, and why not that."""
    merged = cosines.across(coarse.labels, fine.labels)
    if merged is None and coarse.groups >= 0.95 * fine.groups:
        first, second = sorted((fine, coarse), key=lambda one: one.preference)
        return first, second, f"groups the rows as {first.label} does"
    if merged is not None and merged.area >= ALIKE:
        return coarse, fine, f"finer than {coarse.label}, whose values join alike features"
    return fine, coarse, f"joins features that are not alike ({_said(merged or coarse.likeness)})"


def find_medium(cosines: Cosines, subject: Subject, attributes: Sequence[Attribute]) -> Attribute | None:
    """Return the column whose values name the media within subjects, None where nothing tells."""
    taken = {one.label for one in subject.columns}
    possible = [
        one
        for one in attributes
        if one.label not in taken
        and one.is_key_like
        and not _is_key(one)
        and _refines(one.labels, subject.labels, _PURE_IF_NAMED if one.named(MEDIUM_WORDS) else _PURE)
    ]
    # A value that comes with several rows, always of one subject, is of a medium or a visit.
    repeated = [one for one in possible if one.groups < 0.95 * np.count_nonzero(one.labels >= 0)]
    named = [one for one in possible if one.named(MEDIUM_WORDS)]
    closer = [one for one in repeated if _is_closer(cosines, one, subject)]
    chosen = [one for one in repeated if one in named] or named or closer or repeated
    return min(chosen, key=lambda one: (len(one.path), one.missing), default=None)


def find_model(cosines: Cosines, subject: Subject, attributes: Sequence[Attribute]) -> Attribute | None:
    """Return the column that tells extractors apart: features of one person are not alike across its values.

    One of a single value is known by its name alone.
    """
    for one in attributes:
        if one.path or one in subject.columns or not one.is_key_like or not 1 <= one.groups <= _MOST_MODELS:
            continue
        if one.groups == 1:
            if one.named(MODEL_WORDS) and one.missing == 0:
                return one
        elif _separates(cosines, subject.labels, one.labels) and _is_rather_a_model(one, subject.labels, attributes):
            return one
    return None


def _possible(attributes: Iterable[Attribute]) -> list[Attribute]:
    return [one for one in attributes if one.is_key_like and not one.is_time and one.groups >= 2]


def _of_one_model(cosines: Cosines, attributes: Sequence[Attribute]) -> Cosines:
    """Return the comparisons of one extractor's features, where a column of extractors is there."""
    scored = [(one, found) for one in _possible(attributes) if (found := cosines.of(one.labels))]
    for pair in _pairs(cosines, scored):
        site, name = pair.columns
        if site.groups <= _MOST_MODELS and _is_rather_a_model(site, name.labels, attributes):
            return cosines.among(site.labels == np.bincount(site.labels[site.labels >= 0]).argmax())
    return cosines


def _pairs(cosines: Cosines, scored: Sequence[tuple[Attribute, Likeness]]) -> list[_Candidate]:
    """Return pairs of columns of one table that tell persons apart better than either alone.

    Such are names under several tenants, and persons under several extractors.
    """
    found = []
    for (first, likeness), (second, other) in islice(combinations(scored, 2), _MOST_PAIRS):
        if first.path != second.path or min(first.groups, second.groups) > _MOST_SITES:
            continue
        labels = combined(first.labels, second.labels)
        if groups(labels) == max(first.groups, second.groups):
            continue
        together = cosines.of(labels)
        if together and together.area >= max(ALIKE, likeness.area + _BETTER, other.area + _BETTER):
            tenant, name = sorted((first, second), key=lambda one: one.groups)
            found.append(_Candidate((tenant, name), labels, together))
    return found


def _with_tenant(cosines: Cosines, subject: _Candidate, attributes: Sequence[Attribute]) -> _Candidate | None:
    """Return the subject with the column that tells its namesakes apart, None where there are none."""
    for one in _possible(attributes):
        if one in subject.columns or one.path != subject.columns[-1].path:
            continue
        if one.groups > min(_MOST_SITES, subject.groups) or _is_rather_a_model(one, subject.labels, attributes):
            continue
        labels = combined(one.labels, subject.labels)
        found = cosines.of(labels)
        if found and groups(labels) != subject.groups and _separates(cosines, subject.labels, one.labels):
            return _Candidate((one, *subject.columns), labels, found)
    return None


def _is_rather_a_model(one: Attribute, subject: Labels, others: Sequence[Attribute]) -> bool:
    """Tell a column of extractors from one of tenants, under which namesakes are other people.

    Features of one subject value are not alike across either. But an extractor mostly went over all subjects, and
    over the same media as another, while tenants share no media.
    """
    if one.named(MODEL_WORDS) or any(isinstance(value, str) and _EXTRACTORS.search(value) for value in one.present):
        return True
    if one.named(TENANT_WORDS) or not _is_everywhere(one.labels, subject):
        return False
    both = combined(one.labels, subject)
    media = [m for m in others if m is not one and m.is_key_like and _refines(m.labels, subject, _PURE)]
    media += [m for m in others if m is not one and m.is_key_like and _refines(m.labels, both, _PURE)]
    repeated = [m.labels for m in media if m.groups < 0.95 * np.count_nonzero(m.labels >= 0)]
    if repeated:
        return any(_is_everywhere(one.labels, labels) for labels in repeated)
    return any(isinstance(value, str) for value in one.present)


def _separates(cosines: Cosines, coarse: Labels, fine: Labels) -> bool:
    """Tell whether rows of one coarse value are not alike where the fine value differs."""
    found = cosines.across(coarse, fine)
    return found is not None and found.area < _UNLIKE


def _is_everywhere(fine: Labels, coarse: Labels) -> bool:
    """Tell whether most coarse values that could occur with several fine ones do."""
    pairs = np.unique(np.stack([coarse, fine], axis=1)[(coarse >= 0) & (fine >= 0)], axis=0)
    rows = np.bincount(coarse[coarse >= 0])
    several = np.bincount(pairs[:, 0], minlength=len(rows)) > 1
    able = rows > 1
    return bool(able.any() and several[able].mean() > 0.5)


def _refines(fine: Labels, coarse: Labels, pure: float) -> bool:
    """Tell whether this share of the fine values occurs with one coarse value alone, and some of these have several."""
    known = (fine >= 0) & (coarse >= 0)
    if known.mean() < 0.5:
        return False
    pairs = np.unique(np.stack([fine, coarse], axis=1)[known], axis=0)
    values = groups(fine[known])
    return values / len(pairs) >= pure and values > groups(coarse[known])


def _is_closer(cosines: Cosines, one: Attribute, subject: Subject) -> bool:
    inside, across = cosines.of(one.labels), cosines.across(subject.labels, one.labels)
    return inside is not None and across is not None and inside.within > across.within + 0.01


def _is_key(one: Attribute) -> bool:
    return not one.path and one.table.key == (one.column,)


def _said(found: Likeness) -> str:
    return f"a pair that shares it is the more alike one in {found.area:.0%} of {found.pairs:,}"
