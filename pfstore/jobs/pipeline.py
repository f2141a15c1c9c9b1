"""Reading, fusing and writing at the same time: a thread for each, a few batches between them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from pfstore.gallery.database import Connection
from pfstore.gallery.deadlines import free
from pfstore.gallery.runs import Counts
from pfstore.gallery.writing import ShardWriter
from pfstore.jobs.fusing import Fused, ShardFuser
from pfstore.sources.base import SourceBatch
from pfstore.stages import Stopwatch, measured, stage

Made = TypeVar("Made")


@contextmanager
def pipelined(
    connection: Connection, fuser: ShardFuser, writer: ShardWriter, *, ahead: int, done: Callable[[Counts], None]
) -> Iterator[Pipeline]:
    """Open a pipeline; all that was handed in is committed in the end, and no thread is left.

    The connection is the pipeline's for as long. ahead: the rows that may be on their way, or one batch of more.
    done: told, in the caller's thread, what each batch and each commit counted.
    After an error shards that are complete are still committed. After Ctrl-C the statement that runs is cancelled
    and the connection is of no more use.
    """
    pipeline = Pipeline(fuser, writer, ahead, done)
    try:
        try:
            yield pipeline
            pipeline.finish()
        except Exception:
            pipeline.settle()
            pipeline.close()
            raise
    except BaseException as error:
        # Ctrl-C may also come while an error is waited out.
        if not isinstance(error, Exception):
            pipeline.interrupt(connection)
        raise
    finally:
        pipeline.close()


class Pipeline:
    """Takes the batches of one shard after the other from the thread that reads them; opened by `pipelined`.

    One thread checks what is new, one fuses, and one does everything on the gallery's connection.
    """

    def __init__(self, fuser: ShardFuser, writer: ShardWriter, ahead: int, done: Callable[[Counts], None]) -> None:
        self._fuser = fuser
        self._writer = writer
        self._ahead = ahead
        self._done = done
        self._checking, self._fusing, self._gallery = (_Worker(name) for name in ("checking", "fusing", "writing"))
        self._rows = 0  # on their way: handed in, and not yet known to be written
        self._unwritten: tuple[int, Future[Fused]] | None = None
        self._writing: deque[tuple[int, Future[Counts]]] = deque()  # rows of a batch, 0 of a commit; oldest first
        self._committing: Future[Counts] | None = None
        self._counts = Counts()  # of the shard that is being written

    @property
    def watches(self) -> list[Stopwatch]:
        """What the threads measured, complete when the pipeline is closed."""
        return [worker.watch for worker in (self._checking, self._fusing, self._gallery)]

    def begin(self) -> None:
        """Begin a shard, after the commit of the one before."""
        self._gallery.do(self._writer.clear)

    def put(self, batch: SourceBatch) -> None:
        """Take a batch and wait while too many rows are on their way. Raises what went wrong with it or any before."""
        subjects = [*batch.features.subject_ids, *batch.rejected_subjects]
        prints = self._checking.do(lambda: _prints(batch))
        # The gallery is asked about this batch before it is given the last, so that this one is fused meanwhile.
        known = self._gallery.do(lambda: self._known(subjects))
        self._write()
        self._unwritten = batch.read, self._fusing.do(lambda: self._fuse(batch, prints, known))
        self._rows += batch.read
        self._wait(self._ahead)

    def commit(self, shard: int) -> None:
        """Commit a shard of which every batch was handed in, behind all that is on its way."""
        self._write()
        self._committing = self._gallery.do(lambda: self._commit(shard))
        self._writing.append((0, self._committing))

    def finish(self) -> None:
        """Wait until everything is written. Raises what went wrong."""
        self._wait(0)

    def settle(self) -> None:
        """Wait for the last commit, which is of a complete shard whatever happened to those after it."""
        if self._committing:
            with suppress(Exception):
                self._committing.result()

    def interrupt(self, connection: Connection) -> None:
        """End what runs on the connection."""
        self._gallery.drop()
        if not self._gallery.idle(0):
            free(connection, self._gallery.idle)

    def close(self) -> None:
        """Drop what has not begun and wait for the rest."""
        workers = (self._checking, self._fusing, self._gallery)
        for worker in workers:
            worker.drop()
        for worker in workers:
            worker.join()

    def _wait(self, most: int) -> None:
        while self._rows > most or (self._writing and (most == 0 or self._writing[0][1].done())):
            if not self._writing:
                self._write()
            rows, written = self._writing.popleft()
            counts = written.result()
            self._rows -= rows
            self._done(counts)

    def _write(self) -> None:
        if self._unwritten is not None:
            rows, fused = self._unwritten
            self._unwritten = None
            self._writing.append((rows, self._gallery.do(lambda: self._put(fused))))

    # What follows runs in the threads.

    def _known(self, subjects: Sequence[str]) -> Mapping[str, bytes]:
        with stage("writing"):
            return self._writer.known(subjects)

    def _fuse(self, batch: SourceBatch, prints: Future[Sequence[bytes]], known: Future[Mapping[str, bytes]]) -> Fused:
        there, now = known.result(), prints.result()
        with stage("fusing"):
            return self._fuser.fuse(batch, now, there)

    def _put(self, fused: Future[Fused]) -> Counts:
        made = fused.result()
        with stage("writing"):
            made.write(self._writer)
        self._counts += made.counts
        return made.counts

    def _commit(self, shard: int) -> Counts:
        counts, self._counts = self._counts, Counts()
        with stage("writing"):
            total = self._writer.commit(shard, counts)
        return Counts(removed=total.removed - counts.removed)


def _prints(batch: SourceBatch) -> Sequence[bytes]:
    with stage("checking"):
        return batch.features.fingerprints()


class _Worker:
    """A thread that does one thing after the other until one fails; then every other fails with it."""

    def __init__(self, name: str) -> None:
        self.watch = Stopwatch()
        self._executor = ThreadPoolExecutor(1, f"pfstore-{name}")
        self._busy = threading.Lock()
        self._failure: BaseException | None = None

    def do(self, job: Callable[[], Made]) -> Future[Made]:
        """Do this when all before is done."""
        return self._executor.submit(self._run, job)

    def idle(self, seconds: float) -> bool:
        """Wait for what runs, so long at the most, and tell whether it has ended."""
        ended = self._busy.acquire(timeout=seconds)
        if ended:
            self._busy.release()
        return ended

    def drop(self) -> None:
        """Do nothing more of what was asked for."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._executor.shutdown()

    def _run(self, job: Callable[[], Made]) -> Made:
        with self._busy, measured(self.watch):
            # After a failed statement the connection refuses others, with an error that tells nothing.
            if self._failure is not None:
                raise self._failure
            try:
                return job()
            except BaseException as error:
                self._failure = error
                raise
