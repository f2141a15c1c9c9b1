import pytest
from psycopg.errors import CheckViolation

from pfstore.errors import ConflictError, NotFoundError
from pfstore.gallery import galleries, indexing, models
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Contract, Version


@pytest.fixture
def contract(connection: Connection) -> Contract:
    model = models.resolve(connection, "average")
    return Contract("test-extractor", 4, model.normalisation, model.digest, "set")


def _fill(connection: Connection, version: Version, *subjects: str) -> None:
    for subject in subjects:
        connection.execute(
            "INSERT INTO pfstore.templates VALUES (%s, %s, '[1,0,0,0]', 1, 1, '', 1, now())",
            (version.version_id, subject),
        )


def test_the_same_contract_is_the_same_version(connection: Connection, contract: Contract) -> None:
    first = galleries.ensure(connection, "staff", contract, 1)
    assert galleries.ensure(connection, "staff", contract, 1) == first
    assert (first.number, first.state, first.empty) == (1, "building", True)


def test_another_contract_is_another_version(connection: Connection, contract: Contract) -> None:
    galleries.ensure(connection, "staff", contract, 1)
    other = Contract(**{**contract.__dict__, "extractor": "other"})
    second = galleries.ensure(connection, "staff", other, 1)
    assert second.number == 2
    assert second.contract == other


def test_one_version_answers(connection: Connection, contract: Contract) -> None:
    first = galleries.ensure(connection, "staff", contract, 1)
    _fill(connection, first, "a")
    with pytest.raises(NotFoundError, match="its first version is still being built; run `pfstore backfill staff`"):
        galleries.version(connection, "staff")
    galleries.promote(connection, "staff", 1, force=True)
    second = galleries.ensure(connection, "staff", Contract(**{**contract.__dict__, "strategy": "media"}), 1)
    with pytest.raises(NotFoundError, match="version 2 holds no template"):
        galleries.promote(connection, "staff", 2, force=True)
    _fill(connection, second, "a", "b")
    assert galleries.promote(connection, "staff", 2, force=True).state == "active"
    assert galleries.counts(connection) == {first.version_id: 1, second.version_id: 2}
    assert [one.state for one in galleries.versions(connection, "staff")] == ["retired", "active"]
    assert galleries.rollback(connection, "staff").number == 1
    assert galleries.version(connection, "staff").number == 1


def test_nothing_to_roll_back_to(connection: Connection, contract: Contract) -> None:
    _fill(connection, galleries.ensure(connection, "staff", contract, 1), "a")
    galleries.promote(connection, "staff", 1, force=True)
    with pytest.raises(NotFoundError, match="no earlier version"):
        galleries.rollback(connection, "staff")


def test_dropping(connection: Connection, contract: Contract) -> None:
    first = galleries.ensure(connection, "staff", contract, 1)
    _fill(connection, first, "a", "b")
    galleries.promote(connection, "staff", 1, force=True)
    with pytest.raises(ConflictError, match="answers the searches"):
        galleries.drop(connection, "staff", 1)
    assert galleries.drop(connection, "staff") == 2
    assert galleries.names(connection) == []
    row = connection.execute("SELECT to_regclass('pfstore.templates_v%s')", (first.version_id,)).fetchone()
    assert row == (None,)


def test_unknown_and_empty(connection: Connection) -> None:
    galleries.create(connection, "staff")
    with pytest.raises(NotFoundError, match="no gallery 'stuff'; did you mean staff"):
        galleries.version(connection, "stuff")
    with pytest.raises(NotFoundError, match="it is empty; run `pfstore backfill staff`"):
        galleries.version(connection, "staff")
    with pytest.raises(NotFoundError, match=r"no version 7 \(there: none\)"):
        galleries.version(connection, "staff", 7)
    with pytest.raises(ConflictError, match="already is a gallery 'staff'"):
        galleries.create(connection, "staff")


@pytest.mark.parametrize("name", ['a"b', "a'; DROP TABLE pfstore.models; --", "ü" * 60, "select"])
def test_any_name_is_a_name(connection: Connection, contract: Contract, name: str) -> None:
    _fill(connection, galleries.ensure(connection, name, contract, 1), "a")
    assert galleries.promote(connection, name, 1, force=True).gallery == name
    indexing.build(connection, galleries.version(connection, name))
    assert galleries.version(connection, name).indexed
    indexing.drop(connection, galleries.version(connection, name))
    assert not galleries.version(connection, name).indexed
    assert galleries.drop(connection, name) == 1


def test_the_schema_keeps_the_accounts(connection: Connection, contract: Contract) -> None:
    version = galleries.ensure(connection, "staff", contract, 1)
    connection.execute(
        "INSERT INTO pfstore.runs (version_id, kind, whole, source, plan, state, pfstore)"
        " VALUES (%s, 'backfill', true, 'x', 'x', 'running', '0')",
        (version.version_id,),
    )
    with pytest.raises(CheckViolation):
        connection.execute(
            "INSERT INTO pfstore.shards (run_id, number, range, planned_features, planned_subjects, read)"
            " SELECT run_id, 0, '{}', 1, 1, 1 FROM pfstore.runs"
        )
