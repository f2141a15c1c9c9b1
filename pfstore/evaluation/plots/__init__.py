"""Figures of an evaluation: trade-off curves, ranks, intervals, scores, sizes of sets.

Only matplotlib's Figure is used, never pyplot, so threads may draw at once. Each figure is one column of panels,
narrow enough for a telephone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pfstore.errors import ConfigError
from pfstore.evaluation.results import Evaluation
from pfstore.evaluation.selecting import score_kinds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("intervals", "det", "roc", "sizes", "scores", "cmc", "fpir")
"""What is drawn of each kind of scores, in the order of a report."""


def check() -> None:
    """Raise ConfigError without matplotlib."""
    if find_spec("matplotlib") is None:
        raise ConfigError("drawing needs matplotlib: pip install 'pfstore[report]'")


def figures(evaluation: Evaluation) -> Mapping[str, Figure]:
    """Draw an evaluation: by name, as "det-raw" or "cmc-cohort", what there are figures for.

    "intervals": FNMR at fixed FMRs with intervals. "det", "roc": FNMR and TAR against FMR. "scores": histograms.
    "sizes": FNMR by the size of the probe's set. "cmc": hit rate by rank. "fpir": FNIR against FPIR.
    What has no trials, such as a DET without non-mated comparisons, is left out. Raises ConfigError without
    matplotlib.
    """
    check()
    from pfstore.evaluation.plots import counts, curves

    draw: Mapping[str, Callable[[Evaluation, str], Figure | None]] = {
        "intervals": counts.intervals,
        "det": curves.det,
        "roc": curves.roc,
        "scores": counts.scores,
        "sizes": counts.sizes,
        "cmc": curves.cmc,
        "fpir": curves.fpir,
    }
    made = {f"{name}-{kind}": draw[name](evaluation, kind) for kind in score_kinds(evaluation) for name in KINDS}
    return {name: figure for name, figure in made.items() if figure is not None}
