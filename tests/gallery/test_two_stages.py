"""Templates of several blocks: the coarse vector, the bound that makes the exhaustive search exact, the index."""

import numpy as np
import pytest
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from pfstore.features import Floats
from pfstore.gallery import galleries, schema, searching
from pfstore.gallery.coarse import Coarse
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Version
from tests.gallery import hand_made
from tests.gallery.hand_made import migrate

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
        assert (scores <= products + np.outer(left.residuals, right.residuals) + 0.0012).all()


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
    galleries.build_index(connection, version)
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
