"""The seconds of a job go to the stage that spent them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pfstore.stages import Profile, Stopwatch, measured, stage


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock finds it a second later."""
    ticks: Iterator[float] = iter(range(1000))
    monkeypatch.setattr("pfstore.stages.time.perf_counter", lambda: next(ticks))


def test_a_stage_within_another_interrupts_it() -> None:
    with measured() as watch, stage("waiting"), stage("decoding"):
        pass
    assert watch.seconds == {"waiting": 2, "decoding": 1}


def test_an_error_ends_a_stage() -> None:
    with measured() as watch:
        for _ in range(2):
            with pytest.raises(ValueError, match="x"), stage("fusing"):
                raise ValueError("x")
    assert watch.seconds == {"fusing": 2}


def test_nobody_measures() -> None:
    with stage("fusing"):
        pass
    with measured() as watch:
        pass
    assert watch.seconds == {}


def test_the_limit_is_in_the_thread_that_is_busiest() -> None:
    watches = [Stopwatch() for _ in range(3)]
    for watch, spent in zip(
        watches, ({"waiting": 3.0, "decoding": 4.0}, {"fusing": 6.0}, {"planning": 9.0}), strict=True
    ):
        watch.seconds.update(spent)
    profile = Profile.of(watches, 16.0, 80)
    assert profile.limit == "decoding"
    assert profile.rate("decoding") == 20
    assert profile.rate("writing") is None
    assert profile.as_dict()["stages"]["planning"] == 9
