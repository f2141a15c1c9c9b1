"""Arrays in npy and npz files, read without unpickling and without trusting what a header claims."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import SourceError
from pfstore.features import Offsets

MOST_IN_MEMORY = 4 * 2**30
"""Bytes of the largest compressed array that is read; an uncompressed one is mapped and may be of any size."""

MOST_RATIO = 100
"""Features hardly compress; what claims to be so many times its size is no array of features."""

_LONGEST_HEADER = 2**16
_LONGEST_REASON = 200
_DAMAGED = (OSError, ValueError, EOFError, OverflowError, zlib.error)


def read_npy(path: Path) -> NDArray[Any]:
    """Map an npy file; a header that claims more than the file holds is refused. Raises SourceError."""
    try:
        with path.open("rb") as file:
            npy_header(file)
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except _DAMAGED as error:
        raise SourceError(f"{path}: damaged, not npy, or not of numbers: {first_line(error)}") from None
    return array


class Npz:
    """The arrays of an npz file, each read when asked for; none may be larger than its file makes credible."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
        except FileNotFoundError:
            raise SourceError(f"{path}: no such file") from None
        except (OSError, NotImplementedError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path}: damaged or not npz: {first_line(error)}") from None

    def get(self, name: str) -> NDArray[Any] | None:
        """Return an array, None where there is none of this name. Raises SourceError."""
        return self[name] if name in self._members else None

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return an array, mapped where it is not compressed. Raises SourceError."""
        member = self._members.get(name)
        if member is None:
            there = ", ".join(sorted(self._members)) or "none"
            raise SourceError(f"{self._path}: has no array {name!r}; it has {there}")
        try:
            return self._read(member, f"{self._path}: {name}")
        except (*_DAMAGED, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise SourceError(f"{self._path}: {name}: damaged or no array: {first_line(error)}") from None

    def _read(self, member: zipfile.ZipInfo, where: str) -> NDArray[Any]:
        with zipfile.ZipFile(self._path) as archive, archive.open(member) as stream:
            shape, fortran, dtype = npy_header(stream)
            if dtype.hasobject:
                raise SourceError(f"{where}: holds Python objects; save plain arrays of numbers or text")
            size = dtype.itemsize * math.prod(shape)
            if stream.tell() + size != member.file_size:
                raise SourceError(f"{where}: claims {size:,} bytes, the file has {member.file_size - stream.tell():,}")
            if member.compress_type == zipfile.ZIP_STORED:
                return self._mapped(member, stream.tell(), shape, fortran, dtype)
            # Keys may compress to nearly nothing, but not to so little beside the features that they are of.
            packed = member.compress_size if dtype.kind == "f" else self._path.stat().st_size
            if size > min(MOST_IN_MEMORY, MOST_RATIO * packed):
                raise SourceError(
                    f"{where}: {member.compress_size:,} bytes claim to be {size:,}; save it uncompressed (numpy.savez)"
                )
        with zipfile.ZipFile(self._path) as archive, archive.open(member) as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            return array

    def _mapped(
        self, member: zipfile.ZipInfo, header: int, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        if math.prod(shape) == 0:
            return np.empty(shape, dtype)
        with self._path.open("rb") as file:
            # The local header repeats the name and may have another extra field than the directory's.
            file.seek(member.header_offset + 26)
            lengths = np.frombuffer(file.read(4), dtype="<u2")
        start = member.header_offset + 30 + int(lengths.sum()) + header
        return np.memmap(self._path, dtype, "r", start, shape, "F" if fortran else "C")


def feature_array(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Return the array if it can be features: [N, D] or [D] of floats. Raises SourceError."""
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise SourceError(f"{where}: features are float16, float32 or float64, these are {array.dtype}")
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise SourceError(f"{where}: features have the shape [N, D], these have {list(array.shape)}")
    return array


def offset_array(array: NDArray[Any], rows: int, where: str) -> Offsets:
    """Return the array as offsets if it cuts so many rows into sets. Raises SourceError."""
    if array.dtype.kind not in "iu" or array.ndim != 1 or len(array) == 0:
        raise SourceError(f"{where}: offsets are whole numbers [S+1], these are {array.dtype} {list(array.shape)}")
    offsets = array.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
        raise SourceError(
            f"{where}: offsets rise from 0 to {rows} (all features); these go from {offsets[0]} to {offsets[-1]}"
        )
    return offsets


def text_array(array: NDArray[Any], length: int, where: str) -> NDArray[np.str_]:
    """Return an array of text or whole numbers as [length] text. Raises SourceError."""
    if array.dtype.kind not in "USiu":
        raise SourceError(f"{where}: text or whole numbers are expected, these are {array.dtype}")
    if array.shape != (length,):
        raise SourceError(f"{where}: {length} entries are expected, the shape is {list(array.shape)}")
    if array.dtype.kind != "S":
        return array.astype(np.str_)
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: not UTF-8: {error}") from None


def first_line(error: BaseException) -> str:
    """Return what an error says in one line."""
    return str(error).strip().split("\n")[0][:_LONGEST_REASON] or type(error).__name__


def npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an npy file: shape, whether in Fortran's order, type. Raises ValueError where it is none."""
    try:
        if np.lib.format.read_magic(stream) == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        # numpy would unpack a header of any length before it finds it too long.
        packed = stream.read(4)
        length = int.from_bytes(packed, "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length:,} bytes")
        return np.lib.format.read_array_header_2_0(io.BytesIO(packed + stream.read(length)))
    except (OSError, EOFError, zlib.error):
        raise
    except Exception as error:
        # numpy takes the header for a piece of Python, which may be wrong in any way.
        raise ValueError(first_line(error)) from None
