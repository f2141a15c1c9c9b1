"""The figures of an evaluation as flat rows: for a terminal, and tidy for a CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from io import StringIO
from typing import Any

from pfstore.evaluation.results import Evaluation, Identification, Rate, Scored, Verification
from pfstore.evaluation.selecting import gallery_names, of_gallery, of_kind, score_kinds, targets
from pfstore.evaluation.wording import count, interval, needed

VERIFICATION = (
    "scores", "fmr", "method", "threshold", "fnmr", "interval", "errors", "mated", "frr", "false_matches", "non_mated",
    "note",
)  # fmt: skip
"""The columns of verification_rows, in the order to print."""

IDENTIFICATION = ("scores", "gallery", "figure", "method", "value", "interval", "counted", "searches", "note")
"""The columns of identification_rows, in the order to print."""

CSV = (
    "method", "scores", "gallery", "metric", "target", "first", "last", "threshold", "supported", "value", "errors",
    "trials", "low", "high",
)  # fmt: skip
"""The columns of csv_rows."""


def verification_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return a row for each kind of scores, target FMR and method, in this order, and a row each for the EER.

    fmr: the target, or "EER". A target that the comparisons do not support has a note in place of figures.
    """
    rows = []
    for kind in score_kinds(evaluation):
        methods = of_kind(evaluation, kind)
        for number, target in enumerate(targets(methods[0][1])):
            for method, scored in methods:
                rows.append(
                    {"scores": kind, "fmr": target, "method": method.label, **_at_fmr(scored.verification, number)}
                )
        rows += [{"scores": kind, "fmr": "EER", "method": one.label, **_eer(scored)} for one, scored in methods]
    return rows


def _at_fmr(verification: Verification, number: int) -> dict[str, Any]:
    at = verification.at[number]
    if not at.supported:
        return {"note": lacking(at.target, verification.non_mated, "non-mated comparison")}
    return {
        "threshold": _known(at.threshold),
        "fnmr": _known(at.fnmr.value),
        "interval": interval(at.fnmr.low, at.fnmr.high),
        "errors": at.fnmr.errors,
        "mated": at.fnmr.trials,
        "frr": _known(at.frr.value),
        "false_matches": at.fmr.errors,
        "non_mated": at.fmr.trials,
    }


def _eer(scored: Scored) -> dict[str, Any]:
    one = scored.verification
    if math.isnan(one.eer):
        return {"note": "needs mated and non-mated comparisons"}
    return {
        "threshold": _known(one.eer_threshold),
        "fnmr": one.eer,
        "interval": interval(one.eer_low, one.eer_high),
        "mated": one.mated,
        "non_mated": one.non_mated,
    }


def identification_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return a row for each kind of scores, gallery, rank or target FPIR, and method, in this order.

    figure: "rank 5", whose value is a hit rate, or "FNIR at FPIR 0.01", whose value is an error rate.
    """
    rows = []
    for kind in score_kinds(evaluation):
        for gallery in gallery_names(evaluation):
            methods = of_gallery(evaluation, kind, gallery)
            for same_figure in zip(*(_searches(one) for _, one in methods), strict=True):
                for (method, _), row in zip(methods, same_figure, strict=True):
                    rows.append({"scores": kind, "gallery": gallery, "method": method.label, **row})
    return rows


def _searches(one: Identification) -> Iterator[dict[str, Any]]:
    for rank, rate in one.ranks.items():
        yield {"figure": f"rank {rank}", **_counted(rate)}
    for at in one.at:
        figure = {"figure": f"FNIR at FPIR {at.target:g}"}
        if at.supported:
            yield {**figure, **_counted(at.fnir)}
        else:
            yield {**figure, "note": lacking(at.target, one.non_mated, "non-mated search", "non-mated searches")}


def _counted(rate: Rate) -> dict[str, Any]:
    return {
        "value": _known(rate.value),
        "interval": interval(rate.low, rate.high),
        "counted": rate.errors,
        "searches": rate.trials,
    }


def csv_text(evaluation: Evaluation) -> str:
    """Return the rows of csv_rows as the text of a CSV file, lines ending in a newline."""
    text = StringIO()
    writer = csv.DictWriter(text, CSV, lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_rows(evaluation))
    return text.getvalue()


def csv_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield a row for each rate, by the columns of CSV; None where a column says nothing of it, or the value is NaN.

    metric: FMR, FNMR, FRR or FAR at the FMR `target`; EER; FNMR of probes of `first` to `last` features at that
    target; hit rate within the first `target` ranks; FPIR or FNIR at the FPIR `target`; FTA. errors counts what value
    is a rate of: hits in a hit rate. low, high: the 95 % interval as in the results.
    """
    acquisition = evaluation.acquisition
    yield _row(metric="FTA", value=_known(acquisition.fta), errors=acquisition.probe_failures,
               trials=acquisition.probes)  # fmt: skip
    for method in evaluation.methods:
        for scored in method.scored:
            named = {"method": method.label, "scores": scored.scores}
            for row in _verification(scored.verification):
                yield {**row, **named}
            for one in scored.identifications:
                for row in _identification(one):
                    yield {**row, **named, "gallery": one.gallery}


def _verification(one: Verification) -> Iterator[dict[str, Any]]:
    yield _row(metric="EER", threshold=_known(one.eer_threshold), value=_known(one.eer), low=_known(one.eer_low),
               high=_known(one.eer_high))  # fmt: skip
    for at in one.at:
        where = {"target": at.target, "threshold": _known(at.threshold), "supported": at.supported}
        for metric, rate in (("FMR", at.fmr), ("FNMR", at.fnmr), ("FRR", at.frr), ("FAR", at.far)):
            yield _row(metric=metric, **where, **_values(rate))
    for size in one.by_size:
        for at, rate in zip(one.at, size.fnmr, strict=True):
            where = {"target": at.target, "threshold": _known(at.threshold), "supported": at.supported}
            yield _row(metric="FNMR", first=size.first, last=size.last, **where, **_values(rate))


def _identification(one: Identification) -> Iterator[dict[str, Any]]:
    for rank, rate in one.ranks.items():
        yield _row(metric="hit rate", target=rank, **_values(rate))
    for at in one.at:
        where = {"target": at.target, "threshold": _known(at.threshold), "supported": at.supported}
        for metric, rate in (("FPIR", at.fpir), ("FNIR", at.fnir)):
            yield _row(metric=metric, **where, **_values(rate))


def _row(**values: Any) -> dict[str, Any]:
    return {**dict.fromkeys(CSV), **values}


def _values(rate: Rate) -> dict[str, Any]:
    return {
        "value": _known(rate.value),
        "errors": rate.errors,
        "trials": rate.trials,
        "low": _known(rate.low),
        "high": _known(rate.high),
    }


def lacking(target: float, there: int, noun: str, plural: str = "") -> str:
    """Return what a target needs that the data do not have: "needs 1,000,000 non-mated comparisons, has 4,000"."""
    return f"needs {count(needed(target), noun, plural)}, has {there:,}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
