"""What stands in for the things that a pickle asks for by name: none of them is ever touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Unreadable(Exception):  # noqa: N818 - it says what the bytes are; nothing went wrong here
    """The bytes are no pickle that is read; the message says why in a few words."""


class Damaged(Unreadable):
    """The bytes are no pickle, or not a whole one."""


class Refused(Unreadable):
    """The pickle asks for something that is not read, or for more memory than its size justifies."""


@dataclass(frozen=True)
class Name:
    """A name in a pickle. text: "module.name". make: what is called in place of it, with the pickle's arguments."""

    text: str
    make: Callable[..., Any]


class Standin:
    """An object in the making: it has a name and waits for its state."""

    __slots__ = ()

    def build(self, _state: Any, /) -> Any:
        """Return the value that this object is with that state. Raises Refused."""
        raise Refused(f"sets the state of a {type(self).__name__}")


class Opaque(Standin):
    """A value that nobody looks at, such as a date in a frame: it keeps nothing."""

    __slots__ = ()

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def build(self, _state: Any, /) -> Any:
        """Return the same."""
        return self


def shown(value: object) -> str:
    """Return a value of a pickle for a message: text in quotes, of anything else the type, as it may be of any size."""
    return f"{value!r:.20}" if isinstance(value, str) else type(value).__name__


def not_made(*_: object) -> Any:
    """Refuse to make what may only be named."""
    raise Refused("makes something that it may only name")
