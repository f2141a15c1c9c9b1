"""Two processes on two shards of a store against one that does both: reading, decoding and fusing, without writing."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from bench.harness import Result, medians
from bench.stores import DIMENSION, in_shards, mapping
from pfstore.fusion import random_model
from pfstore.sources import open_source
from pfstore.sources.base import Shard
from pfstore.synthetic import Population, write_sqlite


def run(*, big: bool) -> list[Result]:
    """Fuse a SQLite store of 30 features a subject, each process by one thread."""
    population = Population(subjects=20_000 if big else 4000, features_per_subject=30, dimension=DIMENSION)
    with tempfile.TemporaryDirectory() as name:
        url = f"sqlite:///{Path(name) / 'legacy.db'}"
        write_sqlite(Path(name) / "legacy.db", population)
        with open_source(mapping(url, "float32-le"), "legacy", Path()) as source:
            planned = [shard for shard in source.shards(int(population.counts.sum()) // 2 + 1) if shard.subjects]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, context, initializer=torch.set_num_threads, initargs=(1,)) as processes:
            work = partial(_fused, url)
            contestants: dict[str, Callable[[], object]] = {
                "one process": lambda: processes.submit(_all, url, planned).result(),
                "two processes": lambda: list(processes.map(work, planned)),
            }
            seconds = medians(contestants)
    return [Result("shards in processes", "subjects", population.subjects, seconds, "one process")]


def _all(url: str, shards: list[Shard]) -> int:
    return sum(_fused(url, one) for one in shards)


def _fused(url: str, shard: Shard) -> int:
    """Fuse the subjects of a shard and return their number."""
    model = random_model(DIMENSION)
    with open_source(mapping(url, "float32-le"), "legacy", Path()) as source:
        read = in_shards(source, [shard])
        return sum(len(model.templates(batch.features, batch.set_offsets, role="gallery")) for batch in read)
