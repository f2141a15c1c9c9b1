"""Templates of several blocks: the coarse vector, the bound that makes the exhaustive search exact, the index."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from pfstore.features import Floats
from pfstore.gallery import galleries, indexing, schema, searching
from pfstore.gallery.coarse import SLACK, Coarse
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Version
from tests.gallery import hand_made
from tests.gallery.hand_made import migrate
from tests.gallery.tuned import tune

BLOCKS, DIMENSION = 4, 16


def _templates(count: int, apart: float, seed: int = 0) -> Floats:
    """[count, BLOCKS*DIMENSION] whose blocks differ by so much of their length."""
    random = np.random.default_rng(seed)
    common = random.normal(size=(count, 1, DIMENSION))
    made = common + apart * random.normal(size=(count, BLOCKS, DIMENSION))
    flat = made.reshape(count, -1)
    unit: Floats = (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _gallery(connection: Connection, templates: Floats) -> Version:
    named = {f"s{number:05}": row for number, row in enumerate(templates)}
    return hand_made.version_of(connection, named, blocks=BLOCKS)


def _naive(connection: Connection, version: Version, probe: Floats, top: int) -> list[tuple[str, float]]:
    query = (
        "SELECT subject_id, -(template <#> %(probe)s) FROM pfstore.templates WHERE version_id = %(version)s"
        " ORDER BY template <#> %(probe)s, subject_id LIMIT %(top)s"
    )
    values = {"probe": HalfVector(probe), "version": version.version_id, "top": top}
    return connection.execute(query.encode(), values, binary=True).fetchall()


@pytest.mark.parametrize("apart", [0.0, 0.02, 0.3, 3.0])
def test_the_exhaustive_search_is_the_naive_one(connection: Connection, apart: float) -> None:
    version = _gallery(connection, _templates(1500, apart))
    register_vector(connection)
    probes = np.concatenate([_templates(10, apart, seed=1), _templates(5, 3.0, seed=2), _templates(1500, apart)[:5]])
    for top in (1, 10, 300):
        for probe, found in zip(probes, searching.search(connection, version, probes, top=top), strict=True):
            assert [(one.subject, one.score) for one in found] == _naive(connection, version, probe, top)


def test_the_bound_holds_for_any_two_templates() -> None:
    for apart in (0.0, 0.05, 0.5, 5.0):
        left = Coarse.of(a := _templates(200, apart), BLOCKS)
        right = Coarse.of(b := _templates(200, 0.1, seed=1), BLOCKS)
        scores = a.astype(np.float16).astype(np.float64) @ b.astype(np.float16).astype(np.float64).T
        products = left.vectors.astype(np.float64) @ right.vectors.astype(np.float64).T
        assert (scores <= products + np.outer(left.residuals, right.residuals) + SLACK).all()


def test_the_server_makes_the_same_coarse_vector(connection: Connection) -> None:
    register_vector(connection)
    templates = _templates(20, 0.5)
    ours = Coarse.of(templates, BLOCKS).vectors
    for template, mine in zip(templates, ours, strict=True):
        row = connection.execute("SELECT pfstore.coarse(%s, %s)", (HalfVector(template), BLOCKS)).fetchone()
        assert row is not None
        np.testing.assert_allclose(row[0].to_numpy(), mine, atol=2**-11)


def test_a_threshold_and_a_list_of_subjects(connection: Connection) -> None:
    version = _gallery(connection, templates := _templates(800, 0.3))
    register_vector(connection)
    everyone = _naive(connection, version, templates[3], 800)
    [found] = searching.search(connection, version, templates[3:4], top=800, threshold=0.2)
    assert [(one.subject, one.score) for one in found] == [one for one in everyone if one[1] >= 0.2]
    among = [subject for subject, _ in everyone[500:]]
    [found] = searching.search(connection, version, templates[3:4], top=20, among=among)
    assert [(one.subject, one.score) for one in found] == everyone[500:520]
    indexing.build(connection, version)
    connection.execute(b"ANALYZE pfstore.templates_v%d" % version.version_id)
    version = galleries.version(connection, "staff")
    for few in (among[:3], among, []):
        [found] = searching.search(connection, version, templates[3:4], top=20, among=few)
        assert [one.subject for one in found] == [one for one, _ in everyone if one in set(few)][:20]


def test_the_migration_gives_templates_that_are_there_a_coarse_vector(
    database: Database, connection: Connection
) -> None:
    register_vector(connection)
    many = _gallery(connection, templates := _templates(400, 0.3))
    one = hand_made.version_of(connection, hand_made.strangers(50), "single")
    before = connection.execute("SELECT coarse, residual FROM pfstore.templates ORDER BY subject_id").fetchall()
    migrate(database, "downgrade", "0003")
    migrate(database, "upgrade", "head")
    assert schema.check(database) == []
    query = "SELECT coarse, residual, template FROM pfstore.templates WHERE version_id = %s ORDER BY subject_id"
    after = connection.execute(query, (many.version_id,)).fetchall()
    ours = Coarse.of(templates, BLOCKS)
    for (vector, residual, _), mine, least in zip(after, ours.vectors, ours.residuals, strict=True):
        np.testing.assert_allclose(vector.to_numpy(), mine, atol=2**-11)
        assert least <= residual <= least + 0.005
    assert len(before) == 450
    assert {row[:2] for row in connection.execute(query, (one.version_id,))} == {(None, None)}
    for probe, found in zip(templates[:5], searching.search(connection, many, templates[:5]), strict=True):
        assert [(one.subject, one.score) for one in found] == _naive(connection, many, probe, 10)


def test_what_a_search_reads_lies_in_the_row_itself(connection: Connection) -> None:
    version = _gallery(connection, _templates(3, 0.3))
    single = hand_made.version_of(connection, {"wide": np.ones(1500, np.float32)}, "single")
    query = "SELECT attname, attstorage::text FROM pg_attribute WHERE attrelid = %s::regclass AND attname = ANY(%s)"
    columns = ["template", "coarse"]
    for one, expected in ((version, ("p", "e")), (single, ("p", "p"))):
        table = one.partition.as_string(connection)
        there = dict(connection.execute(query, (table, columns)).fetchall())
        assert (there["coarse"], there["template"]) == expected
    [(toasted,)] = connection.execute(
        "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = %s::regclass",
        (single.partition.as_string(connection),),
    ).fetchall()
    assert toasted == 0


def _rounded_up(connection: Connection) -> tuple[Version, Floats]:
    """Return a gallery and a probe whose coarse vector is longer, once rounded, than what it leaves out is long.

    All its values lie just above the middle of two halves. Who is best is so by what is left out.
    """
    random = np.random.default_rng(0)
    signs, others = (random.choice([-1.0, 1.0], 64) for _ in range(2))
    turns = np.array([1, -1, 1, -1])[:, None]
    probe = 1025.5 * 2.0**-14 * signs + turns * 31.5 * 2.0**-14 * others
    assert (probe.astype(np.float16) == probe).all()
    along = signs / 8

    def across() -> NDArray[np.float64]:
        made = random.normal(size=64)
        made -= (made @ along) * along
        return made / np.linalg.norm(made)

    made = {"best": 0.8 * across() / 2 + 0.6 * turns / 2 * others / 8}
    for number in range(400):
        near = 0.004 + 0.008 * random.random()
        made[f"o{number:03}"] = np.tile(near * along + np.sqrt(1 - near**2) * across(), (4, 1)) / 2
    flat = {name: one.ravel().astype(np.float32) for name, one in made.items()}
    return hand_made.version_of(connection, flat, blocks=4), probe.ravel().astype(np.float32)


def test_what_rounding_adds_to_a_coarse_vector_is_not_taken_off_the_rest(
    database: Database, connection: Connection
) -> None:
    register_vector(connection)
    version, probe = _rounded_up(connection)
    [(best, score), *_] = expected = _naive(connection, version, probe, 5)
    assert (best, score > 0.015) == ("best", True)
    [found] = searching.search(connection, version, probe[None], top=5)
    assert [(one.subject, one.score) for one in found] == expected
    connection.execute("UPDATE pfstore.templates SET template = %s WHERE subject_id = 'best'", (HalfVector(probe),))
    migrate(database, "downgrade", "0003")
    migrate(database, "upgrade", "head")
    query = "SELECT residual FROM pfstore.templates WHERE subject_id = 'best'"
    [(residual,)] = connection.execute(query).fetchall()
    [least] = Coarse.of(probe[None], 4).residuals
    assert least <= residual <= least + 0.005


def test_an_index_full_of_what_was_deleted_leaves_no_list_short(connection: Connection) -> None:
    version = _gallery(connection, templates := _templates(2000, 0.3))
    register_vector(connection)
    indexing.build(connection, version)
    tune(connection, version, ef_search=40, candidates=20)
    near = [subject for subject, _ in _naive(connection, version, templates[0], 300)[3:]]
    connection.execute("DELETE FROM pfstore.templates WHERE subject_id = ANY(%s)", (near,))
    [found] = searching.search(connection, version, templates[:1], top=10)
    assert [(one.subject, one.score) for one in found] == _naive(connection, version, templates[0], 10)


def test_searches_go_on_while_an_index_is_built_anew(database: Database, connection: Connection) -> None:
    version = _gallery(connection, templates := _templates(6000, 0.3))
    indexing.build(connection, version)
    tune(connection, version)
    with database.connect() as other, ThreadPoolExecutor(1) as pool:
        building = pool.submit(indexing.build, other, version, m=24, ef_construction=200)
        searches = 0
        while not building.done():
            [found] = searching.search(connection, version, templates[:1], top=1, deadline=1.0)
            assert found[0].subject == "s00000"
            searches += 1
        building.result()
    assert searches > 3
    assert searching.how(connection, version).path == "exhaustive"
