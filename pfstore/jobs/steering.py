"""What an operator does to a run: try again what failed, or give the run up."""

from __future__ import annotations

from pfstore.errors import ConflictError, NotFoundError
from pfstore.gallery import undone
from pfstore.gallery.database import Connection
from pfstore.jobs import queue


def retry(connection: Connection, run_id: int, number: int | None = None) -> int:
    """Queue what is left of a run: its failed shards, as if they had not failed, and any others that nobody has.

    number: that shard alone. Returns how many were queued.
    Raises NotFoundError for an unknown run or shard, ConflictError where the run is over or the shard is done.
    """
    undone.going_run(connection, run_id)
    left = undone.numbers(connection, run_id)
    if number is not None and number not in left:
        if undone.shard(connection, run_id, number) is None:
            raise NotFoundError(f"run {run_id} has no shard {number}")
        raise ConflictError(f"shard {number} of run {run_id} is done: there is nothing to try again")
    with connection.transaction():
        undone.forgive(connection, run_id, number)
        return queue.put_shards(connection, run_id, left if number is None else [number])


def cancel(connection: Connection, run_id: int) -> int:
    """Give a run up: what it has done stays, and the workers leave what they have in hand; return how many jobs went.

    The next run of the gallery begins anew. Raises NotFoundError, and ConflictError where the run is over.
    """
    undone.going_run(connection, run_id)
    with connection.transaction():
        undone.abandon(connection, run_id)
        return queue.cancel(connection, run_id)
