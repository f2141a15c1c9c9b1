"""An evaluation on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pfstore.cli import output
from pfstore.cli.app import plural
from pfstore.evaluation import selecting, tables, wording

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.evaluation.results import Evaluation, Identification, MethodResult, Rate

_KINDS = {"raw": "raw scores", "cohort": "cohort-normalised scores"}
_NARROW = ("at_FMR", "method", "FNMR", "95_%_interval", "threshold")
_WIDE = (*_NARROW, "errors", "mated", "FRR", "false_matches")
_WIDE_FROM = 120
"""Columns of a terminal that is wide."""


def shown(found: Evaluation, written: Mapping[str, str]) -> RenderableType:
    """Return the facts and the tables of each kind of scores. written: files, by what to call them."""
    parts: list[RenderableType] = [output.facts({**_facts(found), **written})]
    for kind in selecting.score_kinds(found):
        parts += ["", f"Verification (1:1), {_KINDS[kind]}", *_verification(found, kind)]
        for gallery in selecting.gallery_names(found):
            parts += _identification(selecting.of_gallery(found, kind, gallery), gallery, kind)
    return output.stacked(*parts)


def _facts(found: Evaluation) -> dict[str, Any]:
    taken, one = found.acquisition, found.methods[0].scored[0].verification
    fta = f" (FTA {wording.percent(taken.fta)})" if taken.probe_failures else ""
    part, parts, replicates = found.facts.get("part"), found.facts.get("parts"), found.settings.get("replicates")
    return {
        "experiment": found.experiment,
        "features": f"{found.extractor or 'extractor not told'}, {found.dimension} values",
        **({"part": f"{part} of {', '.join(f'{name} {value:g}' for name, value in parts.items())}"} if parts else {}),
        "references": f"{taken.references:,}, {plural(taken.reference_failures, 'failure')} to enrol",
        "probes": f"{taken.probes:,}, {plural(taken.probe_failures, 'failure')} to acquire{fta}",
        "comparisons": f"{one.mated:,} mated, {one.non_mated:,} non-mated",
        "intervals": f"95 %, bootstrap over subjects, {replicates:,} replicates" if replicates else "none",
    }


def _verification(found: Evaluation, kind: str) -> Iterator[RenderableType]:
    rows = [row for row in tables.verification_rows(found) if row["scores"] == kind]
    told = [_verified(row) for row in rows if "note" not in row]
    if told:
        yield output.table(told, _WIDE if output.stdout().width >= _WIDE_FROM else _NARROW)
    for fmr, note in dict.fromkeys((row["fmr"], row["note"]) for row in rows if "note" in row):
        yield f"{'' if fmr == 'EER' else 'FMR '}{_at(fmr)}: {note}"


def _verified(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "at_FMR": _at(row["fmr"]),
        "method": row["method"],
        "FNMR": row["fnmr"],
        "95_%_interval": row["interval"],
        "threshold": row["threshold"],
        "errors": row.get("errors"),
        "mated": row["mated"],
        "FRR": row.get("frr"),
        "false_matches": row.get("false_matches"),
    }


def _at(fmr: float | str) -> str:
    return fmr if isinstance(fmr, str) else f"{fmr:g}"


def _identification(
    searched: Sequence[tuple[MethodResult, Identification]], gallery: str, kind: str
) -> Iterator[RenderableType]:
    """Yield a gallery's tables, a row for each method; ranks are the same under every kind, so "raw" has them."""
    one = searched[0][1]
    where = f"Identification in {gallery} of {one.enrolled:,}"
    labels = [method.label for method, _ in searched]
    if kind == "raw" and one.ranks:
        yield from ("", f"{where}: hit rate of {wording.count(one.mated, 'mated search', 'mated searches')}")
        yield _table(labels, [{f"rank {rank}": rate for rank, rate in own.ranks.items()} for _, own in searched])
    supported = [place for place, at in enumerate(one.at) if at.supported]
    if supported:
        yield from ("", f"{where}, {_KINDS[kind]}: FNIR at FPIR, {one.mated:,} mated, {one.non_mated:,} non-mated")
        yield _table(labels, [{f"at {own.at[n].target:g}": own.at[n].fnir for n in supported} for _, own in searched])
    for at in one.at if kind == "raw" else ():
        if not at.supported:
            need = tables.lacking(at.target, one.non_mated, "non-mated search", "non-mated searches")
            yield f"FPIR {at.target:g} in {gallery}: {need}"


def _table(labels: Sequence[str], rates: Sequence[Mapping[str, Rate]]) -> RenderableType:
    rows = [
        {"method": label, **{name: _rate(rate) for name, rate in own.items()}}
        for label, own in zip(labels, rates, strict=True)
    ]
    return output.table(rows, tuple(rows[0]))


def _rate(rate: Rate) -> str:
    return f"{rate.value:.4f}" + ("" if math.isnan(rate.low) else f" {rate.low:.4f}–{rate.high:.4f}")
