"""In which arithmetic the experts compute: exact float32, or the faster ones that some machines have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

import torch

from pfstore.errors import ModelError

Precision: TypeAlias = Literal["float32", "tf32", "bfloat16"]
"""tf32 multiplies with 10 bits after the point, bfloat16 with 7; both add in float32. CUDA alone knows tf32."""


def check_precision(precision: str) -> None:
    """Raise ModelError for what is no precision."""
    if precision not in get_args(Precision):
        raise ModelError(f"unknown precision {precision!r}: use {', '.join(get_args(Precision))}")


@contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """Let float32 products on this device have this precision; those that forbid autocast stay as they are."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
