"""Replicas that searches are sent to: how far one is behind its primary, and whether it is one at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from pfstore.gallery.database import Connection
from pfstore.gallery.findings import Finding

MOST_LAG = 60.0
"""Seconds that a replica may be behind before that is worth a warning."""


@dataclass(frozen=True)
class Replica:
    """What a server tells of itself as a replica.

    standby: it replays the changes of another server. receiving: it is connected to that one. paused: its replay is.
    lag: seconds, at most; 0.0 where everything received is replayed, None where nobody knows.
    system: the identifier that a primary and its replicas share, None where the user may not ask.

    Equal positions alone mean nothing: a standby that lost its primary has replayed all that it ever received. So 0.0
    needs a receiver that runs, and nothing to replay up to where the primary last said that it is, or, for a user who
    may not see that, up to what was received. Else the lag is the age of the last transaction replayed: no less than
    the true one but for the difference of two clocks, and more where the primary had nothing to write. A line that is
    cut is noticed after the standby's wal_receiver_timeout.
    """

    standby: bool
    receiving: bool
    paused: bool
    lag: float | None
    system: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        told = asdict(self)
        return {"lag_seconds": told.pop("lag")} | told


# Who may not see details of the receiver sees that there is one; pg_is_wal_replay_paused fails on a primary. What a
# receiver has flushed starts anew with each connection, so that it can be less than what is replayed.
_STATE = """
    SELECT standby, receiving, standby AND CASE WHEN standby THEN pg_is_wal_replay_paused() END AS paused,
           CASE WHEN receiving AND pg_last_wal_replay_lsn() >= greatest(pg_last_wal_receive_lsn(), said) THEN 0
                -- greatest() would make 0 of what is not known.
                WHEN pg_last_xact_replay_timestamp() > clock_timestamp() THEN 0
                ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())
           END::double precision AS lag
    FROM pg_is_in_recovery() AS standby,
         (SELECT coalesce(bool_or(coalesce(status, 'streaming') = 'streaming'), false), max(latest_end_lsn)
          FROM pg_stat_wal_receiver) AS receiver (receiving, said)
"""


@dataclass(frozen=True)
class _State:
    standby: bool
    receiving: bool
    paused: bool
    lag: float | None


def lag(connection: Connection) -> float | None:
    """Return how many seconds a server is behind its primary, as Replica tells; None also where it is no replica."""
    return _state(connection).lag


def said(seconds: float | None) -> str:
    """Return a lag in words."""
    if seconds is None:
        return "nobody knows how far behind"
    return f"at most {seconds:,.1f} s behind" if seconds else "not behind"


def examine(connection: Connection) -> Replica:
    """Ask a server what it is; changes nothing."""
    return Replica(**vars(_state(connection)), system=system(connection))


def system(connection: Connection) -> int | None:
    """Return the identifier that a primary and its replicas share, None where the user may not ask for it."""
    try:
        row = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    assert row is not None
    return int(row[0])


def findings(replica: Replica, shown: str, primary: int | None) -> Iterator[Finding]:
    """Judge a replica. shown: its URL without a password. primary: the identifier of the primary's system."""
    other = None not in (replica.system, primary) and replica.system != primary
    if not replica.standby:
        what = f"read_url, {shown}, is no replica: it replays nothing"
        what += ", and it is another system than the primary" if other else ", so it is the primary or was promoted"
        yield Finding(what, "warning", "give a standby of the primary as read_url, or take read_url out")
        return
    if other:
        what = f"read_url, {shown}, is a replica of another system than the primary: searches answer from its templates"
        yield Finding(what, "warning", "give url and read_url of one system")
    if replica.paused:
        what = f"the replica {shown} is paused, so it does not see what is written"
        yield Finding(what, "warning", "run SELECT pg_wal_replay_resume() on it")
    if not replica.receiving:
        what = f"the replica {shown} receives nothing from its primary ({said(replica.lag)})"
        yield Finding(what, "warning", "see its log, and primary_conninfo; a replica that is fed from an archive is so")
    if replica.lag is not None and replica.lag > MOST_LAG:
        what = f"the replica {shown} is {said(replica.lag)}: searches miss who was written since"
        yield Finding(what, "warning", "see what holds up its replay; until then search with --fresh")


def _state(connection: Connection) -> _State:
    row = connection.cursor(row_factory=class_row(_State)).execute(_STATE).fetchone()
    assert row is not None
    return row
