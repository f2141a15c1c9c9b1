"""Numbers and names as a report prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pfstore.evaluation.results import Rate

FEW_ERRORS = 30
"""Doddington's rule of 30: so many errors tell a rate to within 30 % with 90 % confidence."""

DASH = "–"

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SMALL_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def decimal(value: float | None) -> str:
    """Return a rate or score to four places, a small one to two digits, "–" for what is not known."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"
    mantissa, _, exponent = text.partition("e")
    shown = f"{mantissa}×10{_superscript(int(exponent))}" if exponent else mantissa
    return shown.replace("-", "−")


def percent(value: float | None) -> str:
    """Return a rate in percent to three digits or so."""
    if value is None or not math.isfinite(value):
        return DASH
    scaled = 100 * value
    places = 1 if scaled >= 10 else 2 if scaled >= 0.1 or not scaled else 4
    return f"{scaled:.{places}f} %"


def target(value: float) -> str:
    """Return a target rate: 10⁻³ for a power of ten, else as a decimal: 0.003."""
    exponent = round(math.log10(value)) if value > 0 else 0
    if exponent < 0 and math.isclose(value, 10.0**exponent, rel_tol=1e-9):
        return f"10{_superscript(exponent)}"
    return f"{value:.6g}"


def _superscript(exponent: int) -> str:
    return str(exponent).translate(_SUPERSCRIPTS)


def needed(value: float) -> int:
    """The comparisons or searches that a target needs so that one error may be expected: 334 for 0.003."""
    # 1 / 1e-3 and its like are whole numbers but for rounding.
    return math.ceil(1 / value - 1e-6)


def count(number: int, noun: str, plural: str = "") -> str:
    """Return "1 method", "2 methods"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def spelt(number: int) -> str:
    """Return a small number as a word."""
    return _SMALL_NUMBERS[number] if number < len(_SMALL_NUMBERS) else f"{number:,}"


def size(band: tuple[int, int | None]) -> str:
    """Return "1", "2–3" or "10+" of the first and last number of features."""
    first, last = band
    if last is None:
        return f"{first:,}+"
    return f"{first:,}" if last == first else f"{first:,}–{last:,}"


def listed(parts: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two intervals have a value in common; so too where a bound is NaN, as nothing is shown then."""
    return not (one[1] < other[0] or other[1] < one[0])


def interval(low: float, high: float) -> str:
    """Return "0.0412 to 0.0533", or "–" where it is not known."""
    return DASH if math.isnan(low) or math.isnan(high) else f"{decimal(low)} to {decimal(high)}"


def wilson(errors: int, trials: int) -> Rate:
    """A rate with its 95 % score interval (Wilson 1927), its trials taken as independent."""
    if not trials:
        return Rate(0, 0, math.nan, math.nan)
    z = 1.959963984540054
    share, weight = errors / trials, 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / weight
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / weight
    # At either end the bound is 0 or 1, but for rounding.
    return Rate(errors, trials, middle - half if errors else 0.0, middle + half if errors < trials else 1.0)
