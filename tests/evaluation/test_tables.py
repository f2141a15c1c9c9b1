from __future__ import annotations

import csv
import math
from io import StringIO

import pytest

from pfstore.evaluation import tables, wording
from pfstore.evaluation.results import Evaluation, Rate
from tests.evaluation import made_up


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return made_up.evaluation(
        {"average": 4.2, "other": 5}, kinds=("raw", "cohort"), galleries=("G1", "G2"), non_mated=20_000
    )


def test_verification_rows(evaluation: Evaluation) -> None:
    rows = tables.verification_rows(evaluation)
    assert len(rows) == 2 * 2 * (len(made_up.FMRS) + 1)
    assert {key for row in rows for key in row} == set(tables.VERIFICATION)
    at = evaluation.methods[1].scored[1].verification.at[2]
    (row,) = [row for row in rows if (row["scores"], row["method"], row["fmr"]) == ("cohort", "other", 1e-3)]
    assert (row["threshold"], row["fnmr"], row["frr"]) == (at.threshold, at.fnmr.value, at.frr.value)
    assert (row["errors"], row["mated"], row["false_matches"], row["non_mated"]) == (
        at.fnmr.errors, 4_000, 20, 20_000,
    )  # fmt: skip
    assert row["interval"] == f"{at.fnmr.low:.4f} to {at.fnmr.high:.4f}"


def test_a_target_that_cannot_be_told_has_a_note_for_figures(evaluation: Evaluation) -> None:
    rows = [row for row in tables.verification_rows(evaluation) if row["fmr"] == 1e-5]
    assert len(rows) == 4
    for row in rows:
        assert row["note"] == "needs 100,000 non-mated comparisons, has 20,000"
        assert set(row) == {"scores", "fmr", "method", "note"}


def test_identification_rows(evaluation: Evaluation) -> None:
    rows = tables.identification_rows(evaluation)
    assert len(rows) == 2 * 2 * 2 * (3 + len(made_up.FPIRS))
    assert {key for row in rows for key in row} <= set(tables.IDENTIFICATION)
    one = evaluation.methods[0].scored[0].identifications[1]
    found = {row["figure"]: row for row in rows if (row["scores"], row["gallery"], row["method"]) == (
        "raw", "G2", "average",
    )}  # fmt: skip
    assert found["rank 5"]["counted"] == one.ranks[5].errors
    assert found["FNIR at FPIR 0.01"]["value"] == one.at[1].fnir.value
    few = tables.identification_rows(made_up.evaluation({"a": 4}, non_mated_searches=120))
    assert few[3] == {
        "scores": "raw", "gallery": "Gallery1", "method": "a", "figure": "FNIR at FPIR 0.003",
        "note": "needs 334 non-mated searches, has 120",
    }  # fmt: skip


def test_without_searches_there_are_no_rows() -> None:
    assert tables.identification_rows(made_up.evaluation({"a": 4}, galleries=())) == []
    rows = tables.identification_rows(made_up.evaluation({"a": 4}, non_mated_searches=0))
    assert [row["figure"] for row in rows] == ["rank 1", "rank 5", "rank 20"]


def test_csv_rows_hold_every_rate(evaluation: Evaluation) -> None:
    rows = list(tables.csv_rows(evaluation))
    assert {tuple(row) for row in rows} == {tables.CSV}
    at, sizes, ranks, searches = len(made_up.FMRS), len(made_up.BANDS), 3, len(made_up.FPIRS)
    assert len(rows) == 1 + 4 * (1 + 4 * at + sizes * at + 2 * (ranks + 2 * searches))
    for row in rows:
        if row["errors"] is not None:
            assert row["value"] == pytest.approx(row["errors"] / row["trials"], abs=0)
    keys = [tuple(row[name] for name in ("method", "scores", "gallery", "metric", "target", "first")) for row in rows]
    assert len(set(keys)) == len(keys)


def test_csv_rows_survive_a_file(evaluation: Evaluation) -> None:
    file = StringIO(newline="")
    writer = csv.DictWriter(file, tables.CSV)
    writer.writeheader()
    writer.writerows(tables.csv_rows(evaluation))
    file.seek(0)
    for read, row in zip(csv.DictReader(file), tables.csv_rows(evaluation), strict=True):
        for name in ("value", "low", "high", "threshold", "target"):
            assert (float(read[name]) if read[name] else None) == row[name]
        for name in ("errors", "trials", "first", "last"):
            assert (int(read[name]) if read[name] else None) == row[name]


def test_what_is_not_known_is_empty() -> None:
    rows = list(tables.csv_rows(made_up.evaluation({"a": 4}, non_mated=0, non_mated_searches=0)))
    assert not any(isinstance(value, float) and math.isnan(value) for row in rows for value in row.values())
    (eer,) = [row for row in rows if row["metric"] == "EER"]
    assert eer["value"] is None
    notes = {row["note"] for row in tables.verification_rows(made_up.evaluation({"a": 4}, non_mated=0))}
    assert "needs 1,000,000 non-mated comparisons, has 0" in notes
    assert "needs mated and non-mated comparisons" in notes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"), (1.0, "1.0000"), (0.12345, "0.1235"), (0.001, "0.0010"), (0.00021, "2.1×10⁻⁴"),
        (-0.25, "−0.2500"), (-1e-5, "−1.0×10⁻⁵"), (math.nan, "–"), (math.inf, "∞"), (-math.inf, "−∞"), (None, "–"),
    ],
)  # fmt: skip
def test_decimals(value: float | None, text: str) -> None:
    assert wording.decimal(value) == text


def test_words() -> None:
    assert [wording.target(value) for value in (0.1, 1e-3, 1e-6, 0.003, 0.05, 1.0)] == [
        "10⁻¹", "10⁻³", "10⁻⁶", "0.003", "0.05", "1",
    ]  # fmt: skip
    assert [wording.needed(value) for value in (0.1, 1e-3, 1e-6, 0.003, 0.3)] == [10, 1000, 1_000_000, 334, 4]
    assert [wording.percent(value) for value in (0.1862, 0.0498, 0.00092, 0.0, 1.0, math.nan)] == [
        "18.6 %", "4.98 %", "0.0920 %", "0.00 %", "100.0 %", "–",
    ]  # fmt: skip
    assert wording.count(1, "search", "searches") == "1 search"
    assert wording.count(1_000, "search", "searches") == "1,000 searches"
    assert [wording.spelt(number) for number in (1, 10, 11, 1_000)] == ["one", "ten", "11", "1,000"]
    assert [wording.listed(["a", "b", "c"][:number]) for number in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert [wording.size(band) for band in ((1, 1), (2, 3), (10, None))] == ["1", "2–3", "10+"]


@pytest.mark.parametrize(("errors", "trials"), [(0, 10), (5, 10), (10, 10), (37, 4037), (1, 1)])
def test_bounds_of_the_score_interval_are_the_rates_that_a_normal_test_just_keeps(errors: int, trials: int) -> None:
    made = wording.wilson(errors, trials)
    assert 0 <= made.low <= made.value <= made.high <= 1
    for bound, end in ((made.low, 0), (made.high, 1)):
        if bound != end:
            deviations = abs(made.value - bound) / math.sqrt(bound * (1 - bound) / trials)
            assert deviations == pytest.approx(1.959964, abs=1e-6)
    assert (made.low == 0) == (errors == 0)
    assert (made.high == 1) == (errors == trials)


def test_a_rate_of_nothing_has_no_interval() -> None:
    made = wording.wilson(0, 0)
    assert isinstance(made, Rate)
    assert math.isnan(made.low)
    assert math.isnan(made.high)
    assert wording.interval(made.low, made.high) == "–"
