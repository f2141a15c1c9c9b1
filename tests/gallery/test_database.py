from pathlib import Path

import pytest
import sqlalchemy as sa

from pfstore.errors import DatabaseError
from pfstore.gallery.database import Database


def _failure(url: str) -> str:
    with pytest.raises(DatabaseError) as error, Database.open(url, Path()).connect():
        pass
    return str(error.value)


def test_no_server() -> None:
    said = _failure("postgresql://me:hunter2@127.0.0.1:1/faces")
    assert "127.0.0.1:1/faces" in said
    assert "is the server running" in said
    assert "hunter2" not in said
    assert "\n" not in said


def test_a_wrong_password_is_not_printed(server_uri: str, tmp_path: Path) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(server_uri, autocommit=True) as connection:
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        row = connection.execute("SHOW hba_file").fetchone()
        assert row is not None
        rules = Path(row[0])
        before = rules.read_text()
        rules.write_text("local all guarded scram-sha-256\n" + before)
        connection.execute("SELECT pg_reload_conf()")
        try:
            url = sa.make_url(server_uri).set(username="guarded", password="hunter2")
            said = _failure(url.render_as_string(hide_password=False))
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(sql.SQL("DROP ROLE guarded"))
    assert "password authentication failed" in said
    assert "check the user and the password" in said
    assert "hunter2" not in said


def test_another_kind_of_database() -> None:
    with pytest.raises(DatabaseError, match=r"needs PostgreSQL, not mysql.*\[sources\]"):
        Database.open("mysql+pymysql://root@h/x", Path())


@pytest.mark.parametrize("url", ["nonsense", "", "://"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(DatabaseError, match="cannot be read"):
        Database.open(url, Path())


def test_an_unknown_database(server_uri: str) -> None:
    url = sa.make_url(server_uri).set(database="nowhere")
    assert 'database "nowhere" does not exist' in _failure(url.render_as_string(hide_password=False))


def test_the_password_is_not_in_the_repr_of_the_url() -> None:
    database = Database.open("postgresql://me:hunter2@h/x", Path())
    assert "hunter2" not in database.shown
    assert "hunter2" not in repr(database)


def test_parameters_of_a_url_that_could_be_passwords_are_not_shown() -> None:
    said = _failure("postgresql://127.0.0.1:1/x?user=me&password=hunter2&sslmode=disable")
    assert "hunter2" not in said
    assert "sslmode=disable" in said


def test_an_unquoted_password_is_not_half_shown() -> None:
    with pytest.raises(DatabaseError, match="percent-encode the password") as error:
        Database.open("postgresql://me:S3CR@ET@127.0.0.1/x", Path())
    assert "ET@" not in str(error.value)


def test_the_embedded_servers_socket_is_private(server_uri: str) -> None:
    folder = sa.make_url(server_uri).query["host"]
    sockets = [path for path in Path(str(folder)).glob(".s.PGSQL.*") if path.is_socket()]
    assert [oct(path.stat().st_mode & 0o777) for path in sockets] == ["0o700"]
