"""Which way a search takes, in words, and what the planner makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pfstore.gallery import indexing, paths, tuning, tunings
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Version
from tests.gallery import hand_made

BLOCKS = pytest.mark.parametrize("blocks", [1, 4])


def _version(connection: Connection, count: int = 1234, blocks: int = 1) -> Version:
    return hand_made.version_of(connection, hand_made.strangers(count, 16 * blocks), blocks=blocks)


def _tuned(connection: Connection, version: Version, **changes: object) -> None:
    one = tuning.tune(connection, version, sample=20, target=0.5)
    told: dict[str, object] = {"path": "index", "mated_recall": 0.999, "low": 0.9975, "high": 0.9997}
    tunings.write(connection, version, replace(one, **{**told, "basis": "2,000 worn templates", **changes}))  # type: ignore[arg-type]


def test_without_an_index(connection: Connection) -> None:
    way = paths.path(connection, _version(connection))
    assert (way.kind, way.exact, way.tuning, way.outgrown) == ("exhaustive", True, None, False)
    assert way.why == "no index: all 1,234 templates are compared"


def test_with_an_index_nobody_tuned(connection: Connection) -> None:
    indexing.build(connection, version := _version(connection, 50))
    way = paths.path(connection, version)
    assert (way.kind, way.exact, way.tuning) == ("exhaustive", True, None)
    assert way.why == "the index is not tuned, so nobody knows what it misses: run `pfstore gallery tune staff`"


def test_asked_to_be_exact(connection: Connection) -> None:
    indexing.build(connection, version := _version(connection, 50))
    _tuned(connection, version)
    asked = paths.path(connection, version, exact=True)
    assert (asked.kind, asked.exact, asked.why) == ("exhaustive", True, "asked for with --exact")


def test_tuned_and_outgrown(connection: Connection) -> None:
    indexing.build(connection, version := _version(connection, 100))
    _tuned(connection, version)
    way = paths.path(connection, version)
    assert (way.kind, way.exact, way.outgrown) == ("index", False, False)
    assert way.why == "index, tuned to 0.9990 [0.9975, 0.9997] of 2,000 worn templates"
    more = {f"t{number}": row for number, row in enumerate(hand_made.strangers(11, seed=1).values())}
    hand_made.add(connection, version, more)
    way = paths.path(connection, version)
    assert way.outgrown
    assert way.why.endswith("; of 100 templates, there are 111 now: run `pfstore gallery tune staff` again")
    assert way.as_dict()["tuning"]["outgrown"] is True


def test_tuned_to_be_exhaustive(connection: Connection) -> None:
    indexing.build(connection, version := _version(connection, 100))
    _tuned(connection, version, path="exhaustive", target=0.9)
    assert paths.path(connection, version).why == "tuned: the exhaustive search is as fast"


def test_a_tuning_goes_with_its_index(connection: Connection) -> None:
    indexing.build(connection, version := _version(connection, 100))
    _tuned(connection, version)
    indexing.drop(connection, version)
    way = paths.path(connection, version)
    assert (way.tuning, way.why) == (None, "no index: all 100 templates are compared")


@BLOCKS
def test_the_planner_goes_both_ways(connection: Connection, blocks: int) -> None:
    version = _version(connection, 1500, blocks)
    kind, plan = paths.planned(connection, version)
    assert (kind, plan.indexes, set(plan.scans)) == ("exhaustive", (), {"Seq Scan"})
    assert paths.checked(connection, version) is None
    indexing.build(connection, version)
    _tuned(connection, version)
    kind, plan = paths.planned(connection, version)
    index = f"templates_v{version.version_id}_hnsw"
    assert (kind, plan.indexes) == ("index", (index,))
    assert paths.checked(connection, version) is None
    _tuned(connection, version, path="exhaustive")
    assert paths.planned(connection, version)[1].indexes == ()
    assert paths.checked(connection, version) is None


def test_asking_leaves_no_setting_behind(connection: Connection) -> None:
    indexing.build(connection, version := _version(connection, 50))
    names = ("search_path", "enable_seqscan", "jit", "hnsw.ef_search")
    before = [connection.execute("SELECT current_setting(%s, true)", (name,)).fetchone() for name in names]
    paths.planned(connection, version)
    after = [connection.execute("SELECT current_setting(%s, true)", (name,)).fetchone() for name in names]
    assert before[:3] == after[:3]
    assert after[3] in (before[3], ("40",))


def test_a_parallel_scan_is_told_apart(connection: Connection) -> None:
    version = _version(connection, 1500)
    for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
        connection.execute("SELECT set_config(%s, '0', false)", (name,))
    assert set(paths.planned(connection, version)[1].scans) == {"Parallel Seq Scan"}
    assert paths.checked(connection, version) is None


def test_an_index_that_the_planner_may_not_use(connection: Connection) -> None:
    indexing.build(connection, version := _version(connection, 1500))
    _tuned(connection, version)
    connection.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
        (f"pfstore.templates_v{version.version_id}_hnsw",),
    )
    wrong = paths.checked(connection, version)
    assert wrong is not None
    assert wrong.startswith(f"the planner does not use templates_v{version.version_id}_hnsw, so")
    assert wrong.endswith("(Seq Scan)")


def test_plans_that_are_not_what_they_should_be(connection: Connection) -> None:
    version = _version(connection, 10)
    index = f"templates_v{version.version_id}_hnsw"
    wrong = paths.judged(version, "exhaustive", paths.Plan(("Index Scan",), (index,)))
    assert wrong == f"the planner uses {index} for the exhaustive search, which is then not exact"
    wrong = paths.judged(version, "exhaustive", paths.Plan(("Bitmap Heap Scan",), ("templates_pkey",)))
    assert wrong == "the planner reads the templates in a roundabout way (Bitmap Heap Scan)"
