"""What stands below each figure: what it shows and how it was made."""

from __future__ import annotations

from pfstore.evaluation.results import Evaluation
from pfstore.evaluation.selecting import of_kind, reference_rows
from pfstore.evaluation.wording import FEW_ERRORS, listed, target

TITLES = {
    "intervals": "FNMR at fixed FMR, with intervals",
    "det": "Detection error trade-off (DET)",
    "roc": "Receiver operating characteristic (ROC)",
    "scores": "Distributions of scores",
    "sizes": "FNMR by size of the probe's set",
    "cmc": "Cumulative match characteristic (CMC)",
    "fpir": "Identification errors: FNIR against FPIR",
}

_STAIRS = "Lines are stairs as counted: nothing is interpolated or smoothed."

_SEARCHES = "Failures to acquire count as misses."


def caption(evaluation: Evaluation, kind: str, name: str) -> str:
    """Return a figure's caption by its name without the kind of scores, as "det"."""
    scored = of_kind(evaluation, kind)[0][1]
    one = scored.verification
    made_of = f"{one.mated:,} mated and {one.non_mated:,} non-mated comparisons"
    at = listed([target(one.at[place].target) for place in reference_rows(scored)])
    captions = {
        "intervals": "Mark: FNMR at the least threshold that keeps to the FMR. Bar: its 95 % interval over subjects.",
        "det": f"FNMR against FMR, both on log axes, of {made_of}. {_STAIRS} Marks stand at the target FMRs; in the "
        f"shaded range there are fewer than {FEW_ERRORS} false matches.",
        "roc": f"True accept rate (1 − FNMR) against FMR on a log axis, of the same {made_of}. {_STAIRS}",
        "scores": f"Of all {made_of}. Each bin's share of its own kind, on a log axis so that the tails that "
        f"make the errors can be seen. {_threshold(at)}",
        "sizes": f"FNMR of probes with so many features, at the threshold that all probes together set for FMR {at}. "
        "Bars: 95 % intervals over subjects. Below each size: its mated comparisons (of the first method).",
        "cmc": f"Share of mated searches whose mate is among the first candidates, by rank. {_SEARCHES} "
        "Marks stand at the ranks of the table.",
        "fpir": f"FNIR against FPIR, both on log axes, over all thresholds. {_STAIRS} {_SEARCHES} In the shaded "
        f"range there are fewer than {FEW_ERRORS} false positives.",
    }
    return captions[name]


def _threshold(at: str) -> str:
    return f"Dotted: the thresholds for FMR {at}." if at else "No FMR is supported, so no threshold is drawn."


def spoken(evaluation: Evaluation, kind: str, name: str) -> str:
    """Return what a screen reader says of a figure."""
    methods = of_kind(evaluation, kind)
    labels = listed([method.label for method, _ in methods])
    said = f"{TITLES[name]}, {kind} scores, of {labels}."
    if name not in ("intervals", "det", "roc"):
        return f"{said} The same figures are in the tables."
    places = reference_rows(methods[0][1])
    values = [
        f"{method.label} at FMR {at.target:g}: {at.fnmr.value:.4f}"
        for place in places
        for method, at in ((method, scored.verification.at[place]) for method, scored in methods)
    ]
    return f"{said} FNMR of {'; '.join(values)}." if values else said
