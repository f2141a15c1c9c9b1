"""Which part of an evaluation a table, a figure or a sentence is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from pfstore.evaluation.results import AtFmr, Evaluation, Identification, MethodResult, Rate, Scored

Band: TypeAlias = tuple[int, int | None]

REFERENCE_FMRS = (1e-3, 1e-4)
"""Where methods are compared in words and with intervals, if the comparisons are enough."""


def score_kinds(evaluation: Evaluation) -> list[str]:
    """Return the kinds of scores, in the order in which methods have them."""
    return list(dict.fromkeys(scored.scores for method in evaluation.methods for scored in method.scored))


def of_kind(evaluation: Evaluation, kind: str) -> list[tuple[MethodResult, Scored]]:
    """Return the methods that have this kind of scores, with these."""
    return [(method, scored) for method in evaluation.methods for scored in method.scored if scored.scores == kind]


def targets(scored: Scored) -> list[float]:
    """Return the target FMRs, which are the same for every method."""
    return [at.target for at in scored.verification.at]


def reference_rows(scored: Scored) -> list[int]:
    """Return the places in `at` of REFERENCE_FMRS that are supported; if none is, of the smallest that is."""
    supported = [place for place, at in enumerate(scored.verification.at) if at.supported and at.fnmr.trials]
    chosen = [place for place in supported if scored.verification.at[place].target in REFERENCE_FMRS]
    return chosen or sorted(supported, key=lambda place: scored.verification.at[place].target)[:1]


def at_target(scored: Scored, target: float) -> AtFmr:
    """Return the row of a target FMR."""
    return next(at for at in scored.verification.at if at.target == target)


def bands(methods: Sequence[tuple[MethodResult, Scored]]) -> list[Band]:
    """Return the sizes of probes' sets, as first and last, that any of the methods has figures for."""
    found = {(row.first, row.last) for _, scored in methods for row in scored.verification.by_size}
    return sorted(found, key=lambda band: band[0])


def of_band(scored: Scored, band: Band, place: int) -> Rate | None:
    """Return FNMR of the probes of these sizes at a place in `at`; None where there are none."""
    rows = (row for row in scored.verification.by_size if (row.first, row.last) == band)
    return next((row.fnmr[place] for row in rows), None)


def gallery_names(evaluation: Evaluation) -> list[str]:
    """Return the galleries that have 1:N figures."""
    every = (scored for method in evaluation.methods for scored in method.scored)
    return list(dict.fromkeys(one.gallery for scored in every for one in scored.identifications))


def of_gallery(evaluation: Evaluation, kind: str, gallery: str) -> list[tuple[MethodResult, Identification]]:
    """Return the methods' 1:N figures against a gallery."""
    return [
        (method, one)
        for method, scored in of_kind(evaluation, kind)
        for one in scored.identifications
        if one.gallery == gallery
    ]


def is_average(method: MethodResult) -> bool:
    """Whether the method is plain averaging, against which others are held."""
    return bool(method.model.get("name") == "average")
