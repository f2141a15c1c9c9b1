"""Opening a SQL store: what is wrong is said in one line, and nothing is ever written."""

from __future__ import annotations

import builtins
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from pfstore.config import SourceConfig
from pfstore.errors import ConfigError, SourceError
from pfstore.sources.sql import SqlSource

MAPPING: dict[str, Any] = {
    "table": "faces",
    "subject": "person",
    "feature": {"column": "vec", "encoding": "float32-le"},
    "extractor": "net",
}
V = np.ones(2, dtype="<f4").tobytes()
SERVERS = [
    pytest.param("mariadb_url", id="mariadb", marks=pytest.mark.mariadb),
    pytest.param("postgres15_url", id="postgres15", marks=pytest.mark.postgres15),
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "a store #1?.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE faces (id INTEGER PRIMARY KEY, person TEXT, vec BLOB)")
    connection.execute('CREATE TABLE "odd.name ""x""" (id INTEGER PRIMARY KEY, "per.son" TEXT, vec BLOB)')
    for table in ("faces", '"odd.name ""x"""'):
        connection.execute(f"INSERT INTO {table} VALUES (1, 'anna', ?)", [V])
    connection.commit()
    connection.close()
    return path


@pytest.fixture(params=SERVERS)
def server_url(request: pytest.FixtureRequest) -> str:
    url = str(request.getfixturevalue(request.param))
    kind = "BLOB" if "mysql" in url else "BYTEA"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE faces (id INTEGER PRIMARY KEY, person VARCHAR(9), vec {kind})")
    return url


def sqlite_url(path: Path) -> str:
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


def opened(url: str, **changes: Any) -> SqlSource:
    return SqlSource(SourceConfig(url=url, **(MAPPING | changes)), "hr")


def failure(url: str, **changes: Any) -> str:
    with pytest.raises(SourceError) as error:
        opened(url, **changes)
    message = str(error.value)
    assert message.startswith("source hr")
    assert "\n" not in message
    assert "FROM" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "face"}, "no table 'face'; did you mean faces?"),
        ({"table": "main.fces"}, "no table 'main.fces'; did you mean main.faces?"),
        ({"subject": "persn"}, "subject: there is no column 'persn'; did you mean person? (known: id, person, vec)"),
        ({"subject": ("id", "name")}, "subject: there is no column 'name'"),
        ({"medium": "image"}, "medium: there is no column 'image'"),
        ({"feature": {"column": "embedding", "encoding": "npy"}}, "feature: there is no column 'embedding'"),
        ({"quality": "score"}, "quality: there is no column 'score'"),
        ({"changed": "updated"}, "changed: there is no column 'updated'"),
        ({"extractor": {"column": "net"}}, "extractor: there is no column 'net'"),
        ({"table": None, "query": "SELECT * FROM nowhere"}, "no such table: nowhere"),
        ({"table": None, "query": "DELETE FROM faces"}, "must be one SELECT"),
        ({"table": None, "query": "SELECT 1; DELETE FROM faces"}, "must be one SELECT"),
    ],
)
def test_a_mapping_that_does_not_fit_names_what_is_missing(store: Path, changes: dict[str, Any], message: str) -> None:
    assert message in failure(sqlite_url(store), **changes)


def test_the_servers_say_the_same(server_url: str) -> None:
    assert "no table 'face'; did you mean faces?" in failure(server_url, table="face")
    assert "no column 'persn'; did you mean person?" in failure(server_url, subject="persn")
    assert "no table 'nowhere.faces'" in failure(server_url, table="nowhere.faces")


@pytest.mark.parametrize("url", ["postgresql://me:S3CR@ET/x@127.0.0.1/nodb", "mysql://me:@S3CR@ET@host/db"])
def test_a_password_with_an_at_sign_is_not_printed_in_parts(url: str) -> None:
    message = failure(url)
    assert "percent-encode the password" in message
    assert not any(part in message for part in ("S3CR", "ET", "127", "host"))


def test_names_are_taken_as_they_are_first(store: Path) -> None:
    with opened(sqlite_url(store), table='odd.name "x"', subject="per.son") as source:
        assert source.sample().subjects == 1
    with opened(sqlite_url(store), table="main.faces", subject="PERSON") as source:
        assert source.sample().subjects == 1


def test_a_schema_may_be_named(server_url: str) -> None:
    schema = "public" if "postgres" in server_url else str(sa.make_url(server_url).database)
    with opened(server_url, table=f"{schema}.faces") as source:
        assert source.sample().read == 0


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_no_file_is_an_error(url: str) -> None:
    assert "there is no SQLite file" in failure(url)


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    assert f"there is no SQLite file {tmp_path / 'no.db'}" in failure(sqlite_url(tmp_path / "no.db"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("these are not the faces you are looking for" * 100)
    assert "file is not a database" in failure(sqlite_url(path))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://reader:s3cret@127.0.0.1:1/hr",
        "postgresql://reader:s3cret@127.0.0.1:1/hr",
        "postgresql:///hr?host=127.0.0.1&port=1&user=reader&password=s3cret",
    ],
)
def test_an_unreachable_server_is_one_line_without_the_password(url: str) -> None:
    message = failure(url)
    assert "cannot be opened" in message
    assert "refused" in message
    assert "s3cret" not in message


@pytest.mark.mariadb
def test_a_wrong_password_is_not_shown(mariadb_url: str) -> None:
    message = failure(sa.make_url(mariadb_url).set(username="nobody", password="s3cret").render_as_string(False))
    assert "Access denied for user 'nobody'" in message
    assert "s3cret" not in message


@pytest.mark.postgres15
def test_a_database_that_is_not_there_is_named(postgres15_url: str) -> None:
    url = sa.make_url(postgres15_url).set(database="nowhere", password="s3cret").render_as_string(False)
    message = failure(url)
    assert 'database "nowhere" does not exist' in message
    assert "s3cret" not in message


@pytest.mark.parametrize("url", ["nonsense s3cret", "mysql://a:s3cret@host:port/x"])
def test_an_unreadable_url_is_not_repeated(url: str) -> None:
    message = failure(url)
    assert "the URL cannot be read" in message
    assert "s3cret" not in message


def test_an_unknown_option_of_the_url_is_named() -> None:
    assert "cannot be opened" in failure("mysql://u:s3cret@127.0.0.1/x?nonsense=1")
    assert "nonsense" in failure("postgresql://u:s3cret@127.0.0.1/x?nonsense=1")


def test_an_unknown_database_is_named() -> None:
    assert "no kind of database 'mysqll'" in failure("mysqll://u:s3cret@h/x")


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_pymysql(name: str, *rest: Any, **named: Any) -> Any:
        if name == "pymysql":
            raise ModuleNotFoundError("No module named 'pymysql'", name="pymysql")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_pymysql)
    assert "pip install 'pfstore[mysql]'" in failure("mysql://reader@127.0.0.1/hr")


def test_an_unknown_encoding_is_an_error_of_the_configuration(store: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean float32-le"):
        opened(sqlite_url(store), feature={"column": "vec", "encoding": "float32le"})


def test_pickle_is_refused_unless_allowed(store: Path) -> None:
    feature = {"column": "vec", "encoding": "pickle"}
    with pytest.raises(ConfigError, match="allow_pickle"):
        opened(sqlite_url(store), feature=feature)
    with opened(sqlite_url(store), feature=feature, allow_pickle=True) as source:
        assert source.sample().rejects[0].reason == "undecodable"


def test_an_sqlite_file_is_not_touched(store: Path) -> None:
    before = hashlib.sha256(store.read_bytes()).digest(), store.stat().st_mtime_ns
    store.chmod(0o444)
    with opened(sqlite_url(store)) as source:
        source.sample()
        for shard in source.shards(10):
            read = [batch.read for batch in source.read(shard.range, dimension=2, features=10)]
            assert sum(read) == shard.features
    assert (hashlib.sha256(store.read_bytes()).digest(), store.stat().st_mtime_ns) == before
    assert [path.name for path in store.parent.iterdir()] == [store.name]


def test_an_sqlite_snapshot_cannot_write(store: Path) -> None:
    with opened(sqlite_url(store)) as source, pytest.raises(SourceError, match="readonly database"):
        write(source)


def test_a_server_snapshot_cannot_write(server_url: str) -> None:
    with opened(server_url) as source, pytest.raises(SourceError, match=r"read-only transaction|READ ONLY transaction"):
        write(source)


def write(source: SqlSource) -> None:
    with source._database.snapshot() as connection:
        connection.exec_driver_sql("DELETE FROM faces")


@pytest.mark.postgres15
def test_a_query_that_writes_is_refused_by_postgres(postgres15_url: str) -> None:
    engine = sa.create_engine(postgres15_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE s")
    query = "SELECT nextval('s')::text AS person, '\\x00'::bytea AS vec"
    with opened(postgres15_url, table=None, query=query) as source, pytest.raises(SourceError) as error:
        source.sample()
    assert "cannot execute nextval() in a read-only transaction" in str(error.value)


def test_a_reader_sees_one_state_while_others_write(server_url: str) -> None:
    engine = sa.create_engine(server_url, poolclass=sa.NullPool)
    faces = sa.table("faces", sa.column("id"), sa.column("person"), sa.column("vec"))
    with engine.begin() as connection:
        connection.execute(faces.insert(), [{"id": i, "person": f"{i:05d}", "vec": V} for i in range(5000)])
    with opened(server_url) as source:
        batches = source.read({"after": None, "to": None}, dimension=2, features=10)
        seen = next(iter(batches)).read
        with engine.begin() as connection:  # waits for no lock of the reader
            connection.execute(faces.delete().where(sa.column("id") > 100))
        seen += sum(batch.read for batch in batches)
    assert seen == 5000


@pytest.mark.parametrize("seconds", [0.2])
def test_a_statement_that_takes_too_long_is_stopped(server_url: str, seconds: float) -> None:
    wait = "SLEEP(30)" if "mysql" in server_url else "pg_sleep(30)"
    query = f"SELECT 'a' AS person, 'b' AS vec FROM (SELECT {wait}) AS w"
    if "mysql" not in server_url:
        query = "SELECT 'a' AS person, 'b' AS vec FROM pg_sleep(30)"
    with (
        pytest.raises(SourceError, match="timeout|max_statement_time"),
        opened(server_url, table=None, query=query, statement_timeout=seconds) as source,
    ):
        list(source.shards(10))


def test_an_error_in_the_middle_is_one_line(server_url: str) -> None:
    engine = sa.create_engine(server_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO faces VALUES (1, 'a', NULL)")
    with opened(server_url) as source:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE faces")
        with pytest.raises(SourceError, match="faces") as error:
            list(source.read({"after": ["x-secret"], "to": None}, dimension=2, features=10))
    message = str(error.value)
    assert "\n" not in message
    assert "x-secret" not in message
    assert "SELECT" not in message
