"""Fusing needs little memory beside its input and output; an [N, D, K] tensor would be many times the input."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEBIBYTE = 2**20
PROGRAM = """
import resource
import numpy as np
from pfstore.fusion import random_model

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

model = random_model(256, experts=4, selected=4, seed=0)
features = np.random.default_rng(0).standard_normal((100_000, 256), dtype=np.float32)
model.fuse(features[:5000], np.array([0, 5000]))
before = peak()
model.fuse(features, np.linspace(0, 100_000, {sets} + 1).astype(int))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in KiB on Linux only")
@pytest.mark.parametrize(("sets", "allowed"), [(1, 2 * 98 * MEBIBYTE), (25_000, 4 * 98 * MEBIBYTE)])
def test_memory_is_bounded(sets: int, allowed: int) -> None:
    """The features are 98 MiB, of which 25,000 sets make as much again in templates."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(sets=sets)], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(ran.stdout) < allowed
