from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pfstore.evaluation.report.grids import fnmr, identification
from pfstore.evaluation.report.summary import summary
from pfstore.evaluation.results import (
    Acquisition,
    AtFmr,
    Curve,
    Evaluation,
    Histogram,
    Identification,
    MethodResult,
    Rate,
    Scored,
    Verification,
)
from pfstore.evaluation.selecting import of_kind
from tests.evaluation import made_up

NONE = np.empty(0)


def evaluated(rates: Mapping[str, Rate], *, false_matches: int = 100, supported: bool = True) -> Evaluation:
    """An evaluation at FMR 1e-3 alone; the method called "average" is averaging."""
    methods = []
    for label, rate in rates.items():
        at = AtFmr(1e-3, 0.5, made_up.rate(false_matches, 100_000), rate, rate, rate, supported=supported)
        histogram = Histogram(NONE, NONE.astype(np.int64), NONE.astype(np.int64))
        verification = Verification(1_000, 100_000, 0.02, 0.01, 0.03, 0.4, [at], Curve(NONE, NONE, NONE), histogram)
        model = made_up.AVERAGE if label == "average" else made_up.NETWORK
        methods.append(MethodResult(label, model, "media", 512, 1.0, 10, [Scored("raw", verification, [])]))
    return Evaluation("test", "adaface", 512, {}, [], Acquisition(500, 0, 50, 0), methods)


def told(evaluation: Evaluation) -> str:
    return " ".join(summary(evaluation))


def test_a_better_method_whose_interval_is_apart() -> None:
    text = told(evaluated({"average": Rate(91, 1000, 0.08, 0.1), "trained": Rate(47, 1000, 0.04, 0.055)}))
    assert text == (
        "Two methods were evaluated on test, with features of adaface: 1,000 mated comparisons and 100,000 non-mated "
        "comparisons of 500 probes with 50 references. What follows is of raw scores. "
        "At a false match rate (FMR) of 10⁻³, trained has the lowest false non-match rate (FNMR): 4.70 % (95 % "
        "interval 4.00 % to 5.50 %; 47 of 1,000); averaging has 9.10 % (95 % interval 8.00 % to 10.0 %; 91 of 1,000). "
        "The two intervals do not overlap. "
        "Every probe gave a feature: there are no failures to acquire (FTA)."
    )


def test_intervals_that_touch_show_nothing() -> None:
    text = told(evaluated({"average": Rate(91, 1000, 0.06, 0.1), "trained": Rate(47, 1000, 0.04, 0.06)}))
    assert "The two intervals overlap, so these data do not show that one is better." in text
    assert "do not overlap" not in text


def test_without_intervals_nothing_is_shown() -> None:
    made = evaluated({"average": Rate(91, 1000, 0.06, 0.1), "trained": Rate(47, 1000, 0.04, 0.05)})
    text = told(made_up.without_intervals(made))
    assert "4.70 % (47 of 1,000, without an interval)" in text
    assert "Without intervals, nothing is shown of which is better." in text
    assert "overlap" not in text


def test_averaging_may_be_best_or_as_good() -> None:
    for errors in (91, 95):
        text = told(evaluated({"trained": Rate(errors, 1000, 0.08, 0.1), "average": Rate(91, 1000, 0.08, 0.1)}))
        assert "no method has a lower false non-match rate (FNMR) than averaging: 9.10 %" in text
        assert "overlap" not in text


def test_several_methods_make_the_best_optimistic() -> None:
    rates = {label: Rate(errors, 1000, 0.01, 0.2) for label, errors in (("a", 50), ("b", 40), ("c", 60))}
    text = told(evaluated(rates))
    assert "b has the lowest false non-match rate (FNMR): 4.00 %" in text
    assert "averaging" not in text
    assert "The best of three was picked on the comparisons that it is reported on" in text


def test_one_method_is_compared_with_nothing() -> None:
    text = told(evaluated({"trained": Rate(50, 1000, 0.04, 0.06)}))
    assert text.startswith("One method was evaluated on test")
    assert "the false non-match rate (FNMR) of trained is 5.00 %" in text
    assert "lowest" not in text
    assert "picked" not in text


def test_few_false_matches_and_targets_out_of_reach_are_said() -> None:
    rates = {"trained": Rate(50, 1000, 0.04, 0.06)}
    assert "Only 29 false matches set that threshold" in told(evaluated(rates, false_matches=29))
    assert "Only" not in told(evaluated(rates, false_matches=30))
    text = told(evaluated(rates, supported=False))
    assert "An FMR of 10⁻³ cannot be told from these data: it needs 1,000 non-mated comparisons, has 100,000." in text
    assert "5.00 %" not in text


def test_failures_to_acquire_are_told_with_the_rate_that_counts_them() -> None:
    made = made_up.evaluation({"average": 4.2, "other": 5})
    at = made.methods[1].scored[0].verification.at[2]
    text = told(made)
    assert "37 of 4,037 probes gave no feature: a failure-to-acquire rate (FTA) of 0.92 %." in text
    assert f"the false reject rate (FRR) of other at FMR 10⁻³ is {100 * at.frr.value:.2f} %." in text


def test_identification_is_told_of_each_gallery() -> None:
    text = told(made_up.evaluation({"average": 3, "other": 6}, galleries=("G1", "G2")))
    for gallery in ("G1", "G2"):
        assert f"In identification against {gallery} (491 subjects enrolled), other has the highest hit rate" in text
    assert text.count("The two intervals do not overlap.") == 2 + 2


def test_bold_are_the_best_and_those_that_overlap_with_it() -> None:
    rates = {
        "average": Rate(91, 1000, 0.08, 0.1), "best": Rate(47, 1000, 0.04, 0.055), "near": Rate(60, 1000, 0.055, 0.07),
        "void": Rate(0, 0, float("nan"), float("nan")),
    }  # fmt: skip
    made = evaluated(rates)
    grid = fnmr(of_kind(made, "raw"))
    assert [row.cells[0].is_best for row in grid.groups[0][1]] == [False, True, True, False]
    alone = fnmr(of_kind(evaluated({"one": rates["best"]}), "raw"))
    assert not alone.groups[0][1][0].cells[0].is_best


def test_few_errors_and_the_rule_of_three_are_marked() -> None:
    rates = {"none": Rate(0, 1000, 0.0, 0.06), "few": Rate(29, 1000, 0.02, 0.04), "enough": Rate(30, 1000, 0.02, 0.04)}
    cells = [row.cells[0] for row in fnmr(of_kind(evaluated(rates), "raw")).groups[0][1]]
    assert [cell.is_few for cell in cells] == [True, True, False]
    assert [cell.by_rule for cell in cells] == [True, False, False]
    rough = fnmr(of_kind(evaluated(rates, false_matches=29), "raw"))
    assert [row.cells[0].is_few for row in rough.groups[0][1]] == [True, True, True]


def test_of_hit_rates_the_highest_is_best() -> None:
    def searched(hits: int) -> Identification:
        ranks = {1: Rate(hits, 100, hits / 100 - 0.01, hits / 100 + 0.01)}
        return Identification("G", 10, 100, 0, 0, ranks, np.array([hits / 100]), [], None)

    made = evaluated({"a": Rate(1, 10, 0, 1), "b": Rate(1, 10, 0, 1)})
    pairs = [(method, searched(hits)) for method, hits in zip(made.methods, (80, 90), strict=True)]
    rows = identification("G", pairs).groups[0][1]
    assert [row.cells[0].is_best for row in rows] == [False, True]


def test_no_mated_comparisons_are_said() -> None:
    made = made_up.evaluation({"a": 4}, mated=0, by_size=False, galleries=())
    assert "There are no mated comparisons, so there is no false non-match rate." in told(made)
    assert summary(replace(made, methods=[])) == ["No method was evaluated."]
