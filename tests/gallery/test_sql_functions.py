"""What any client of the server can call, as such a client calls it: in plain SQL."""

from typing import Any

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from pfstore.gallery import galleries, indexing, thresholds
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Contract, Version
from tests.gallery import hand_made

D = 16


@pytest.fixture
def version(connection: Connection) -> Version:
    register_vector(connection)
    return hand_made.version_of(connection, hand_made.strangers(300, D), 'it\'s "staff"; --')


def _rows(connection: Connection, query: str, *values: Any) -> list[Any]:
    return connection.execute(query.encode(), values).fetchall()


def _template(connection: Connection, version: Version, subject: str) -> HalfVector:
    query = "SELECT template FROM pfstore.templates WHERE version_id = %s AND subject_id = %s"
    [(template,)] = _rows(connection, query, version.version_id, subject)
    assert isinstance(template, HalfVector)
    return template


def test_search_by_position_and_by_name(connection: Connection, version: Version) -> None:
    probe = _template(connection, version, "s0007")
    found = _rows(connection, "SELECT * FROM pfstore.search(%s, %s, 5)", version.gallery, probe)
    scores = hand_made.server_scores(connection, version)[7]
    assert [rank for rank, _, _ in found] == [1, 2, 3, 4, 5]
    assert [subject for _, subject, _ in found] == [f"s{one:04}" for one in np.argsort(-scores, kind="stable")[:5]]
    assert [score for _, _, score in found] == sorted(scores, reverse=True)[:5]
    query = "SELECT subject FROM pfstore.search(%s, probe => %s, threshold => 0.5, among => %s, version => 1)"
    among = [f"s{one:04}" for one in range(5, 100)]
    expected = {f"s{one:04}" for one in range(5, 100) if scores[one] >= 0.5}
    assert {one for (one,) in _rows(connection, query, version.gallery, probe, among)} == expected


def test_a_table_of_probes_is_searched_in_one_statement(connection: Connection, version: Version) -> None:
    query = """
        SELECT p.subject_id, s.subject FROM pfstore.templates p, LATERAL pfstore.search(%s, p.template, 1) s
        WHERE p.version_id = %s ORDER BY 1 LIMIT 20
    """
    rows = _rows(connection, query, version.gallery, version.version_id)
    assert rows == [(f"s{one:04}", f"s{one:04}") for one in range(20)]


def test_among_an_attribute_of_a_table_of_ones_own(connection: Connection, version: Version) -> None:
    connection.execute("CREATE TABLE people AS SELECT subject_id AS person, 4 AS site FROM pfstore.templates")
    connection.execute("UPDATE people SET site = 5 WHERE person > 's0009'")
    query = """
        SELECT subject FROM pfstore.search(%s, %s, 50, among => ARRAY(SELECT person FROM people WHERE site = 4))
    """
    found = _rows(connection, query, version.gallery, _template(connection, version, "s0100"))
    assert sorted(one for (one,) in found) == [f"s{one:04}" for one in range(10)]


def test_verify_and_threshold(connection: Connection, version: Version) -> None:
    probe = _template(connection, version, "s0003")
    query = "SELECT score, threshold, match FROM pfstore.verify(%s, %s, %s)"
    [(score, limit, match)] = _rows(connection, query, version.gallery, "s0003", probe)
    assert (round(score, 2), limit, match) == (1.0, None, None)
    at = thresholds.Threshold("fmr", 1e-3, 0.7, 1000, None, None, 300, "by hand", False, version.created_at)
    thresholds.replace(connection, version, [at])
    [(_, limit, match)] = _rows(connection, query, version.gallery, "s0003", probe)
    assert (limit, match) == (0.7, True)
    assert _rows(connection, query, version.gallery, "s0004", probe)[0][2] is False
    rates = "SELECT pfstore.threshold(%s, 'fmr', 0.01), pfstore.threshold(%s, 'fmr', 0.0001)"
    assert _rows(connection, rates, version.gallery, version.gallery) == [(0.7, None)]


def test_compare_is_the_cosine(connection: Connection) -> None:
    [(score,)] = _rows(connection, "SELECT pfstore.compare('[1,1]', '[2,0]')")
    assert score == pytest.approx(np.sqrt(0.5), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "state", "said"),
    [
        ("search('nobody', %(probe)s)", "PF404", "there is no gallery 'nobody'"),
        ("search(%(gallery)s, %(probe)s, version => 9)", "PF404", "gallery '.*' has no version 9"),
        ("search(%(gallery)s, '[1,0]')", "PF409", "the probe has 2 values, the templates of gallery .* have 16"),
        ("search(%(gallery)s, %(probe)s, extractor => 'other')", "PF409", "come from 'other'"),
        ("search(%(gallery)s, %(long)s)", "PF422", "the probe has the length 2, a template has 1"),
        ("search(%(gallery)s, %(probe)s, 0)", "PF422", "k is 0, it must be from 1 to 10000"),
        ("search(%(gallery)s, %(probe)s, NULL)", "PF422", "k is NULL"),
        ("search(%(gallery)s, %(probe)s, threshold => NULL)", "PF422", "the threshold is NULL, it must be a score"),
        ("search(%(gallery)s, %(probe)s, threshold => 'NaN')", "PF422", "the threshold is NaN"),
        (
            "search(%(gallery)s, %(probe)s, threshold => pfstore.threshold(%(gallery)s, 'fpir', 0.01))",
            "PF422",
            "gives NULL where none keeps to the rate",
        ),
        ("verify(%(gallery)s, 'nobody', %(probe)s)", "PF404", "has no template of subject 'nobody'"),
        ("verify(%(gallery)s, 's0001', '[1]')", "PF409", "the probe has 1 values"),
        ("compare('[1]', '[1,2]')", "PF409", "templates of 1 and of 2 values"),
    ],
)
def test_what_makes_no_sense_is_refused(
    connection: Connection, version: Version, call: str, state: str, said: str
) -> None:
    values = {
        "gallery": version.gallery,
        "probe": HalfVector(hand_made.one_hot(0, D)),
        "long": HalfVector(2 * hand_made.one_hot(0, D)),
    }
    with pytest.raises(psycopg.DatabaseError, match=said) as caught:
        connection.execute(f"SELECT pfstore.{call}".encode(), values)
    assert caught.value.sqlstate == state


@pytest.mark.parametrize("call", ["search(%s, NULL)", "search(NULL, %s)", "verify(%s, 's0001', NULL)"])
def test_null_is_not_a_probe_nor_a_gallery(connection: Connection, version: Version, call: str) -> None:
    given = HalfVector(hand_made.one_hot(0, D)) if "(NULL" in call else version.gallery
    with pytest.raises(psycopg.DatabaseError) as caught:
        connection.execute(f"SELECT pfstore.{call}".encode(), (given,))
    assert caught.value.sqlstate in ("PF404", "PF422")


def test_a_gallery_without_an_active_version(connection: Connection, version: Version) -> None:
    galleries.ensure(connection, "new", Contract("x", D, "unit", version.model_digest, "set"), 1)
    with pytest.raises(psycopg.DatabaseError, match="gallery 'new' has no active version yet"):
        _rows(connection, "SELECT pfstore.search('new', %s)", HalfVector(hand_made.one_hot(0, D)))


def test_a_search_reads_only_and_leaves_the_session_as_it_was(connection: Connection, version: Version) -> None:
    indexing.build(connection, version)
    connection.execute("SET hnsw.ef_search = 33")
    connection.execute("SET work_mem = '5MB'")
    settings = "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> 'transaction_read_only'"
    before = sorted(_rows(connection, settings))
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        probe = _template(connection, version, "s0007")
        assert _rows(connection, "SELECT subject FROM pfstore.search(%s, %s, 1)", version.gallery, probe) == [
            ("s0007",)
        ]
        assert sorted(_rows(connection, settings)) == before


def test_an_operator_of_the_callers_own_is_not_taken(connection: Connection, version: Version) -> None:
    probe = _template(connection, version, "s0007")
    connection.execute("CREATE SCHEMA mine")
    connection.execute(
        "CREATE FUNCTION mine.zero(halfvec, halfvec) RETURNS float8 IMMUTABLE LANGUAGE sql AS 'SELECT 0::float8'"
    )
    connection.execute("CREATE OPERATOR mine.<#> (leftarg = halfvec, rightarg = halfvec, function = mine.zero)")
    connection.execute("SET search_path = mine, public")
    [(score,)] = _rows(connection, "SELECT score FROM pfstore.search(%s, %s, 1)", version.gallery, probe)
    assert score == pytest.approx(1, abs=1e-3)
