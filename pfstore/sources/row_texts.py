"""The keys of rows as text, made when a report asks for one: of most rows nobody ever does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload


@dataclass(frozen=True)
class RowTexts(Sequence[str]):
    """So many texts, each made when it is looked at. text_of: gives that of a row by its number."""

    length: int
    text_of: Callable[[int], str]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        places = range(self.length)[row]
        return self.text_of(places) if isinstance(places, int) else [self.text_of(place) for place in places]
