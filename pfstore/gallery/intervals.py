"""95 % intervals of error rates whose trials share persons.

Trials that share a person are not independent. n trials with the rate p and the variance V of that rate count as
n' = p * (1 - p) / V independent ones (the effective sample size: Schuckers, "Computational Methods in Biometric
Authentication", 2010), never more than n, and the interval is Wilson's (1927) of n' trials. A rate without errors is at
most 3/n with 95 % confidence (the rule of three, ISO/IEC 19795-1:2021).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pfstore.features import Offsets

Z = 1.959963984540054
"""The standard normal quantile of a two-sided interval of 95 %."""

Interval = tuple[float, float]


def of_comparisons(errors: Offsets, made: Offsets) -> Interval:
    """Return the interval of an FMR. errors, made: [P] int64, how many errors and comparisons each person is part of.

    Every comparison is of two persons, so it stands in two places. The variance is the dyadic-robust one (Aronow, Samii
    and Assenova, "Cluster-Robust Variance Estimation for Dyadic Data", Political Analysis 23, 2015): residuals summed
    by person, squared, less what that counts twice. A bootstrap over subjects estimates the same.
    """
    wrong, trials = int(errors.sum()) // 2, int(made.sum()) // 2
    if not wrong:
        return 0.0, min(1.0, 3 / trials)
    rate = wrong / trials
    independent = trials * rate * (1 - rate)
    residuals = errors - rate * made
    return _of_effective(rate, trials, max(independent, float(residuals @ residuals) - independent))


def of_searches(wrong: NDArray[np.bool_], persons: Offsets, shared: float = 1.0) -> Interval:
    """Return the interval of an FPIR. wrong: [R] bool, the searches that found somebody. persons: [R], whose they are.

    Searches of one person are a cluster: their residuals are summed, then squared. shared: the searches, on average,
    that one comparison is part of: 2 where all subjects of a gallery are searched in it.
    """
    trials = len(wrong)
    if not wrong.any():
        return 0.0, min(1.0, 3 * shared / trials)
    rate = float(wrong.mean())
    residuals = np.bincount(persons, weights=wrong - rate)
    return _of_effective(rate, trials, shared * max(trials * rate * (1 - rate), float(residuals @ residuals)))


def _of_effective(rate: float, trials: int, variance: float) -> Interval:
    """Return Wilson's interval; variance: of the number of errors."""
    if rate == 1:
        return max(0.0, 1 - 3 / trials), 1.0
    effective = trials * trials * rate * (1 - rate) / variance
    weight = 1 + Z * Z / effective
    middle = (rate + Z * Z / (2 * effective)) / weight
    half = Z * math.sqrt(rate * (1 - rate) / effective + Z * Z / (4 * effective * effective)) / weight
    return max(0.0, middle - half), min(1.0, middle + half)
