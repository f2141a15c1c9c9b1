"""The first paragraph: what was found, in plain words that the figures carry."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from pfstore.evaluation.results import AtFmr, Evaluation, MethodResult, Rate, Scored
from pfstore.evaluation.selecting import (
    REFERENCE_FMRS,
    at_target,
    gallery_names,
    is_average,
    of_gallery,
    of_kind,
    reference_rows,
    score_kinds,
)
from pfstore.evaluation.tables import lacking
from pfstore.evaluation.wording import FEW_ERRORS, count, overlap, percent, spelt, target

Rated = tuple[MethodResult, Rate]


def summary(evaluation: Evaluation) -> list[str]:
    """Return sentences, in groups that make a paragraph each; of the first kind of scores only."""
    kinds = score_kinds(evaluation)
    if not kinds:
        return ["No method was evaluated."]
    methods = of_kind(evaluation, kinds[0])
    paragraphs = [
        [_compared(evaluation, methods[0][1], kinds[0])],
        [*_verified(methods), *_picked(evaluation, methods), *_out_of_reach(methods[0][1])],
        [*_identified(evaluation, kinds[0])],
        [*_acquired(evaluation, methods)],
    ]
    return [" ".join(sentences) for sentences in paragraphs if sentences]


def _compared(evaluation: Evaluation, scored: Scored, kind: str) -> str:
    number = len(evaluation.methods)
    one, acquisition = scored.verification, evaluation.acquisition
    return (
        f"{spelt(number).capitalize()} {'method was' if number == 1 else 'methods were'} evaluated on "
        f"{evaluation.experiment}, with features of {evaluation.extractor}: "
        f"{count(one.mated, 'mated comparison')} and {count(one.non_mated, 'non-mated comparison')} of "
        f"{count(acquisition.probes, 'probe')} with {count(acquisition.references, 'reference')}. What follows is of "
        f"{kind} scores."
    )


def _verified(methods: Sequence[tuple[MethodResult, Scored]]) -> Iterator[str]:
    fmr, fnmr = "a false match rate (FMR) of", "false non-match rate (FNMR)"
    for place in reference_rows(methods[0][1]):
        at = methods[0][1].verification.at[place]
        rated = [(method, scored.verification.at[place].fnmr) for method, scored in methods]
        yield from _compared_rates(rated, f"At {fmr} {target(at.target)},", fnmr, least=True)
        yield from _few(at)
        fmr, fnmr = "FMR", "FNMR"


def _compared_rates(rated: Sequence[Rated], where: str, what: str, *, least: bool) -> Iterator[str]:
    """Say which method has the best rate and whether its interval is apart from averaging's."""
    order: Callable[[Rated], float] = lambda one: one[1].value if least else -one[1].value  # noqa: E731
    best, rate = min(rated, key=order)
    average = next((one for one in rated if is_average(one[0])), None)
    word = "lowest" if least else "highest"
    if len(rated) == 1:
        yield f"{where} the {what} of {best.label} is {_told(rate)}."
    elif average is None:
        yield f"{where} {best.label} has the {word} {what}: {_told(rate)}."
    elif order(average) <= order((best, rate)):
        yield f"{where} no method has a {word.replace('est', 'er')} {what} than averaging: {_told(average[1])}."
    else:
        yield f"{where} {best.label} has the {word} {what}: {_told(rate)}; averaging has {_told(average[1])}."
        yield _overlap(rate, average[1])


def _told(rate: Rate) -> str:
    counts = f"{rate.errors:,} of {rate.trials:,}"
    if math.isnan(rate.low):
        return f"{percent(rate.value)} ({counts}, without an interval)"
    return f"{percent(rate.value)} (95 % interval {percent(rate.low)} to {percent(rate.high)}; {counts})"


def _overlap(one: Rate, other: Rate) -> str:
    if math.isnan(one.low) or math.isnan(other.low):
        return "Without intervals, nothing is shown of which is better."
    if overlap((one.low, one.high), (other.low, other.high)):
        return "The two intervals overlap, so these data do not show that one is better."
    return "The two intervals do not overlap."


def _few(at: AtFmr) -> Iterator[str]:
    if at.fmr.errors < FEW_ERRORS:
        yield f"Only {count(at.fmr.errors, 'false match', 'false matches')} set that threshold, so it is a rough one."


def _picked(evaluation: Evaluation, methods: Sequence[tuple[MethodResult, Scored]]) -> Iterator[str]:
    if len(methods) > 2 and reference_rows(methods[0][1]):
        yield (
            f"The best of {spelt(len(evaluation.methods))} was picked on the comparisons that it is reported on, so "
            "its rate is somewhat optimistic."
        )


def _out_of_reach(scored: Scored) -> Iterator[str]:
    one = scored.verification
    asked = [at_target(scored, fmr) for fmr in REFERENCE_FMRS if fmr in {at.target for at in one.at}]
    for at in asked:
        if not at.supported:
            need = lacking(at.target, one.non_mated, "non-mated comparison")
            yield f"An FMR of {target(at.target)} cannot be told from these data: it {need}."
    if not one.mated:
        yield "There are no mated comparisons, so there is no false non-match rate."


def _identified(evaluation: Evaluation, kind: str) -> Iterator[str]:
    for gallery in gallery_names(evaluation):
        searched = [pair for pair in of_gallery(evaluation, kind, gallery) if 1 in pair[1].ranks and pair[1].mated]
        if searched:
            enrolled = searched[0][1].enrolled
            where = f"In identification against {gallery} ({count(enrolled, 'subject')} enrolled),"
            rated = [(method, one.ranks[1]) for method, one in searched]
            yield from _compared_rates(rated, where, "hit rate at rank 1", least=False)


def _acquired(evaluation: Evaluation, methods: Sequence[tuple[MethodResult, Scored]]) -> Iterator[str]:
    acquisition = evaluation.acquisition
    if not acquisition.probe_failures:
        yield "Every probe gave a feature: there are no failures to acquire (FTA)."
        return
    yield (
        f"{acquisition.probe_failures:,} of {count(acquisition.probes, 'probe')} gave no feature: a failure-to-acquire "
        f"rate (FTA) of {percent(acquisition.fta)}."
    )
    for place in reference_rows(methods[0][1])[:1]:
        rows = [(method, scored.verification.at[place]) for method, scored in methods]
        best, at = min(rows, key=lambda one: one[1].fnmr.value)
        yield (
            f"With these counted as rejected, the false reject rate (FRR) of {best.label} at FMR {target(at.target)} "
            f"is {percent(at.frr.value)}."
        )
