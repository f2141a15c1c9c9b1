"""How each number is made: what a reader must know to judge or repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pfstore.evaluation.results import Evaluation
from pfstore.evaluation.selecting import gallery_names, score_kinds
from pfstore.evaluation.wording import FEW_ERRORS

Definition = tuple[str, str]


def definitions(evaluation: Evaluation) -> Sequence[Definition]:
    """Return terms and what they mean here, those that this evaluation has figures of."""
    return [
        *_scores(evaluation),
        *_VERIFICATION,
        *(_IDENTIFICATION if gallery_names(evaluation) else []),
        ("95 % intervals", _intervals(evaluation.settings)),
        *_LIMITS,
    ]


def _scores(evaluation: Evaluation) -> list[Definition]:
    made = [
        (
            "Comparison score",
            "The cosine of two templates; higher is nearer. Each comparison is counted, none is sampled. A comparison "
            "matches where its score is at or above the "
            "threshold, so of equal scores none is decided in a method's favour.",
        )
    ]
    if "cohort" in score_kinds(evaluation):
        made.append(
            (
                "Cohort-normalised score",
                "A softmax over the scores of one probe with the whole gallery. Such a score depends on who else is "
                "enrolled, so a threshold on it holds for this gallery only; its figures stand apart from those of raw "
                "scores, and are the same for every method.",
            )
        )
    return made


_VERIFICATION: list[Definition] = [
    (
        "FMR, FNMR",
        "False match and false non-match rate: the share of completed non-mated comparisons that match, and of "
        "completed mated comparisons that do not (ISO/IEC 2382-37; ISO/IEC 19795-1:2021).",
    ),
    (
        "FNMR at an FMR",
        "Taken at the least threshold at which the share of non-mated comparisons that match is at most the target. "
        "Nothing is interpolated. The threshold is set on the very comparisons that are reported, unless the facts "
        "say otherwise; on other data the FMR at it will differ.",
    ),
    ("TAR", "True accept rate: 1 − FNMR, at the same threshold."),
    (
        "FTA",
        "Failure-to-acquire rate: the share of probes without a usable feature. Its interval is Wilson's score "
        "interval and takes samples as independent.",
    ),
    (
        "FRR, FAR",
        "False reject and false accept rate: FNMR and FMR with the comparisons that failures to acquire prevented. A "
        "mated one counts as rejected, a non-mated one as not accepted (ISO/IEC 19795-1:2021).",
    ),
    (
        "EER",
        "Equal error rate: of the two neighbouring scores between which FMR − FNMR changes its sign, that with the "
        "lesser sum of both is the threshold, and their mean there the EER (as in FVC2002). It tells little of an "
        "operating point at a low FMR.",
    ),
]

_IDENTIFICATION: list[Definition] = [
    (
        "Hit rate at rank k, CMC",
        "The share of mated searches whose mate is among the first k candidates of the whole gallery. Of equal scores "
        "the mate comes last.",
    ),
    (
        "FPIR",
        "False positive identification rate: the share of searches of subjects who are not enrolled that return "
        "anyone at or above the threshold. The threshold is the least at which it is at most the target.",
    ),
    (
        "FNIR",
        "False negative identification rate: the share of mated searches that do not return the mate at or above that "
        "threshold. Failures to acquire count as misses. Both rates hold for the N that is enrolled "
        "(ISO/IEC 19795-1:2021).",
    ),
]

_LIMITS: list[Definition] = [
    (
        "† few errors",
        f"Fewer than {FEW_ERRORS} errors are behind the rate or its threshold. Doddington's rule of 30: so many "
        "independent errors tell a rate to within 30 % with 90 % confidence (Doddington et al., Speech Communication "
        "31, 2000; ISO/IEC 19795-1).",
    ),
    (
        "‡ no errors",
        "A bootstrap of no errors bounds nothing. There the upper bound is at least that of the rule of three, 3/n "
        "with 95 % confidence, n being the subjects, or the pairs of subjects for non-mated comparisons (ISO/IEC "
        "19795-1:2021); likewise the lower bound where every trial is an error.",
    ),
    (
        "Needs n",
        "A target below one expected error cannot be told. Shown is the number of comparisons or searches that it "
        "needs at least, in place of a rate.",
    ),
    (
        "Bold",
        "The best rate of a column, and those whose intervals have a value in common with its interval. Of several "
        "methods the best was picked on the data that it is reported on, which is in its favour.",
    ),
]


def _intervals(settings: Mapping[str, Any]) -> str:
    replicates, seed = settings.get("replicates", settings.get("bootstrap")), settings.get("seed")
    drawn = f" of {replicates:,} replicates" if isinstance(replicates, int) else ""
    seeded = f" (seed {seed})" if seed is not None else ""
    return (
        f"Bootstrap over subjects{drawn}{seeded}: subjects are drawn with replacement, each with all that is theirs, "
        "as comparisons that share a subject are not independent (Bolle, Ratha and Pankanti, Computer Vision and Image "
        "Understanding 93, 2004). A non-mated comparison weighs the product of how often its two subjects were drawn. "
        "Thresholds are found anew in each replicate, so that their uncertainty is in the interval of FNMR and FNIR; "
        "those of FMR and FPIR are at the threshold that is reported. Galleries are held as they are in 1:N. Bounds "
        "are the 2.5 and 97.5 percentiles. Methods share the comparisons, so intervals that overlap do not show that "
        "two methods are alike."
    )
