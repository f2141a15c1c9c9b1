"""Whether the time of a change is so near that another change may come to bear the same."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

DOUBTFUL = timedelta(days=1)
"""How long after its time a change is not believed: clocks may differ, zones are not told, and what is written within
the same second bears the same time."""

_CENTURY = datetime(2001, 1, 1, tzinfo=UTC)
_UNITS = (1.0, 1e3, 1e6, 1e9)
_DAY = 86_400.0
_JULIAN = 2_440_587.5  # the Julian date of 1970


def is_doubtful(latest: object, now: datetime) -> bool:
    """Tell whether the latest change of a subject's rows is so new that another may bear the same time.

    latest: what a legacy system writes for a time: a time or a date, text that has a date in it, a number that counts
    from 1970 or 2001 or has the digits of a date. Anything else, as a counter or a UUID, is taken for what never
    comes twice; a number that could be near is doubted. Times without a zone are taken as of UTC; being hours off
    is what DOUBTFUL allows for.
    """
    if isinstance(latest, bytes | bytearray | memoryview):
        latest = bytes(latest).decode("ascii", "replace")
    if isinstance(latest, str):
        return _is_doubtful_text(latest.strip(), now)
    if isinstance(latest, datetime):
        return (latest if latest.tzinfo else latest.replace(tzinfo=UTC)) > now - DOUBTFUL
    if isinstance(latest, date):
        # Until the end of that day.
        return latest >= (now - DOUBTFUL).date()
    try:
        return _is_doubtful_number(float(latest), now)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


def _is_doubtful_text(text: str, now: datetime) -> bool:
    if text[:4].isdecimal() and text[4:5] == "-" == text[7:8]:
        # Most are long past, which is seen sooner than what time they are.
        return text[:10] >= (now - 2 * DOUBTFUL).date().isoformat()
    try:
        return _is_doubtful_number(float(text), now)
    except ValueError:
        return any(day in text.lower() for day in _spelt(now.date()))


@lru_cache(maxsize=8)
def _spelt(today: date) -> frozenset[str]:
    """Return how the days about today may be written but for ISO 8601."""
    spelt = set()
    for days in range(-2, 3):
        day = today + timedelta(days=days)
        numbers = ((day.day, day.month), (day.month, day.day))
        for mark in "./-":
            spelt |= {f"{a:{form}}{mark}{b:{form}}{mark}{day.year}" for a, b in numbers for form in ("", "02")}
            spelt |= {f"{day.year}{mark}{day.month:{form}}{mark}{day.day:{form}}" for form in ("", "02")}
        for month in (f"{day:%b}", f"{day:%B}"):
            for number in (f"{day.day}", f"{day.day:02}"):
                spelt |= {f"{number} {month} {day.year}", f"{number}-{month}-{day.year}"}
                spelt |= {f"{month} {number} {day.year}", f"{month} {number}, {day.year}"}
        spelt.add(f"{day:%Y%m%d}")
    return frozenset(one.lower() for one in spelt)


def _is_doubtful_number(number: float, now: datetime) -> bool:
    """Tell whether a number is a time that is near, by any of the ways to count times."""
    near, seconds = 2 * DOUBTFUL.total_seconds(), now.timestamp()
    since = (number / unit for unit in _UNITS)
    from_2001 = (number / unit + _CENTURY.timestamp() for unit in _UNITS)
    by_days = (number * 60, number * _DAY, (number - _JULIAN) * _DAY, (number - 25_569) * _DAY)
    if any(abs(time - seconds) < near for time in (*since, *from_2001, *by_days)):
        return True
    digits = f"{number:.0f}"
    return any(digits[:8] == f"{now + timedelta(days=days):%Y%m%d}" for days in range(-2, 3)) or any(
        len(digits) == 12 and digits[:6] == f"{now + timedelta(days=days):%y%m%d}" for days in range(-2, 3)
    )
