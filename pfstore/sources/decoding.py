"""Decoding pages of values in their order, where that is slow in processes beside the one that reads."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

import numpy as np

from pfstore.errors import SourceError
from pfstore.sources.encodings import Decoded, Encoding
from pfstore.stages import stage

LEAST_PROCESSES, MOST_PROCESSES = 3, 4
"""One or two gain nothing on what it costs to send them values, and a reader gives no more than four anything to do."""

ALONE = 2**15
"""Values that are decoded before processes are started: about a second's work, and to start one takes half of that."""

_T = TypeVar("_T")
_Page: TypeAlias = tuple[_T, Sequence[Any]]
_MAIN = "import sys; sys.path[:] = {path!r}; from pfstore.sources.decoding import serve; serve()"


class PageDecoder:
    """Decodes one encoding. processes: how many may help; None for as many as pay, 0 for none.

    They start once there has been much to decode, and end with this object or with this process, however that ends.
    """

    def __init__(self, encoding: Encoding, processes: int | None = None) -> None:
        self._encoding = encoding
        # Half of the processors are left to reading, fusing and the servers.
        fitting = min(MOST_PROCESSES, _processors() // 2 - 1)
        usual = fitting if encoding.is_slow and fitting >= LEAST_PROCESSES else 0
        self._processes = usual if processes is None else processes
        self._alone = ALONE
        self._helpers: _Helpers | None = None

    def decoded(self, pages: Iterable[_Page[_T]]) -> Iterator[tuple[_T, Decoded]]:
        """Yield what stands beside each page's values and those decoded, in the order of the pages.

        Raises SourceError where a process that helps has ended.
        """
        waiting: deque[tuple[_T, Future[Decoded] | Decoded]] = deque()
        try:
            for beside, values in pages:
                waiting.append((beside, self._begun(values, waiting)))
                while waiting and (len(waiting) > 2 * self._processes or _is_done(waiting[0][1])):
                    yield _finished(*waiting.popleft())
            while waiting:
                yield _finished(*waiting.popleft())
        finally:
            for _, pending in waiting:
                if isinstance(pending, Future):
                    pending.cancel()

    def close(self) -> None:
        """End the processes."""
        if self._helpers:
            self._helpers.close()
            self._helpers = None

    def _begun(self, values: Sequence[Any], waiting: Sequence[tuple[Any, Future[Decoded] | Decoded]]) -> Any:
        """Hand the values to a process; decode them here where there is none, or all have enough to do."""
        if self._helpers is None and self._processes and self._alone <= 0:
            self._helpers = _Helpers(self._encoding, self._processes)
        if self._helpers and _are_plain(values):
            at_work = sum(isinstance(one, Future) and not one.done() for _, one in waiting)
            if at_work < 2 * self._processes:
                return self._helpers.decode(values)
        self._alone -= len(values)
        with stage("decoding"):
            return self._encoding.decode_many(values)


class _Helpers:
    """Processes that decode, and a thread for each that waits for it."""

    def __init__(self, encoding: Encoding, count: int) -> None:
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._processes = [_started(encoding) for _ in range(count)]
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="pfstore-decoding")

    def decode(self, values: Sequence[Any]) -> Future[Decoded]:
        return self._threads.submit(self._decode, values)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._threads.shutdown()
        for process in self._processes:
            _close_pipes(process)

    def _decode(self, values: Sequence[Any]) -> Decoded:
        process = self._idle.get()
        try:
            _send(process.stdin, values)
            answer: Decoded | BaseException = pickle.load(process.stdout)  # type: ignore[arg-type]  # noqa: S301
        except (OSError, EOFError, pickle.UnpicklingError):
            code = process.wait()
            raise SourceError(f"a process that decoded features has ended ({_words(code)}); run it again") from None
        finally:
            self._idle.put(process)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def serve() -> None:
    """Decode what the process that started this one sends, until it sends no more or is no more."""
    came, goes = sys.stdin.buffer, sys.stdout.buffer
    encoding: Encoding = pickle.load(came)  # noqa: S301 - nobody else holds the other end
    while True:
        try:
            values = pickle.load(came)  # noqa: S301
        except EOFError:
            return
        try:
            answer: Decoded | BaseException = _dense(encoding.decode_many(values))
        except Exception as error:
            answer = error
        try:
            _send(goes, answer)
        except BrokenPipeError:
            # Python would complain of what it could not send.
            os._exit(1)


def _started(encoding: Encoding) -> subprocess.Popen[bytes]:
    # A group of its own, so that Ctrl-C reaches this process alone; the others end when their input does.
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _MAIN.format(path=sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    )
    _send(process.stdin, encoding)
    return process


def _send(stream: Any, message: object) -> None:
    pickle.dump(message, stream, protocol=5)
    stream.flush()


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe:
            try:
                pipe.close()
            except BrokenPipeError:  # what was still to be sent
                continue


def _finished(beside: _T, pending: Future[Decoded] | Decoded) -> tuple[_T, Decoded]:
    if isinstance(pending, Decoded):
        return beside, pending
    with stage("decoding"):
        return beside, pending.result()


def _is_done(pending: Future[Decoded] | Decoded) -> bool:
    return isinstance(pending, Decoded) or pending.done()


def _are_plain(values: Sequence[Any]) -> bool:
    """Tell whether values are text or bytes, which another process gets faster than they are decoded."""
    return set(map(type, values)) <= {str, bytes, type(None)}


def _dense(decoded: Decoded) -> Decoded:
    """Put features of one length into one array, which travels as such."""
    features = decoded.features
    lengths = {None if feature is None else len(feature) for feature in features}
    if isinstance(features, np.ndarray) or len(lengths) != 1 or None in lengths:
        return decoded
    return Decoded(np.stack([feature for feature in features if feature is not None]), decoded.faults)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
