from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import process


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    folder = tmp_path / "shown"
    result = process("demo", folder, "--subjects", "600", "--json")
    assert result.code == 0, result.err
    found = result.json
    assert found["subjects"] == 600
    assert all(0.7 < one["rank_1"] <= 1 for one in found["galleries"].values())
    # What it leaves behind can be gone on with by hand.
    done = process("--config", folder / "pfstore.toml", "status", "--json").json
    assert {one["gallery"]: one["templates"] for one in done["galleries"]} == {"staff": 600, "staff-proxyfusion": 600}
    again = process("demo", folder)
    assert again.code == 3
    assert "is there already" in again.err
