"""`pfstore schedule`: what is due when, and a refresh that is asked for now."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def scheduled(folder: Path, run: Run) -> Path:
    """A folder with a schedule for a gallery that is filled."""
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text() + '\n[schedules.nightly]\ngallery = "staff"\ncron = "0 3 * * *"\n')
    assert run("backfill", "staff").code == 0
    return folder


def test_one_that_never_ran(scheduled: Path, run: Run) -> None:
    [one] = run("schedule", "list", "--json").json
    assert (one["name"], one["gallery"], one["cron"]) == ("nightly", "staff", "0 3 * * *")
    assert (one["last_run"], one["result"], one["run"]) == (None, None, None)
    following = datetime.fromisoformat(one["next_run"])
    assert following > datetime.now(UTC)
    assert (following.hour, following.minute, following.utcoffset()) == (3, 0, datetime.now(UTC).utcoffset())
    assert "nightly" in run("schedule", "list").out


def test_now(scheduled: Path, run: Run) -> None:
    first = run("schedule", "run", "nightly")
    assert first.out == "schedule nightly: queued; no worker is alive: start one with `pfstore worker`\n"
    again = run("schedule", "run", "nightly", "--json").json
    assert again == {"schedule": "nightly", "queued": False, "workers": 0}
    assert run("worker", "--once", "--log", "text").code == 0
    [one] = run("schedule", "list", "--json").json
    assert one["result"] == "0 written, 30 unchanged, 0 removed, 0 rejected"
    assert one["finished_at"] >= one["last_run"]
    assert one["run"] == 2


def test_an_unknown_one(scheduled: Path, run: Run) -> None:
    said = run("schedule", "run", "nightl")
    assert said.code == 3
    assert "there is no schedule 'nightl'; did you mean nightly" in said.err


def test_none_at_all(folder: Path, run: Run) -> None:
    assert run("schedule", "list", "--json").json == []
    assert run("schedule", "list").code == 0
