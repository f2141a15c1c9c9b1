"""Searches in process by FAISS and hnswlib, one thread each, on the whole template in single precision."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.search_data import Crowd
from pfstore.features import Floats

GRID = (10, 20, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800, 1000)
"""The breadths of a search among which the least that suffices is looked for."""

TOP = 10


@dataclass
class Contestant:
    """One way to search. find: the number of the subject that comes first for a template ([BLOCKS*D] float32).

    widen: sets how broad an approximate search is, None where that cannot be chosen; breadth: how broad it is, 0 where
    it is exhaustive. build_seconds: of the index alone.
    """

    name: str
    find: Callable[[Floats], int]
    megabytes: float
    build_seconds: float = 0.0
    widen: Callable[[int], None] | None = None
    breadth: int = 0


def peers(crowd: Crowd, folder: Path, m: int, ef_construction: int) -> list[Contestant]:
    """Return what is installed of the optional extra `bench`, and say what is not."""
    made = []
    if find_spec("faiss"):
        made += [_faiss_flat(crowd, folder), _faiss_hnsw(crowd, folder, m, ef_construction)]
    if find_spec("hnswlib"):
        made += [_hnswlib(crowd, folder, m, ef_construction)]
    for missing in ("faiss", "hnswlib"):
        if not find_spec(missing):
            print(f"{missing} is not installed, so it does not take part: pip install 'pfstore[bench]'")
    return made


def _faiss_flat(crowd: Crowd, folder: Path) -> Contestant:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(crowd.mated.shape[1])
    for _, part in crowd.chunks():
        index.add(part)
    faiss.write_index(index, str(folder / "flat"))
    return Contestant("FAISS flat", lambda probe: int(index.search(probe[None], TOP)[1][0, 0]), _taken(folder / "flat"))


def _faiss_hnsw(crowd: Crowd, folder: Path, m: int, ef_construction: int) -> Contestant:
    import faiss

    index = faiss.IndexHNSWFlat(crowd.mated.shape[1], m, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = ef_construction
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    started = time.perf_counter()
    for _, part in crowd.chunks():
        index.add(part)
    seconds = time.perf_counter() - started
    faiss.omp_set_num_threads(1)
    faiss.write_index(index, str(folder / "hnsw"))

    def widen(breadth: int) -> None:
        index.hnsw.efSearch = breadth

    return Contestant(
        "FAISS HNSW",
        lambda probe: int(index.search(probe[None], TOP)[1][0, 0]),
        _taken(folder / "hnsw"),
        seconds,
        widen,
    )


def _hnswlib(crowd: Crowd, folder: Path, m: int, ef_construction: int) -> Contestant:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=crowd.mated.shape[1])
    index.init_index(max_elements=len(crowd), M=m, ef_construction=ef_construction, random_seed=0)
    started = time.perf_counter()
    for first, part in crowd.chunks():
        index.add_items(part, range(first, first + len(part)))
    seconds = time.perf_counter() - started
    index.set_num_threads(1)
    index.save_index(str(folder / "hnswlib"))
    return Contestant(
        "hnswlib",
        lambda probe: int(index.knn_query(probe, k=TOP)[0][0, 0]),
        _taken(folder / "hnswlib"),
        seconds,
        index.set_ef,
    )


def _taken(path: Path) -> float:
    """Megabytes of a file, which goes."""
    size = path.stat().st_size / 1e6
    path.unlink()
    return size
