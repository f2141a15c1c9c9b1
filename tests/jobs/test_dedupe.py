"""Every pair at or above a threshold, whatever the blocks, the interruptions and what is written meanwhile."""

from collections.abc import Callable

import numpy as np
import psycopg
import pytest

from pfstore.errors import BusyError, ConfigError, ContractError, NotFoundError
from pfstore.features import Floats
from pfstore.gallery import duplicates, galleries, near_pairs, thresholds
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.duplicates import Pair
from pfstore.gallery.galleries import Version
from pfstore.jobs import dedupe as job
from pfstore.jobs.dedupe import dedupe
from tests.gallery import hand_made

BLOCKS, DIMENSION, COUNT, PLANTED = 4, 16, 220, 12


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_pairs, "SIDE", 32)


def _people(apart: float = 0.4, blocks: int = BLOCKS, seed: int = 0) -> dict[str, Floats]:
    """Templates whose blocks differ by so much of their length; the last PLANTED are of the persons of the first."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(COUNT, 1, DIMENSION))
    centres[-PLANTED:] = centres[:PLANTED]
    made = centres + apart * random.normal(size=(COUNT, blocks, DIMENSION))
    order = random.permutation(COUNT)
    return {f"s{number:03}": row for number, row in zip(order, made.reshape(COUNT, -1).astype(np.float32), strict=True)}


def _brute(connection: Connection, version: Version, threshold: float) -> dict[tuple[str, str], float]:
    scores = hand_made.server_scores(connection, version)
    query = "SELECT subject_id FROM pfstore.templates WHERE version_id = %s ORDER BY subject_id"
    names = [name for (name,) in connection.execute(query, (version.version_id,))]
    first, second = np.nonzero(np.triu(scores >= threshold, 1))
    return {(names[a], names[b]): scores[a, b] for a, b in zip(first.tolist(), second.tolist(), strict=True)}


def _same(pairs: list[Pair], wanted: dict[tuple[str, str], float]) -> bool:
    assert [one.score for one in pairs] == sorted((one.score for one in pairs), reverse=True)
    found = {(one.subject_a, one.subject_b): one.score for one in pairs}
    assert len(found) == len(pairs)
    return found.keys() == wanted.keys() and all(abs(found[key] - wanted[key]) < 1e-5 for key in wanted)


@pytest.mark.parametrize("apart", [0.05, 0.4, 2.0])
@pytest.mark.parametrize("blocks", [1, BLOCKS])
def test_it_finds_what_the_server_finds(connection: Connection, blocks: int, apart: float) -> None:
    version = hand_made.version_of(connection, _people(apart, blocks), blocks=blocks)
    assert version.scanned == ("template" if blocks == 1 else "coarse")
    for threshold in (0.3, 0.55, 0.9):
        wanted = _brute(connection, version, threshold)
        for rows in (1, 7, 64, COUNT - 1, 1000) if threshold == 0.55 else (64,):
            found = dedupe(connection, version, threshold, rows=rows, restart=True)
            assert _same(found.pairs, wanted), (threshold, rows)
            assert (found.templates, found.comparisons) == (COUNT, COUNT * (COUNT - 1) // 2)
    assert _brute(connection, version, 0.3)


def test_planted_pairs_are_found(connection: Connection) -> None:
    people = _people(0.2)
    names = list(people)
    version = hand_made.version_of(connection, people, blocks=BLOCKS)
    found = dedupe(connection, version, 0.85)
    planted = {tuple(sorted(pair)) for pair in zip(names[:PLANTED], names[-PLANTED:], strict=True)}
    assert {(one.subject_a, one.subject_b) for one in found.pairs} == planted


def test_dense_suspects_are_compared_by_a_product(connection: Connection) -> None:
    version = hand_made.version_of(connection, _people(), blocks=BLOCKS)
    everything = dedupe(connection, version, -1)
    assert len(everything.pairs) == COUNT * (COUNT - 1) // 2
    assert _same(everything.pairs, _brute(connection, version, -1))


def test_the_order_is_that_of_code_points(connection: Connection) -> None:
    people = dict(zip(["b", "Ä", "a", "B", "é", "_", "𝒳", "a b", "ａ"], _people(0.0).values(), strict=False))
    same = {name: next(iter(people.values())) for name in people}
    version = hand_made.version_of(connection, same, blocks=BLOCKS)
    pairs = dedupe(connection, version, 0.99, rows=2).pairs
    assert len(pairs) == 36
    assert all(one.subject_a < one.subject_b for one in pairs)


class _KilledError(Exception):
    pass


def _killer(after: float) -> Callable[[float], None]:
    def observe(part: float) -> None:
        if part > after:
            raise _KilledError

    return observe


def test_an_interrupted_run_goes_on(connection: Connection) -> None:
    version = hand_made.version_of(connection, _people(), blocks=BLOCKS)
    whole = dedupe(connection, version, 0.5, rows=20)
    done = []
    for after in (0.3, 0.6):
        with pytest.raises(_KilledError):
            dedupe(connection, version, 0.5, rows=20, restart=after == 0.3, observer=_killer(after))
        row = connection.execute(
            "SELECT count(done_at), count(*) FROM pfstore.dedupe_blocks JOIN pfstore.dedupes USING (dedupe_id)"
            " WHERE state = 'running'"
        ).fetchone()
        assert row is not None
        done.append(row[0])
        assert row[1] == 11
    assert 0 < done[0] < done[1] < 11
    parts: list[float] = []
    last = dedupe(connection, version, 0.5, rows=20, observer=parts.append)
    assert (last.resumed, last.run) == (True, whole.run + 1)
    assert last.pairs == whole.pairs
    assert parts[0] > 0.3
    assert parts[-1] == pytest.approx(1, abs=0.01)
    assert parts == sorted(parts)
    states = connection.execute("SELECT state FROM pfstore.dedupes ORDER BY dedupe_id").fetchall()
    assert states == [("done",)]


def test_a_finished_run_is_shown_again_until_something_is_written(connection: Connection) -> None:
    people = _people()
    version = hand_made.version_of(connection, people, blocks=BLOCKS)
    first = dedupe(connection, version, 0.5)
    parts: list[float] = []
    again = dedupe(connection, version, 0.5, observer=parts.append)
    assert (again.resumed, again.run, again.pairs, parts) == (True, first.run, first.pairs, [])
    assert dedupe(connection, version, 0.6).run != first.run
    connection.execute(
        "UPDATE pfstore.templates SET fused_at = fused_at + interval '1 second' WHERE subject_id = 's007'"
    )
    anew = dedupe(connection, version, 0.5)
    assert (anew.resumed, anew.pairs) == (False, first.pairs)
    connection.execute("DELETE FROM pfstore.templates WHERE subject_id = 's007'")
    assert dedupe(connection, version, 0.5).templates == COUNT - 1


def test_an_unfinished_run_over_other_contents_is_abandoned(connection: Connection) -> None:
    version = hand_made.version_of(connection, _people(), blocks=BLOCKS)
    with pytest.raises(_KilledError):
        dedupe(connection, version, 0.5, rows=20, observer=_killer(0.5))
    twin = {"twin": _people()["s010"]}
    hand_made.add(connection, version, twin)
    found = dedupe(connection, version, 0.5, rows=20)
    assert not found.resumed
    assert _same(found.pairs, _brute(connection, version, 0.5))
    assert found.pairs[0][:2] == ("s010", "twin")
    rows = connection.execute(
        "SELECT state, EXISTS (SELECT FROM pfstore.dedupe_pairs p WHERE p.dedupe_id = d.dedupe_id)"
        " FROM pfstore.dedupes d ORDER BY dedupe_id"
    ).fetchall()
    assert rows == [("abandoned", False), ("done", True)]


def test_who_is_removed_meanwhile_is_in_no_pair(connection: Connection, database: Database) -> None:
    people = _people(0.2)
    version = hand_made.version_of(connection, people, blocks=BLOCKS)
    planted = dedupe(connection, version, 0.85).pairs
    early, late = planted[0], max(planted, key=lambda one: one.subject_a)
    gone = {early.subject_a, late.subject_b}

    def remove(part: float) -> None:
        if part > 0.5:
            with psycopg.connect(database.uri) as other:
                other.execute("DELETE FROM pfstore.templates WHERE subject_id = ANY(%s)", (list(gone),))

    found = dedupe(connection, version, 0.85, rows=20, restart=True, observer=remove)
    assert found.pairs == [one for one in planted if not gone & {one.subject_a, one.subject_b}]
    assert len(found.pairs) <= len(planted) - 1


def test_who_is_removed_between_reading_and_comparing(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    version = hand_made.version_of(connection, _people(0.2), blocks=BLOCKS)
    planted = dedupe(connection, version, 0.85).pairs
    read = near_pairs.Gallery.templates

    def after_removal(gallery: near_pairs.Gallery, ids: Floats) -> object:
        connection.execute("DELETE FROM pfstore.templates WHERE subject_id = %s", (planted[0].subject_b,))
        return read(gallery, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(near_pairs.Gallery, "templates", after_removal)
    assert dedupe(connection, version, 0.85, restart=True).pairs == planted[1:]


def test_who_is_enrolled_meanwhile_after_all_others_is_compared(connection: Connection) -> None:
    people = _people(0.2)
    version = hand_made.version_of(connection, people, blocks=BLOCKS)
    newcomers = {"t1": people["s100"], "t2": people["s100"]}

    def enrol(_: float) -> None:
        while newcomers:
            hand_made.add(connection, version, dict([newcomers.popitem()]))

    found = dedupe(connection, version, 0.95, rows=20, observer=enrol)
    assert {one[:2] for one in found.pairs} >= {("s100", "t1"), ("s100", "t2"), ("t1", "t2")}


def test_a_low_threshold_is_refused(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "MOST_PAIRS", 500)
    version = hand_made.version_of(connection, _people(), blocks=BLOCKS)
    with pytest.raises(ContractError, match=r"more than 500 pairs of version 1 of gallery 'staff' .* raise the thresh"):
        dedupe(connection, version, 0, rows=20)
    assert connection.execute("SELECT count(*) FROM pfstore.dedupe_pairs").fetchone() == (0,)
    assert connection.execute("SELECT state FROM pfstore.dedupes").fetchall() == [("abandoned",)]
    assert dedupe(connection, version, 0.7).pairs


@pytest.mark.parametrize("threshold", [-1.1, 1.01, float("nan")])
def test_a_threshold_that_is_no_score(connection: Connection, threshold: float) -> None:
    version = hand_made.version_of(connection, _people(), blocks=BLOCKS)
    with pytest.raises(ConfigError, match="give one between -1 and 1"):
        dedupe(connection, version, threshold)


def test_two_at_once(connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfstore.gallery.locking.LOCK_PATIENCE", 0)
    version = hand_made.version_of(connection, _people(), blocks=BLOCKS)
    with (
        database.connect() as other,
        duplicates.alone(other, version),
        pytest.raises(BusyError, match="another process is looking for duplicates in version 1 of gallery 'staff'"),
    ):
        dedupe(connection, version, 0.5)


def test_a_version_that_is_dropped_meanwhile(connection: Connection) -> None:
    version = hand_made.version_of(connection, _people(), blocks=BLOCKS)

    def drop(_: float) -> None:
        if galleries.names(connection):
            galleries.drop(connection, "staff")

    with pytest.raises(NotFoundError, match="dropped meanwhile"):
        dedupe(connection, version, 0.5, observer=drop)


def test_one_subject_and_none(connection: Connection) -> None:
    version = hand_made.version_of(connection, {"s": hand_made.one_hot(0, 8)})
    found = dedupe(connection, version, 0.5)
    assert (found.pairs, found.comparisons, found.templates) == ([], 0, 1)
    connection.execute("DELETE FROM pfstore.templates")
    assert dedupe(connection, version, 0.5).templates == 0


def test_other_versions_are_left_alone(connection: Connection) -> None:
    people = _people(0.2)
    version = hand_made.version_of(connection, people, blocks=BLOCKS)
    hand_made.version_of(connection, people, name="others", blocks=BLOCKS)
    assert _same(dedupe(connection, version, 0.85, rows=50).pairs, _brute(connection, version, 0.85))


def test_clusters() -> None:
    chain = [Pair("a", "b", 0.9), Pair("b", "c", 0.6), Pair("c", "d", 0.7)]
    triangle = [Pair("x", "y", 0.95), Pair("x", "z", 0.8), Pair("y", "z", 0.85)]
    first, second, third = duplicates.clusters([*triangle, *chain, Pair("p", "q", 0.5)])
    assert (first.subjects, first.pairs, first.possible, first.best, first.weakest) == (
        ["x", "y", "z"],
        3,
        3,
        0.95,
        0.8,
    )
    assert (second.subjects, second.pairs, second.possible) == (["a", "b", "c", "d"], 3, 6)
    assert (second.best, second.weakest) == (0.9, 0.6)
    assert third.subjects == ["p", "q"]
    assert duplicates.clusters([]) == []


def test_the_strictest_threshold_is_one_that_duplicates_can_reach(connection: Connection) -> None:
    from pfstore.gallery import calibration

    people = _people(0.2)
    version = hand_made.version_of(connection, people, blocks=BLOCKS)
    with pytest.raises(ContractError, match="too few subjects.*--threshold"):
        duplicates.strictest(connection, version)
    calibration.estimate(connection, version)
    stored = [one for one in thresholds.stored(connection, version) if one.kind == "fmr"]
    best = dedupe(connection, version, 0.5).pairs[0].score
    assert stored[-1].threshold > best
    chosen = duplicates.strictest(connection, version)
    assert chosen == stored[-2]
    assert chosen.target == 0.01
    assert len(dedupe(connection, version, chosen.threshold).pairs) >= PLANTED
