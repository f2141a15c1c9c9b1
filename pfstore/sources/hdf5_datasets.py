"""Sets of features in an HDF5 file: what can be read of them without opening another file or loading a plugin."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pfstore.features import Floats
from pfstore.sources.assembly import Fault
from pfstore.sources.base import Reason
from pfstore.sources.keyed import SLICE_VALUES
from pfstore.stages import stage

MOST_VALUES = 16_000
"""Values of the longest feature that is read."""

_LARGEST_CHUNK = 2**28  # bytes that HDF5 would have to unpack at once
_BUILT_IN_FILTERS = frozenset(
    {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SZIP,
     h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET, h5py.h5z.FILTER_LZF}
)  # fmt: skip
_PLAIN = np.dtype("<f4")


class ElsewhereError(Exception):
    """Reading a dataset would take more than its file: what, in a few words."""


@dataclass(frozen=True)
class Dataset:
    """One set of features in an open file.

    name: its path below the group in question. shape: (frames, D). fault: why it cannot be read as features.
    place: where in the file its values are, in bytes, if they lie there one after the other as little-endian float32.
    """

    name: str
    shape: tuple[int, int]
    dtype: str
    fault: Fault | None
    place: int | None
    member: h5py.h5d.DatasetID

    @property
    def rows(self) -> int:
        """Rows that reading gives: frames, or one reject for what is no features at all."""
        return 1 if self.fault else self.shape[0]

    def slices(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the features a part at a time: the first frame's number and [n, D]."""
        step = max(1, SLICE_VALUES // self.shape[1])
        for start in range(0, self.shape[0], step):
            yield start, self._part(start, min(step, self.shape[0] - start))

    def read_into(self, features: Floats, start: int, descriptor: int | None) -> None:
        """Fill [n, D] with the frames from start on. descriptor: of the open file; None where HDF5 must read.

        HDF5 takes longer to find a small dataset's values than the values take to read.
        """
        if descriptor is None or self.place is None:
            part = self._part(start, len(features))
            with stage("decoding"), np.errstate(over="ignore", invalid="ignore"):
                features[:] = part
            return
        place = self.place + start * features.itemsize * self.shape[1]
        wanted = features.data.cast("B")
        while wanted:
            came = os.preadv(descriptor, [wanted], place)
            if came == 0:
                raise OSError("the file ends before its features do")
            wanted, place = wanted[came:], place + came

    def _part(self, start: int, count: int) -> NDArray[Any]:
        data = h5py.Dataset(self.member)
        part: NDArray[Any] = data[:] if data.ndim == 1 else data[start : start + count]
        return part.reshape(-1, self.shape[1])


def descriptor_of(file: h5py.File) -> int | None:
    """Return the descriptor of an open file whose bytes are those of the HDF5 file, None where it has no such."""
    return file.id.get_vfd_handle() if file.driver == "sec2" and hasattr(os, "preadv") else None


def dataset(name: str, member: h5py.h5d.DatasetID) -> Dataset:
    """Return an opened member of a group as a dataset. Raises ElsewhereError."""
    # Only values that lie in the file one after the other have a place there, so this says that nothing else is amiss.
    place: int | None = member.get_offset()
    if place is None:
        return _looked_at(name, member)
    kind, shape = member.get_type(), member.shape
    is_plain = kind == h5py.h5t.IEEE_F32LE
    dtype = _PLAIN if is_plain else kind.dtype
    fault = _fault(shape, dtype)
    if fault:
        return Dataset(name, (0, 0), str(dtype), fault, None, member)
    frames = 1 if len(shape) == 1 else shape[0]
    kind_name = "float32" if is_plain else str(dtype)
    # What a damaged file claims about its values may not fit the room that they have.
    is_plain &= member.get_storage_size() == math.prod(shape) * dtype.itemsize
    return Dataset(name, (frames, shape[-1]), kind_name, None, place if is_plain else None, member)


def _looked_at(name: str, member: h5py.h5d.DatasetID) -> Dataset:
    plan = member.get_create_plist()
    # Even a look at the shape of a virtual dataset could open the files that it is made of.
    if elsewhere := _needs_more_than_the_file(plan):
        raise ElsewhereError(elsewhere)
    data = h5py.Dataset(member)
    shape, dtype = data.shape, data.dtype
    fault = _fault(shape, dtype) or _storage_fault(data)
    frames = 1 if shape is None or len(shape) < 2 else shape[0]
    return Dataset(name, (frames, shape[-1]) if shape and data.size else (0, 0), str(dtype), fault, None, member)


def _needs_more_than_the_file(plan: h5py.h5p.PropDCID) -> str | None:
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        return "is a virtual dataset, whose values are in other files"
    if plan.get_external_count():
        return "has its values in another file (external storage)"
    for position in range(plan.get_nfilters()):
        code, _, _, name = plan.get_filter(position)
        if code not in _BUILT_IN_FILTERS:
            return f"is packed by a plugin (filter {code} {name.decode('utf-8', 'replace')})".replace(" )", ")")
    return None


def _fault(shape: tuple[int, ...] | None, dtype: np.dtype[Any]) -> Fault | None:
    if dtype.kind != "f" or dtype.itemsize > 8:
        return Fault(Reason.UNDECODABLE, f"{dtype} instead of float16, float32 or float64")
    if shape is None or 0 in shape:
        return Fault(Reason.EMPTY, "no feature")
    if len(shape) not in (1, 2):
        return Fault(Reason.UNDECODABLE, f"the shape is {list(shape)} instead of [frames, D]")
    if shape[-1] > MOST_VALUES:
        return Fault(Reason.UNDECODABLE, f"{shape[-1]:,} values in a feature, at most {MOST_VALUES:,} are read")
    return None


def _storage_fault(data: h5py.Dataset) -> Fault | None:
    if data.id.get_storage_size() == 0:
        return Fault(Reason.UNDECODABLE, "declared but never written")
    if data.chunks and math.prod(data.chunks) * data.dtype.itemsize > _LARGEST_CHUNK:
        return Fault(Reason.UNDECODABLE, f"chunks of {list(data.chunks)} are too large to unpack")
    return None
