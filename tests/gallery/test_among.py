"""Searches among some: files and queries that name them, and lists as long as they can be."""

from __future__ import annotations

import numpy as np
import pytest

from pfstore.errors import InputError
from pfstore.gallery import among, galleries, indexing, searching
from pfstore.gallery.among import Names
from pfstore.gallery.database import Connection
from tests.gallery.hand_made import strangers, version_of
from tests.gallery.tuned import tune

ODD = ['a"b', "a\\b", "{a,b}", "NULL", " a ", "", "ü\n", "a'b"]


def test_odd_names_find_themselves(connection: Connection) -> None:
    templates = dict(zip(ODD, strangers(len(ODD)).values(), strict=True))
    version = version_of(connection, templates)
    probe = np.full((1, 16), 0.25, dtype=np.float32)
    [found] = searching.search(connection, version, probe, among=[*ODD, "nobody", "a\0b"])
    assert {one.subject for one in found} == set(ODD)
    for name in ODD:
        [found] = searching.search(connection, version, probe, among=[name])
        assert [one.subject for one in found] == [name]
    assert searching.search(connection, version, probe, among=[]).__next__() == []
    assert among.absent(connection, version, Names([*ODD, "b", "a", "a"])) == ["a", "b"]


@pytest.mark.parametrize("few", [3, 30, 300])
def test_lists_are_as_long_as_they_can_be(connection: Connection, few: int) -> None:
    templates = strangers(600)
    version = version_of(connection, templates)
    probes = np.stack(list(templates.values()))[:5]
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    # The nearest to the first probe are not in it, so that an index comes upon many others first.
    [order] = searching.search(connection, version, probes[:1], top=600)
    names = Names(one.subject for one in order[-few:])
    exact = list(searching.search(connection, version, probes, top=20, among=names))
    galleries.analyze(connection, version)
    indexing.build(connection, version)
    tune(connection, version)
    indexed = list(searching.search(connection, version, probes, top=20, among=names))
    assert [len(one) for one in indexed] == [len(one) for one in exact] == [min(few, 20)] * 5
    assert all({one.subject for one in line} <= set(names) for line in indexed)
    how = searching.how(connection, version, among=few)
    assert how.path == ("exhaustive" if few < 60 else "index")
    assert searching.how(connection, version, among=few, exact=True).exact


def test_a_query_names_them(connection: Connection) -> None:
    connection.execute("CREATE TABLE people (id bigint, code char(4), site int)")
    connection.execute("INSERT INTO people VALUES (1, 'a', 4), (2, 'b', 4), (2, 'b', 4), (NULL, NULL, 4), (5, 'c', 3)")
    assert sorted(among.asked(connection, "SELECT id FROM people WHERE site = 4;")) == ["1", "2"]
    assert sorted(among.asked(connection, "SELECT code FROM people -- 100 % of them")) == ["a", "b", "c"]
    assert sorted(among.asked(connection, "VALUES (true), (NULL)")) == ["true"]
    assert among.asked(connection, "SELECT id FROM people WHERE false") == ()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT id, site FROM people", "gives 2 columns"),
        ("SELECT", "gives 0 columns"),
        ("", "not one query of one column"),
        ("SELECT 1; SELECT 2", "not one query of one column"),
        ("SELECT 1; DELETE FROM people", "not one query of one column"),
        ("SELECT 1) x; DELETE FROM people; SELECT * FROM (SELECT 1", "not one query of one column"),
        ("DELETE FROM people RETURNING id", "not one query of one column"),
        ("SELECT gone()", "read-only"),
        ("SELECT nextval('counter')", "read-only"),
        ("SELECT id FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT 1 / (id - id) FROM people", "division by zero"),
    ],
)
def test_what_is_no_query_of_one_column(connection: Connection, query: str, says: str) -> None:
    connection.execute("CREATE TABLE people AS SELECT 1 AS id, 4 AS site")
    connection.execute("CREATE SEQUENCE counter")
    connection.execute(
        "CREATE FUNCTION gone() RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM people; RETURN 1; END'"
    )
    with pytest.raises(InputError, match=says):
        among.asked(connection, query)
    assert connection.execute("SELECT count(*) FROM people").fetchone() == (1,)
    assert connection.execute("SHOW transaction_read_only").fetchone() == ("off",)


def test_a_query_leaves_no_setting(connection: Connection) -> None:
    assert among.asked(connection, "SELECT set_config('pfstore.x', 'y', false)") == ("y",)
    assert connection.execute("SELECT coalesce(current_setting('pfstore.x', true), '')").fetchone() == ("",)
