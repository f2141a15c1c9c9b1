from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from pfstore.errors import ConfigError
from pfstore.evaluation.plots import figures
from pfstore.evaluation.plots.curves import thinned
from pfstore.evaluation.plots.styles import AVERAGE, DARK, FAINT, INK, PAPER, SERIES, SHADE, drawable, styles
from pfstore.evaluation.results import Curve, Evaluation
from tests.evaluation import made_up

ALL = ["intervals", "det", "roc", "sizes", "scores", "cmc", "fpir"]


def names(evaluation: Evaluation) -> list[str]:
    made = figures(evaluation)
    for figure in made.values():
        figure.draw_without_rendering()
    return list(made)


def test_every_kind_of_scores_has_every_figure() -> None:
    made = made_up.evaluation({"average": 4, "other": 5}, kinds=("raw", "cohort"))
    assert names(made) == [f"{name}-{kind}" for kind in ("raw", "cohort") for name in ALL]


def test_one_method_in_two_galleries_has_a_panel_for_each() -> None:
    made = figures(made_up.evaluation({"only": 4}, galleries=("G1", "G2")))
    assert [axes.get_title("left") for axes in made["cmc-raw"].axes] == ["G1, N = 491", "G2, N = 491"]
    assert len(made["fpir-raw"].axes) == 2


def test_what_has_no_trials_is_left_out() -> None:
    assert names(made_up.evaluation({"a": 4}, galleries=(), by_size=False)) == [
        "intervals-raw", "det-raw", "roc-raw", "scores-raw",
    ]  # fmt: skip
    assert names(made_up.evaluation({"a": 4}, non_mated=0, non_mated_searches=0)) == ["scores-raw", "cmc-raw"]
    assert names(made_up.evaluation({"a": 4}, mated=0, by_size=False)) == ["scores-raw"]
    assert names(made_up.evaluation({"a": 4}, mated=0, non_mated=0, galleries=(), by_size=False)) == []


def test_rates_without_intervals_are_drawn() -> None:
    made = made_up.evaluation({"a": 4, "b": 5})
    assert names(made_up.without_intervals(made)) == names(made)


@pytest.mark.parametrize("name", ["det-raw", "roc-raw"])
def test_curves_pass_through_the_figures_of_the_table(name: str) -> None:
    made = made_up.evaluation({"average": 4.2, "other": 5})
    (axes,) = figures(made)[name].axes
    curves = [line for line in axes.get_lines() if line.get_drawstyle() == "steps-post"]
    assert len(curves) == 2
    for line, method in zip(curves, made.methods, strict=True):
        x, y = (np.asarray(data, dtype=float) for data in line.get_data())
        assert (np.diff(x) > 0).all()
        for at in method.scored[0].verification.at[2:5]:
            drawn = y[np.searchsorted(x, at.fmr.value * (1 + 1e-9), side="right") - 1]
            assert drawn == pytest.approx(at.fnmr.value if name == "det-raw" else at.tar, rel=0.01)


def test_of_equal_false_match_rates_the_least_threshold_is_drawn() -> None:
    curve = Curve(np.arange(5.0), np.array([0.5, 0.1, 0.1, 0.0, 0.0]), np.array([0.0, 0.2, 0.3, 0.4, 0.9]))
    x, y = thinned(curve, log_y=False)
    assert x.tolist() == pytest.approx([1e-12, 0.1, 0.5])
    assert y.tolist() == [0.4, 0.2, 0.0]


def test_points_that_look_alike_are_drawn_once() -> None:
    x = np.geomspace(1e-6, 1, 100_000)
    curve = Curve(np.zeros(len(x)), x, 1 - x)
    kept, values = thinned(curve, log_y=True)
    assert len(kept) < 4_000
    assert (kept[0], kept[-1]) == (x[0], x[-1])
    at = np.searchsorted(kept, x, side="right") - 1
    assert np.abs(np.log10(kept[at] / x)).max() < 0.005
    assert np.abs(values[at] - (1 - x)).max() < 0.02


def test_labels_are_text_of_signs_that_the_font_has() -> None:
    long = "run-" + "x" * 60
    labels = ["$x^2$", "_hidden", "中文", "文中", "tab\there", long + "1", long + "2", "中文\u2003(2)"]
    shown = drawable(labels)
    assert shown[:5] == ["$x^2$", "_hidden", "□□", "□□\u2003(2)", "tab\\there"]
    assert shown[5].endswith("x1")
    assert shown[6].endswith("x2")
    assert len(set(shown)) == len(shown)
    made = made_up.evaluation(dict.fromkeys(labels, 4.5), mated=200, non_mated=2_000)
    figure = figures(made)["det-raw"]
    figure.draw_without_rendering()
    assert sorted(text.get_text() for text in figure.legends[0].get_texts()) == sorted(shown)


def test_methods_are_told_apart_without_colour() -> None:
    made = made_up.evaluation({str(number): 4 for number in range(20)}, mated=50, non_mated=200, by_size=False)
    looks = [(style.color, str(style.dash), style.mark) for style in styles(made).values()]
    assert len(set(looks)) == 20
    assert looks[0][0] == AVERAGE
    assert all(one[1:] != other[1:] for one, other in itertools.pairwise(looks))


def luminance(color: str) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color)]
    return float(np.dot(parts, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag_on_light_and_dark() -> None:
    for color in (INK, FAINT, AVERAGE, *SERIES):
        for ground in (PAPER, SHADE):
            assert contrast(color, ground) >= 4.5
            assert contrast(DARK[color], DARK[ground]) >= 4.5


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'pfstore\[report\]'"):
        figures(made_up.evaluation({"a": 4}))


def test_nothing_heavy_is_imported_before_it_is_needed_and_pyplot_never() -> None:
    code = """
import sys
import pfstore.evaluation.plots, pfstore.evaluation.report, pfstore.evaluation.tables
assert not {"matplotlib", "jinja2", "torch", "h5py"} & set(sys.modules)
import pfstore.evaluation.report.page, pfstore.evaluation.plots.curves
assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sizes_that_a_method_lacks_are_a_gap() -> None:
    made = made_up.evaluation({"average": 4, "other": 5})
    first = made.methods[0].scored[0]
    fewer = replace(first.verification, by_size=first.verification.by_size[1:])
    lacking = replace(made.methods[0], scored=[replace(first, verification=fewer)])
    axes = figures(replace(made, methods=[lacking, made.methods[1]]))["sizes-raw"].axes[0]
    assert [text.get_text().partition("\n")[0] for text in axes.get_xticklabels()] == ["1", "2–3", "4–9", "10+"]
    points = [len(np.asarray(line.get_xdata())) for line in axes.get_lines() if line.get_linewidth() == 0.8]
    assert points == [3, 4]
