"""Features on their way to the device that fuses them: the next chunk is copied while this one is computed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor


def fed(values: Tensor, bounds: Sequence[tuple[int, int]], device: torch.device | None) -> Generator[Tensor]:
    """Yield the rows [first, last) of the values ([N, D]) for each of the bounds: float32, contiguous, on the device.

    device: None for where the values are. What is yielded may be overwritten once the one after the next is asked
    for. Half precision travels as such and is widened on arrival.
    """
    device = values.device if device is None else device
    if device.type != "cuda" or values.device.type != "cpu":
        for first, last in bounds:
            yield values[first:last].to(device, torch.float32).contiguous()
        return
    lanes = [_Lane(device), _Lane(device)]
    # Copying into pinned memory takes a processor, which must not wait for what the device computes.
    with ThreadPoolExecutor(1, thread_name_prefix="feeding") as copier:
        coming: Future[_Lane] | None = None
        for number in range(len(bounds) + 1):
            arrived = coming and coming.result()
            if number < len(bounds):
                coming = copier.submit(lanes[number % 2].send, values, *bounds[number])
            if arrived:
                yield arrived.rows()


class _Lane:
    """A pinned buffer and the stream that its copies to the device run in."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pinned = torch.empty(0)
        self._sent = torch.empty(0)

    def send(self, values: Tensor, first: int, last: int) -> _Lane:
        """Start to copy these rows; what was sent before has arrived."""
        self._stream.synchronize()
        rows = values[first:last]
        if not rows.is_pinned():
            if self._pinned.numel() < rows.numel() or self._pinned.dtype != rows.dtype:
                self._pinned = torch.empty(rows.numel(), dtype=rows.dtype, pin_memory=True)
            rows = self._pinned[: rows.numel()].view(rows.shape).copy_(rows)
        with torch.cuda.stream(self._stream):
            self._sent = rows.to(self._device, non_blocking=True)
        return self

    def rows(self) -> Tensor:
        """The rows that were sent, for work in the current stream."""
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        self._sent.record_stream(current)
        return self._sent.to(torch.float32).contiguous()
