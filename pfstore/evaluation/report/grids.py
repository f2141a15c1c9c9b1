"""The tables of the page, as rows of cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pfstore.evaluation.results import Acquisition, AtFmr, Evaluation, Identification, MethodResult, Rate, Scored
from pfstore.evaluation.selecting import Band, bands, of_band, reference_rows
from pfstore.evaluation.wording import (
    DASH,
    FEW_ERRORS,
    count,
    decimal,
    needed,
    overlap,
    size,
    target,
    wilson,
)


@dataclass(frozen=True)
class Cell:
    """A value with its interval and counts, or text.

    is_few: fewer than 30 errors are behind it. by_rule: the rule of three is in the interval. needs: how many
    trials the target needs, in place of a value that cannot be told.
    """

    text: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    errors: int | None = None
    trials: int | None = None
    is_few: bool = False
    by_rule: bool = False
    is_best: bool = False
    needs: int | None = None


@dataclass(frozen=True)
class Row:
    """The cells of a method."""

    label: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Grid:
    """A table. heads: of the columns after the first. groups: rows under a title, which may be "". number: its own."""

    title: str
    caption: str
    heads: Sequence[str]
    groups: Sequence[tuple[str, Sequence[Row]]]
    first: str = "Method"
    is_of_words: bool = False
    number: int = 0


Methods = Sequence[tuple[MethodResult, Scored]]
Searched = Sequence[tuple[MethodResult, Identification]]


def of_rate(rate: Rate, *, is_few: bool = False) -> Cell:
    """A rate with its interval and counts."""
    low, high = _known(rate.low), _known(rate.high)
    by_rule = low is not None and rate.errors in (0, rate.trials)
    text = "" if rate.trials else "no trials"
    return Cell(text, _known(rate.value), low, high, rate.errors, rate.trials, is_few, by_rule)


def of_number(value: float) -> Cell:
    """A number alone."""
    return Cell(text=decimal(value), value=_known(value))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def fnmr(methods: Methods) -> Grid:
    """FNMR at each target FMR, and the EER."""
    one = methods[0][1].verification
    columns = [_marked([_fnmr_cell(scored.verification.at[place]) for _, scored in methods]) for place in _places(one)]
    columns.append([_eer(scored) for _, scored in methods])
    return Grid(
        "FNMR at fixed FMR, and EER.",
        "Below each rate stand its 95 % interval and its counts. Of "
        f"{count(one.mated, 'mated comparison')} and {count(one.non_mated, 'non-mated comparison')}.",
        [*(f"FMR ≤ {target(at.target)}" for at in one.at), "EER"],
        [("", _rows([method for method, _ in methods], columns))],
    )


def _places(one: Any) -> range:
    return range(len(one.at))


def _fnmr_cell(at: AtFmr) -> Cell:
    if not at.supported:
        return Cell(needs=needed(at.target))
    return of_rate(at.fnmr, is_few=min(at.fmr.errors, at.fnmr.errors) < FEW_ERRORS)


def _eer(scored: Scored) -> Cell:
    one = scored.verification
    return Cell("", _known(one.eer), _known(one.eer_low), _known(one.eer_high))


def operating_points(methods: Methods, title: str) -> Grid:
    """Every rate at each target FMR, failures to acquire included where the standard includes them."""
    groups = []
    for place in _places(methods[0][1].verification):
        at = methods[0][1].verification.at[place]
        if any(scored.verification.at[place].supported for _, scored in methods):
            rows = [Row(method.label, _point(scored.verification.at[place])) for method, scored in methods]
            groups.append((f"FMR ≤ {target(at.target)}", rows))
    return Grid(
        f"Verification{title}.",
        "FRR and FAR are FNMR and FMR with failures to acquire.",
        ["Threshold", "FMR", "FNMR", "TAR", "FRR", "FAR"],
        groups,
    )


def _point(at: AtFmr) -> list[Cell]:
    if not at.supported:
        return [Cell(needs=needed(at.target)), *[Cell()] * 5]
    rates = [at.fmr, at.fnmr, complement(at.fnmr), at.frr, at.far]
    return [of_number(at.threshold), *map(of_rate, rates)]


def complement(rate: Rate) -> Rate:
    """What a rate is not: of FNMR the TAR, with its interval."""
    return Rate(rate.trials - rate.errors, rate.trials, 1 - rate.high, 1 - rate.low)


def sizes(methods: Methods, title: str) -> Grid:
    """FNMR by the size of the probe's set, at the reference FMRs."""
    every = bands(methods)
    groups = []
    for place in reference_rows(methods[0][1]) if every else []:
        columns = [_marked([_size_cell(scored, band, place) for _, scored in methods]) for band in every]
        fmr = f"FMR ≤ {target(methods[0][1].verification.at[place].target)}"
        groups.append((fmr, _rows([method for method, _ in methods], columns)))
    return Grid(
        f"FNMR by size of the probe’s set{title}.",
        "At the thresholds that all probes together set.",
        [f"{size(band)} {'feature' if band == (1, 1) else 'features'}" for band in every],
        groups,
    )


def _size_cell(scored: Scored, band: Band, place: int) -> Cell:
    rate = of_band(scored, band, place)
    return Cell() if rate is None else of_rate(rate)


def identification(gallery: str, searched: Searched) -> Grid:
    """Hit rates by rank, and FNIR at each target FPIR."""
    one = searched[0][1]
    hits = [_marked([of_rate(each.ranks[rank]) for _, each in searched], highest=True) for rank in one.ranks]
    misses = [_marked([_fnir_cell(each, place) for _, each in searched]) for place in range(len(one.at))]
    return Grid(
        f"Against {gallery}, N = {one.enrolled:,}.",
        f"Hit rates by rank, FNIR at fixed FPIR. Of {count(one.mated, 'mated search', 'mated searches')} and "
        f"{count(one.non_mated, 'non-mated search', 'non-mated searches')}; "
        f"{count(one.failures, 'failure')} to acquire among the mated.",
        [*(f"rank {rank}" for rank in one.ranks), *(f"FNIR at FPIR ≤ {at.target:g}" for at in one.at)],
        [("", _rows([method for method, _ in searched], [*hits, *misses]))],
    )


def _fnir_cell(one: Identification, place: int) -> Cell:
    at = one.at[place]
    if not at.supported:
        return Cell(needs=needed(at.target))
    return of_rate(at.fnir, is_few=min(at.fpir.errors, at.fnir.errors) < FEW_ERRORS)


def search_points(gallery: str, searched: Searched, title: str) -> Grid:
    """Threshold, FPIR and FNIR at each target FPIR."""
    groups = []
    for place, first in enumerate(searched[0][1].at):
        if first.supported:
            rows = []
            for method, one in searched:
                at = one.at[place]
                cells = [of_number(at.threshold), of_rate(at.fpir), of_rate(at.fnir)]
                within = "all N" if at.rank is None else f"{at.rank:,}"
                rows.append(Row(method.label, [*cells, Cell(within), Cell(f"{at.failures:,}")]))
            groups.append((f"FPIR ≤ {first.target:g}", rows))
    return Grid(
        f"Identification{title}, gallery {gallery}.",
        "Failures to acquire count as misses in FNIR.",
        ["Threshold", "FPIR", "FNIR", "Ranks R", "Failures"],
        groups,
    )


def acquisition(one: Acquisition) -> Grid:
    """How many samples gave no feature."""
    kinds = (("Probes", one.probes, one.probe_failures), ("References", one.references, one.reference_failures))
    rows = [
        Row(name, [Cell(f"{all_:,}"), replace(of_rate(wilson(failed, all_)), by_rule=False)])
        for name, all_, failed in kinds
    ]
    return Grid(
        "Acquisition.",
        "Samples without a usable feature: failures to acquire (FTA) of probes, to enrol of references.",
        ["Samples", "Failure rate"],
        [("", rows)],
        first="Kind",
    )


def methods(evaluation: Evaluation) -> Grid:
    """What each method is: the contract that its templates keep."""
    heads = [
        "Model", "Strategy", "Values per template", "Experts", "Input", "Features per second", "Origin",
        "Model digest",
    ]  # fmt: skip
    return Grid(
        "Methods.",
        "Time is that of fusing alone, on the machine of this run.",
        heads,
        [("", [Row(one.label, _method(one)) for one in evaluation.methods])],
        is_of_words=True,
    )


def _method(one: MethodResult) -> list[Cell]:
    model = one.model
    experts = f"{model.get('selected')} of {model['experts']}" if model.get("experts") else DASH
    pace = f"{one.features / one.seconds:,.0f}" if one.seconds > 0 else DASH
    return [
        Cell(str(model.get("name", model.get("kind", DASH)))),
        Cell(one.strategy),
        Cell(f"{one.values:,}"),
        Cell(experts),
        Cell(str(model.get("normalisation", DASH))),
        Cell(pace),
        Cell(str(model.get("origin", DASH))),
        Cell(str(model.get("digest", DASH))),
    ]


def _rows(methods: Sequence[MethodResult], columns: Sequence[Sequence[Cell]]) -> list[Row]:
    return [Row(method.label, [column[number] for column in columns]) for number, method in enumerate(methods)]


def _marked(column: Sequence[Cell], *, highest: bool = False) -> list[Cell]:
    """Mark the best of several rates and those whose interval has a value in common with the best one's."""
    known = [one for one in column if one.value is not None and one.trials]
    if len(known) < 2:
        return list(column)
    choose: Callable[..., Cell] = max if highest else min
    best = choose(known, key=lambda one: one.value)
    return [replace(one, is_best=one in known and (one is best or _overlap(one, best))) for one in column]


def _overlap(one: Cell, other: Cell) -> bool:
    if one.value == other.value:
        return True
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return overlap((one.low, one.high), (other.low, other.high))
