"""Deduplication in an embedded server against the products of matrices that every pair of templates costs."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from bench.filling import fill
from bench.harness import Result, medians
from bench.server import served
from pfstore.features import Floats
from pfstore.gallery import galleries, models
from pfstore.gallery.coarse import Coarse
from pfstore.gallery.database import Connection
from pfstore.gallery.galleries import Contract, Version
from pfstore.jobs.dedupe import dedupe

BLOCKS, DIMENSION = 4, 512
NOISE = 0.5
THRESHOLD = 0.5
WRITTEN = 5000
SIDE = 1024


def run(*, big: bool) -> list[Result]:
    """Find one subject in a hundred, enrolled a second time, among all."""
    subjects = 100_000 if big else 10_000
    templates = _templates(subjects)
    vectors = Coarse.of(templates, BLOCKS).vectors.astype(np.float32)
    with served() as (_, database), database.connect() as connection:
        version = _gallery(connection, templates)
        contestants = {
            "every pair, whole": lambda: _products(templates),
            "every pair, coarse": lambda: _products(vectors),
            "pfstore": lambda: _dedupe(connection, version, subjects // 100),
        }
        seconds = _once(contestants) if big else medians(contestants)
    return [Result("dedupe", "comparisons", subjects * (subjects - 1) // 2, seconds, "every pair, whole")]


def _templates(subjects: int) -> Floats:
    random = np.random.default_rng(0)
    made = np.empty((subjects, BLOCKS * DIMENSION), dtype=np.float32)
    centres = random.standard_normal((subjects, DIMENSION), dtype=np.float32)
    twice = subjects // 100
    centres[-twice:] = centres[:twice]
    for first in range(0, subjects, WRITTEN):
        of = centres[first : first + WRITTEN, None]
        blocks = of + NOISE * random.standard_normal((len(of), BLOCKS, DIMENSION), dtype=np.float32)
        flat = blocks.reshape(len(of), -1)
        made[first : first + WRITTEN] = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return made


def _gallery(connection: Connection, templates: Floats) -> Version:
    model = models.resolve(connection, "average")
    contract = Contract("synthetic", DIMENSION, model.normalisation, model.digest, "set")
    version = galleries.ensure(connection, "g", contract, BLOCKS)
    chunks = ((first, templates[first : first + WRITTEN]) for first in range(0, len(templates), WRITTEN))
    fill(connection, version, chunks, "s{:07}".format)
    return version


def _products(vectors: Floats) -> None:
    """Multiply each block of rows with itself and all after it, and look at nothing."""
    rows = torch.from_numpy(vectors)
    made = torch.empty((SIDE, SIDE))
    for first in range(0, len(rows), SIDE):
        block = rows[first : first + SIDE]
        for second in range(first, len(rows), SIDE):
            others = rows[second : second + SIDE]
            torch.mm(block, others.T, out=made[: len(block), : len(others)])


def _dedupe(connection: Connection, version: Version, planted: int) -> None:
    found = dedupe(connection, version, THRESHOLD, restart=True)
    assert len(found.pairs) == planted


def _once(contestants: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Run each contestant once: so long a run needs no warming up."""
    seconds = {}
    for name, run_ in contestants.items():
        started = time.perf_counter()
        run_()
        seconds[name] = time.perf_counter() - started
    return seconds
