from __future__ import annotations

import pytest
from rich.console import Console

from pfstore.cli import output

ROWS = [{"gallery": "staff", "templates": 20_000, "score": 0.5}, {"gallery": "visitors", "templates": 7, "score": None}]


def _printed(width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(output, "stdout", lambda: Console(width=width))
    console = Console(width=width)
    with console.capture() as captured:
        console.print(output.table(ROWS, ("gallery", "templates", "score")))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_wide_terminal_has_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _printed(40, monkeypatch) == [
        "gallery   templates   score",
        "staff        20,000  0.5000",
        "visitors          7       –",
    ]


def test_a_narrow_one_has_blocks_and_no_torn_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _printed(22, monkeypatch)[:4] == ["gallery    staff", "templates  20,000", "score      0.5000", ""]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (True, "yes"), (1234567, "1,234,567"), (0.25, "0.2500"), (1.5e-6, "1.5e-06"), ("a", "a")],
)
def test_cells(value: object, text: str) -> None:
    assert output.cell(value) == text
