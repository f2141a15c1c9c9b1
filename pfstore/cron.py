"""Cron lines: five fields, in UTC, as a machine's own time may be any and skips or repeats an hour twice a year."""

from __future__ import annotations

from datetime import UTC, datetime
from math import floor

FIELDS = ("minute", "hour", "day", "month", "weekday")


def checked(line: str) -> str:
    """Return a cron line with single spaces. Raises ValueError, saying why, where it is none or never comes."""
    from croniter import CroniterBadDateError, CroniterError, croniter

    fields = line.split()
    if len(fields) != len(FIELDS):
        raise ValueError(f"{line!r} is no cron line: five fields are needed ({', '.join(FIELDS)}), not {len(fields)}")
    # The library draws lots for these, in every process anew.
    if random := [field for field in fields if field[0] in "RrHh"]:
        raise ValueError(f"{line!r} is no cron line: {random[0]!r} stands for no time")
    plain = " ".join(fields)
    try:
        croniter(plain, 0.0).get_next(float)
    except CroniterBadDateError:
        raise ValueError(f"the cron line {line!r} never comes: there is no such date") from None
    except CroniterError as error:
        raise ValueError(f"{line!r} is no cron line: {error}") from None
    return plain


def latest(line: str, now: datetime) -> datetime:
    """Return the last moment at or before now at which a cron line was due."""
    from croniter import croniter

    # What is before a moment does not include the moment itself, and lines are due at whole minutes.
    return datetime.fromtimestamp(croniter(line, floor(now.timestamp()) + 0.5).get_prev(float), UTC)


def following(line: str, now: datetime) -> datetime:
    """Return the first moment after now at which a cron line is due."""
    from croniter import croniter

    return datetime.fromtimestamp(croniter(line, now.timestamp()).get_next(float), UTC)
