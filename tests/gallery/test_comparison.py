from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pfstore.errors import ConfigError, ConflictError, NotFoundError
from pfstore.features import Floats
from pfstore.fusion import ProxyFusionModel, random_model
from pfstore.gallery import comparison, galleries, models, thresholds
from pfstore.gallery.comparison import Comparison, Limits
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Contract, Version
from pfstore.gallery.held_out import Figure, HeldOut
from pfstore.gallery.thresholds import Threshold
from tests.gallery import hand_made

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AUTOMATIC = Threshold("fmr", 0.01, 0.25, 5000, 0.008, 0.0125, 101, "made up", True, NOW)
CALIBRATED = replace(AUTOMATIC, automatic=False)
PEOPLE = hand_made.strangers(40)


def _version(
    connection: Connection, templates: Mapping[str, Floats], model: str, extractor: str = "test-extractor"
) -> Version:
    """Make a version of this model beside others, calibrated and not promoted."""
    registered = models.resolve(connection, model)
    contract = Contract(extractor, len(next(iter(templates.values()))), "unit", registered.digest, "set")
    made = galleries.ensure(connection, "staff", contract, blocks=1)
    hand_made.add(connection, made, templates)
    thresholds.replace(connection, made, [CALIBRATED])
    return galleries.version(connection, "staff", made.number)


def _two(
    connection: Connection, new: Mapping[str, Floats], old: Mapping[str, Floats], **more: Any
) -> tuple[Version, Version]:
    before = _version(connection, old, "average")
    before = galleries.promote(connection, "staff", before.number, force=True)
    return _version(connection, new, "norm-weighted", **more), before


def _mixed_up(templates: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the templates, each under the key of another subject."""
    return dict(zip(templates, np.roll(np.array(list(templates.values())), 1, axis=0), strict=True))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    less = (values[None] < values[:, None]).sum(axis=1).astype(np.float64)
    equal = (values[None] == values[:, None]).sum(axis=1)
    ranks: NDArray[np.float64] = less + (equal + 1) / 2
    return ranks


def test_who_is_in_which_version(connection: Connection) -> None:
    old = {name: PEOPLE[name] for name in list(PEOPLE)[:30]}
    new = {name: PEOPLE[name] for name in list(PEOPLE)[9:]}
    found = comparison.compare(connection, *_two(connection, new, old)).coverage
    assert (found.both, found.only_new, found.only_old) == (21, 10, 9)
    assert (found.new, found.old, found.lacks) == (31, 30, 0.3)
    assert found.lacking == ["s0000", "s0001", "s0002", "s0003", "s0004"]
    assert (found.features_new, found.features_old) == (31, 30)


def test_scores_are_compared_within_each_version(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfstore.gallery.agreement.BLOCK", 7)
    # Another dimension, so that comparing across versions would be an error.
    random = np.random.default_rng(1)
    new = {name: np.append(row, random.normal(size=8)).astype(np.float32) for name, row in PEOPLE.items()}
    versions = _two(connection, new, PEOPLE)
    found = comparison.compare(connection, *versions).agreement
    assert found is not None
    first, second = (hand_made.server_scores(connection, one) for one in versions)
    pairs = np.triu_indices(40, 1)
    assert (found.subjects, found.pairs) == (40, 780)
    assert found.pearson == pytest.approx(np.corrcoef(first[pairs], second[pairs])[0, 1], abs=1e-5)
    assert found.spearman == pytest.approx(np.corrcoef(_ranks(first[pairs]), _ranks(second[pairs]))[0, 1], abs=1e-4)
    for scores in (first, second):
        np.fill_diagonal(scores, -2)
    assert found.same_nearest == np.count_nonzero(first.argmax(axis=1) == second.argmax(axis=1))
    assert 0 < found.same_nearest < 40


def test_equal_scores_share_a_rank(connection: Connection) -> None:
    axes = [hand_made.one_hot(place, 4) for place in range(4)]
    leaning = axes[0] + axes[1]
    old = dict(zip("abcde", (*axes[:3], leaning, leaning + axes[2]), strict=True))
    new = dict(zip("abcde", (*axes[:3], leaning + axes[2], leaning + axes[2] + axes[3]), strict=True))
    versions = _two(connection, new, old)
    found = comparison.compare(connection, *versions).agreement
    assert found is not None
    first, second = (hand_made.server_scores(connection, one)[np.triu_indices(5, 1)].round(3) for one in versions)
    assert (len(first), len(set(first)), len(set(second))) == (10, 4, 4)
    assert found.spearman == pytest.approx(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def test_scores_that_are_all_equal_do_not_correlate(connection: Connection) -> None:
    axes = {f"s{place}": hand_made.one_hot(place, 5) for place in range(5)}
    found = comparison.compare(connection, *_two(connection, axes, axes)).agreement
    assert found is not None
    assert (found.pearson, found.spearman, found.pairs) == (None, None, 10)
    few = dict(list(axes.items())[:2])
    connection.execute("DELETE FROM pfstore.templates WHERE subject_id <> ALL(%s)", (list(few),))
    new, old = galleries.version(connection, "staff", 2), galleries.version(connection, "staff", 1)
    assert comparison.compare(connection, new, old).agreement is None


def test_the_seed_decides_the_sample(connection: Connection) -> None:
    random = np.random.default_rng(1)
    worn = {name: (row + random.normal(size=16)).astype(np.float32) for name, row in PEOPLE.items()}
    versions = _two(connection, worn, PEOPLE)
    made = [comparison.compare(connection, *versions, sample=10, seed=seed).agreement for seed in (1, 1, 2, -1)]
    assert made[0] == made[1]
    assert len({one.pearson for one in made if one}) == 3
    assert {(one.subjects, one.pairs) for one in made if one} == {(10, 45)}
    for wrong in (2, 2001):
        with pytest.raises(ConfigError, match=f"a sample of {wrong} subjects cannot be compared: take 3 to 2,000"):
            comparison.compare(connection, *versions, sample=wrong)


def test_versions_that_agree_are_not_warned_of(connection: Connection) -> None:
    assert comparison.compare(connection, *_two(connection, PEOPLE, PEOPLE)).warnings == ()


@pytest.mark.parametrize("extractor", ["test-extractor", "another"])
def test_subjects_that_are_mixed_up(connection: Connection, extractor: str) -> None:
    versions = _two(connection, _mixed_up(PEOPLE), PEOPLE, extractor=extractor)
    [warning] = comparison.compare(connection, *versions).warnings
    assert "subjects have the same nearest other in versions 2 and 1 (below " in warning
    assert ("50%" if extractor == "test-extractor" else "10%") in warning
    # Of so few the nearest one is a matter of luck.
    assert comparison.compare(connection, *versions, sample=29).warnings == ()


def test_one_that_lacks_subjects_is_not_promoted(connection: Connection) -> None:
    people = hand_made.strangers(200)
    new, _ = _two(connection, dict(list(people.items())[3:]), people)
    lacking = "3 of the 200 subjects of version 1 (1.50%: 's0000', 's0001', 's0002')"
    with pytest.raises(ConflictError, match="version 2 of gallery 'staff' is not complete"):
        comparison.promote(connection, "staff", 2)
    _finish_a_run(connection, new, datetime.now(UTC))
    with pytest.raises(ConflictError) as error:
        comparison.promote(connection, "staff", 2)
    assert str(error.value) == (
        f"version 2 of gallery 'staff' is not promoted: it lacks {lacking}, whom searches would miss; run "
        "`pfstore backfill staff`, or promote with --force"
    )
    assert galleries.version(connection, "staff").number == 1
    promoted, found = comparison.promote(connection, "staff", 2, force=True)
    assert (promoted.number, promoted.state, found.warnings) == (2, "active", (f"version 2 lacks {lacking}",))


def test_a_hundredth_may_be_lacking(connection: Connection) -> None:
    people = hand_made.strangers(200)
    new, _ = _two(connection, dict(list(people.items())[2:]), people)
    _finish_a_run(connection, new, datetime.now(UTC))
    promoted, found = comparison.promote(connection, "staff", 2)
    assert promoted.state == "active"
    assert found.warnings == ("version 2 lacks 2 of the 200 subjects of version 1 (1.00%: 's0000', 's0001')",)


def test_without_an_active_version_only_thresholds_are_looked_at(connection: Connection) -> None:
    new = _version(connection, PEOPLE, "average")
    connection.execute("DELETE FROM pfstore.thresholds")
    promoted, found = comparison.promote(connection, "staff", 1, force=True)
    assert promoted.state == "active"
    assert (found.against, found.agreement, found.held_out) == (None, None, None)
    assert (found.coverage.new, found.coverage.old, found.coverage.features_old) == (40, 0, None)
    warning = "version 1 has no thresholds: run `pfstore calibrate staff --version 1`"
    assert list(found.warnings) == comparison.of_thresholds(connection, new) == [warning]


def test_which_two_are_compared(connection: Connection) -> None:
    with pytest.raises(NotFoundError, match="there is no gallery"):
        comparison.pair(connection, "staff")
    new, old = _two(connection, PEOPLE, PEOPLE)
    assert comparison.pair(connection, "staff") == comparison.pair(connection, "staff", 2) == (new, old)
    assert comparison.pair(connection, "staff", 1) == (old, None)
    galleries.promote(connection, "staff", 2, force=True)
    galleries.drop(connection, "staff", 1)
    with pytest.raises(NotFoundError, match="has no version beside the active one: a backfill with another model"):
        comparison.pair(connection, "staff")


def test_thresholds_belong_to_a_version(connection: Connection) -> None:
    new, old = _two(connection, PEOPLE, PEOPLE)
    search = replace(CALIBRATED, kind="fpir", target=0.1, comparisons=400)
    unproven = replace(CALIBRATED, target=0.0006)
    strict = replace(CALIBRATED, target=0.001, comparisons=30_000)
    thresholds.replace(connection, old, [CALIBRATED, strict, unproven, search])
    found = comparison.compare(connection, new, old)
    assert found.thresholds == Limits("calibrated", "calibrated", [("fmr", 0.001), ("fpir", 0.1)])
    remedy = "run `pfstore calibrate staff --version 2`"
    assert found.warnings == (f"version 2 has no threshold at FMR 0.001, FPIR 0.1, as version 1 has: {remedy}",)
    thresholds.replace(connection, new, [replace(strict, target=0.0001), search])
    assert comparison.compare(connection, new, old).warnings == ()
    connection.execute("DELETE FROM pfstore.thresholds WHERE version_id = %s", (new.version_id,))
    thresholds.replace(connection, new, [replace(one, automatic=True) for one in (strict, search)])
    [warning] = comparison.compare(connection, new, old).warnings
    assert warning == (
        f"the thresholds of version 2 were made by a backfill, those of version 1 by calibration: {remedy}"
    )


def test_one_that_was_not_refreshed_since(connection: Connection) -> None:
    new, old = _two(connection, PEOPLE, PEOPLE)
    assert comparison.compare(connection, new, old).warnings == ()
    connection.execute(
        "UPDATE pfstore.templates SET fused_at = %s WHERE version_id = %s AND subject_id = 's0003'",
        (datetime(2100, 1, 2, 3, 4, 5, tzinfo=UTC), old.version_id),
    )
    [warning] = comparison.compare(connection, new, old).warnings
    assert warning == (
        "version 2 was not refreshed since version 1 got its newest templates (2100-01-02 03:04:05 UTC): run "
        "`pfstore refresh staff --version 2`"
    )
    _finish_a_run(connection, new, datetime(2100, 1, 1, tzinfo=UTC))
    assert len(comparison.compare(connection, new, old).warnings) == 1
    # A run that found everything as it was has read later changes than its templates tell.
    _finish_a_run(connection, new, datetime(2100, 1, 3, tzinfo=UTC))
    assert comparison.compare(connection, new, old).warnings == ()


def _finish_a_run(connection: Connection, version: Version, started: datetime) -> None:
    connection.execute(
        "INSERT INTO pfstore.runs (version_id, kind, whole, source, plan, state, pfstore, started_at)"
        " VALUES (%s, 'backfill', true, 'x', 'x', 'done', '0', %s)",
        (version.version_id, started),
    )


def _card(
    rate: float, half: float | None = 0.01, *, people: str = "d1", fmr: float = 1e-3, **more: Any
) -> dict[str, Any]:
    """Make a card as training does, of FNMR rate ± half, with the average at 0.3 on the same people."""

    def row(method: str, value: float) -> dict[str, Any]:
        interval = {} if half is None else {"low": round(value - half, 4), "high": round(value + half, 4)}
        return {"method": method, "fmr": fmr, "fnmr": value, **interval}

    return {
        "contract": {"extractor": "test-extractor"},
        "data": {"digest": people},
        "parts": {"train": 0.7, "seed": 0},
        "options": {"selected": 1},
        "validation": [row("proxyfusion", rate), row("average", 0.3)],
    } | more


def _carded(connection: Connection, name: str, card: Any, selected: int = 1, compact: bool = False) -> Version:
    bare = random_model(16, experts=2, selected=selected, seed=len(models.listed(connection)))
    model = models.register(connection, ProxyFusionModel(bare.network, "unit", card=card), name)
    contract = Contract("test-extractor", 16 // selected, "unit", model.digest, "set", compact)
    made = galleries.ensure(connection, "staff", contract, blocks=selected)
    hand_made.add(connection, made, PEOPLE)
    thresholds.replace(connection, made, [CALIBRATED])
    return made


def _compared(connection: Connection, new: Any, old: Any) -> Comparison:
    before = _carded(connection, "m1", old)
    return comparison.compare(connection, _carded(connection, "m2", new), before)


def test_held_out_accuracy_is_what_the_cards_tell(connection: Connection) -> None:
    found = _compared(connection, _card(0.2), _card(0.25))
    assert found.held_out == HeldOut(Figure(1e-3, 0.2, 0.19, 0.21), Figure(1e-3, 0.25, 0.24, 0.26), True)
    assert found.warnings == ()


def test_one_that_is_less_accurate(connection: Connection) -> None:
    worse = "on held-out people version 2 makes more errors than version 1: FNMR 0.2500 against 0.2000 at FMR 0.001"
    assert _compared(connection, _card(0.25), _card(0.2)).warnings == (worse,)


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        (_card(0.21), _card(0.2), ()),
        (_card(0.21, None), _card(0.2, None), ("FNMR 0.2100 against 0.2000 at FMR 0.001",)),
        (_card(0.25, people="d2"), _card(0.2), ("at FMR 0.001, perhaps of other people",)),
    ],
    ids=["intervals overlap", "no intervals", "other people"],
)
def test_what_intervals_and_people_say(connection: Connection, new: Any, old: Any, said: tuple[str, ...]) -> None:
    found = _compared(connection, new, old)
    assert found.held_out is not None
    assert len(found.warnings) == len(said)
    assert all(warning.endswith(end) for warning, end in zip(found.warnings, said, strict=True))


@pytest.mark.parametrize(
    "card",
    [
        None,
        {},
        _card(0.25, fmr=1e-2),
        _card(0.25, contract={"extractor": "another"}),
        _card(0.25, options={"selected": 2}),
        _card(0.25, validation="none"),
        _card(0.25, validation=[{"fmr": 1e-3, "fnmr": "0.25"}]),
        _card(0.25, validation=[{"fmr": 1e-3, "fnmr": -1}]),
        _card(0.25, validation=["0.25"], contract=[1], data=7),
    ],
    ids=[
        "none",
        "empty",
        "another FMR",
        "another extractor",
        "other experts",
        "no list",
        "a text",
        "no rate",
        "other types",
    ],
)
def test_what_a_card_does_not_tell_is_not_made_up(connection: Connection, card: Any) -> None:
    found = _compared(connection, card, _card(0.2))
    assert (found.held_out, found.warnings) == (None, ())


def test_a_baseline_stands_in_the_card_of_the_other(connection: Connection) -> None:
    old, new = _version(connection, PEOPLE, "average"), _carded(connection, "trained", _card(0.2))
    other = _version(connection, PEOPLE, "trimmed-mean")
    average = Figure(1e-3, 0.3, 0.29, 0.31)
    found = comparison.compare(connection, new, old)
    assert (found.held_out, found.warnings) == (HeldOut(Figure(1e-3, 0.2, 0.19, 0.21), average, True), ())
    back = comparison.compare(connection, old, new)
    assert back.held_out is not None
    assert back.held_out.new == average
    assert back.warnings[-1].startswith("on held-out people version 1 makes more errors than version 2")
    assert comparison.compare(connection, new, other).held_out is None
    assert comparison.compare(connection, other, old).held_out is None


def test_a_card_tells_of_a_model_in_the_form_that_was_measured(connection: Connection) -> None:
    settings = [{"experts_selected": count, "fmr": 1e-3, "fnmr": 0.1 * count} for count in (1, 2)]
    card = _card(0.25, options={"selected": 3}, redundancy={"settings": settings})
    old = _carded(connection, "old", _card(0.2))
    found = comparison.compare(connection, _carded(connection, "fewer", card, selected=2), old).held_out
    assert found is not None
    assert found.new == Figure(1e-3, 0.2, None, None)
    compact = _carded(connection, "compact", _card(0.25), compact=True)
    assert comparison.compare(connection, compact, old).held_out is None


def test_it_is_told_as_json(connection: Connection) -> None:
    told = json.loads(json.dumps(comparison.compare(connection, *_two(connection, PEOPLE, PEOPLE)).as_dict()))
    assert (told["gallery"], told["version"], told["against"], told["held_out"]) == ("staff", 2, 1, None)
    assert told["coverage"]["lacks"] == 0
    assert datetime.fromisoformat(told["coverage"]["newest_new"]).tzinfo is not None
    assert told["agreement"]["nearest"] == 1
    assert told["thresholds"] == {"new": "calibrated", "old": "calibrated", "lacking": []}
