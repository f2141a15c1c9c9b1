"""Text that comes from databases and goes to people."""

from __future__ import annotations


def visible(text: str) -> str:
    """Return text with its control characters spelt out: a key must neither break a table nor steer a terminal."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
