"""A search (1:N) against the SELECT that everybody writes first, against HNSW on whole templates, and in process.

All contestants answer the same probes for the ten best, one search at a time, in turns of a few; PostgreSQL's from a
client on the same machine, FAISS and hnswlib as a call of a function. "recall" is the share of mated probes whose
mate, first in an exhaustive search, comes back first; an approximate search is as narrow as lets it reach TARGET, or
the broadest where none does. That is chosen with one half of the probes and measured with the other. Times are of mated
probes but for the column "non-mated ms", their median for probes of people who are not there. The server is embedded
and has shared memory for everything that is searched, for all alike.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import search_accuracy
from bench.harness import Result
from bench.search_data import Crowd, trained
from bench.search_peers import GRID, Contestant, peers
from bench.search_server import (
    NAIVE,
    UNFUSED,
    asking,
    exhaustive,
    load,
    load_naive,
    load_unfused,
    megabytes,
    naive_hnsw,
    pfstore_tuned,
    scanning,
    selecting,
)
from bench.server import server
from pfstore.features import Floats
from pfstore.fusion import load_model
from pfstore.gallery import indexing
from pfstore.gallery.calibration import Probes
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Version

TARGET = 0.999
M, EF_CONSTRUCTION = indexing.M, indexing.EF_CONSTRUCTION
PROBES = 2000
TURN = 10
CLIENTS = (1, 2, 4, 8)
MILLION = "PFSTORE_BENCH_MILLION"


def run(*, big: bool, subjects: int | None = None, probes: int = PROBES, seconds: float = 20.0) -> list[Result]:
    """Search 10,000 people, 100,000 where it is big, and a million too where the environment has MILLION=1.

    subjects: another number of them. seconds: for how long a contestant is timed.
    """
    sizes = [subjects or (100_000 if big else 10_000)]
    sizes += [1_000_000] if os.environ.get(MILLION) == "1" else []
    results = []
    for size in sizes:
        for name in ("real-like", "random") if size < 1_000_000 else ("real-like",):
            with tempfile.TemporaryDirectory() as folder:
                results += _of(name, size, Path(folder), probes, seconds)
    return results


def _of(name: str, subjects: int, folder: Path, probes: int, seconds: float) -> list[Result]:
    folder.chmod(0o755)
    crowd = Crowd.make(name, subjects, folder, mated=probes, non_mated=probes)
    # Of a row: 4 KB in each of two tables, 8 KB in the naive index, 3 KB inline and in our index; and as much again.
    shared = min(512 + subjects * 36 // 1000, 8192)
    results = []
    with server(folder, shared) as database, ExitStack() as stack:
        version, contestants = _contestants(database, crowd, folder, stack)
        results.append(_compared(crowd, contestants, seconds))
        if name == "real-like":
            results.append(_throughput(database, crowd, version, seconds / 10))
        if name == "real-like" and subjects < 1_000_000:
            results.append(_fused_or_not(database, crowd, folder, seconds))
    return results


def _contestants(database: Database, crowd: Crowd, folder: Path, stack: ExitStack) -> tuple[Version, list[Contestant]]:
    first, second, third = (stack.enter_context(database.connect()) for _ in range(3))
    version = load(first, crowd)
    load_naive(first, version)
    made = [
        Contestant("naive SELECT", scanning(second, NAIVE), megabytes(first, "naive")),
        exhaustive(first, version, "pfstore, exact"),
    ]
    half = len(crowd.mates) // 2
    ids = [crowd.population.name(mate) for mate in crowd.mates[:half].tolist()]
    made.append(pfstore_tuned(first, version, M, EF_CONSTRUCTION, Probes(ids, crowd.mated[:half]), TARGET))
    if len(crowd) < 1_000_000:
        # Graphs of a million whole templates take hours and more memory than one would give them.
        made.append(naive_hnsw(third, crowd, M, EF_CONSTRUCTION))
        made += peers(crowd, folder, M, EF_CONSTRUCTION)
    for one in made:
        if one.widen:
            one.breadth = _narrowest(one, crowd, slice(0, half))
    return version, made


def _narrowest(one: Contestant, crowd: Crowd, part: slice) -> int:
    """Set the least breadth that reaches the target with these probes, or the broadest, and return it."""
    assert one.widen
    low, high = 0, len(GRID) - 1
    while low < high:
        middle = (low + high) // 2
        one.widen(GRID[middle])
        reached = _recall(crowd, part, [one.find(probe) for probe in crowd.mated[part]]) >= TARGET
        low, high = (low, middle) if reached else (middle + 1, high)
    one.widen(GRID[low])
    return GRID[low]


def _recall(crowd: Crowd, part: slice, found: list[int]) -> float:
    """Return the recall of searches for the first probes of a part, of which there were so many."""
    findable = crowd.findable[part][: len(found)]
    hits = np.array(found) == crowd.mates[part][: len(found)]
    return float(hits[findable].mean())


@dataclass
class _Taken:
    seconds: list[float] = field(default_factory=list)
    found: list[int] = field(default_factory=list)


def _timed(contestants: list[tuple[Contestant, Floats]], seconds: float) -> dict[str, _Taken]:
    """Let each search for its probes, in turns; who has used up its time stops. Some first searches warm up."""
    taken = {one.name: _Taken() for one, _ in contestants}
    for first in range(-TURN, max(len(probes) for _, probes in contestants), TURN):
        for one, probes in contestants:
            mine = taken[one.name]
            if sum(mine.seconds) > seconds:
                continue
            for probe in probes[max(0, first) : max(0, first) + TURN]:
                started = time.perf_counter()
                found = one.find(probe)
                if first >= 0:
                    mine.seconds.append(time.perf_counter() - started)
                    mine.found.append(found)
    return taken


def _compared(crowd: Crowd, contestants: list[Contestant], seconds: float) -> Result:
    half = slice(len(crowd.mates) // 2, None)
    taken = _timed([(one, crowd.mated[half]) for one in contestants], seconds)
    others = _timed([(one, crowd.non_mated) for one in contestants], seconds / 4)
    columns = {
        "non-mated ms": {name: 1000 * float(np.median(one.seconds)) for name, one in others.items()},
        "p95 ms": {name: 1000 * float(np.quantile(one.seconds, 0.95)) for name, one in taken.items()},
        "p99 ms": {name: 1000 * float(np.quantile(one.seconds, 0.99)) for name, one in taken.items()},
        "timed": {name: float(len(one.seconds)) for name, one in taken.items()},
        "recall": {name: _recall(crowd, half, one.found) for name, one in taken.items()},
        "ef": {one.name: float(one.breadth) for one in contestants if one.breadth},
        "MB": {one.name: one.megabytes for one in contestants},
        "build s": {one.name: one.build_seconds for one in contestants if one.build_seconds},
    }
    medians = {name: float(np.median(one.seconds)) for name, one in taken.items()}
    return Result(f"a search of {len(crowd):,} {crowd.name} people", "searches", 1, medians, "naive SELECT", columns)


def _throughput(database: Database, crowd: Crowd, version: Version, seconds: float) -> Result:
    ways: dict[str, Callable[[Connection], Callable[[Floats], int]]] = {
        "naive SELECT": lambda connection: scanning(connection, NAIVE),
        "pfstore, exact": lambda connection: asking(connection, version, exact=True),
        "pfstore, tuned": lambda connection: asking(connection, version),
    }
    taken = {
        f"{name}, {clients} client{'s' * (clients > 1)}": _at_once(database, crowd, way, clients, seconds)
        for name, way in ways.items()
        for clients in CLIENTS
    }
    name = f"searches of {len(crowd):,} {crowd.name} people by several clients at once"
    return Result(name, "searches", 1, taken, "naive SELECT, 1 client")


def _at_once(
    database: Database,
    crowd: Crowd,
    way: Callable[[Connection], Callable[[Floats], int]],
    clients: int,
    seconds: float,
) -> float:
    """Return the seconds a search that clients need who each search for so long, and at least once after one more."""
    done = [0] * clients
    begins, ends = threading.Barrier(clients + 1), [0.0]

    def client(number: int) -> None:
        with database.connect() as connection:
            find = way(connection)
            find(crowd.mated[number % len(crowd.mated)])
            begins.wait()
            while not done[number] or time.perf_counter() < ends[0]:
                find(crowd.mated[(number + clients * done[number]) % len(crowd.mated)])
                done[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    ends[0] = started + seconds
    begins.wait()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - started) / sum(done)


def _fused_or_not(database: Database, crowd: Crowd, folder: Path, seconds: float) -> Result:
    """Compare a table of every feature, searched by a probe's mean feature, with galleries of one template a person.

    In the former a subject's best feature counts; all are searched exhaustively.
    """
    half = slice(len(crowd.mates) // 2, None)
    with database.connect() as connection:
        load_unfused(connection, crowd)
        every = Contestant("every feature", selecting(connection, UNFUSED), megabytes(connection, "unfused"))
        contestants = [(every, crowd.averages[: len(crowd.mates)][half])]
        accuracies = {every.name: search_accuracy.unfused(crowd)}
        for fuser in (load_model("average"), trained(folder)):
            fused = Crowd.make(
                crowd.name, len(crowd), folder, mated=len(crowd.mates), non_mated=len(crowd.non_mated), fuser=fuser
            )
            version = load(connection, fused, fuser.name)
            contestants.append((exhaustive(connection, version, fuser.name), fused.mated[half]))
            accuracies[fuser.name] = search_accuracy.fused(fused)
        taken = _timed(contestants, seconds)
    columns = {
        "p95 ms": {name: 1000 * float(np.quantile(one.seconds, 0.95)) for name, one in taken.items()},
        "rank 1": {name: one.rank_1 for name, one in accuracies.items()},
        **{
            f"FNIR at FPIR {target}": {name: one.fnirs[place] for name, one in accuracies.items()}
            for place, target in enumerate(search_accuracy.FPIRS)
        },
        "MB": {one.name: one.megabytes for one, _ in contestants},
    }
    medians = {name: float(np.median(one.seconds)) for name, one in taken.items()}
    return Result(f"one template or all features of {len(crowd):,} people", "searches", 1, medians, every.name, columns)
