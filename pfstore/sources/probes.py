"""Probes in files: npz, npy, HDF5 and JSON lines, also from standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pfstore.errors import InputError, SourceError
from pfstore.features import Floats, Offsets, offsets_of
from pfstore.sources.arrays import Npz, feature_array, offset_array, read_npy, text_array
from pfstore.sources.assembly import MINIMUM_NORM
from pfstore.sources.keyed import HDF5_SUFFIXES

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")

_PROBE = re.compile(r"probe_.+")


@dataclass(frozen=True)
class ProbeSets:
    """The feature sets of some probes, ragged: probe i has the features[offsets[i]:offsets[i+1]], at least one.

    features: [N, D] float32, finite, no zero row. offsets: [S+1] int64. ids: [S], as the file names them.
    extractor: the label of what made the features, None where the file does not tell.
    """

    features: Floats
    offsets: Offsets
    ids: Sequence[str]
    extractor: str | None = None


def read_probes(path: str | Path) -> ProbeSets:
    """Read the probes of a file, or JSON lines from standard input where path is "-".

    npz: `features [N, D]`, `offsets [S+1]`, optional `ids [S]` (else the probes' numbers from 0), optional text
    `extractor`. npy: one probe, `[N, D]` or `[D]`; its id is the file's name. HDF5: a file or folder, every
    `<subject>/probe_<n>` under this very id. JSON lines: `{"id": …, "features": [[…], …]}` a line, also `[…]`
    for one feature, optional "extractor"; without an id it is the line's number.

    Raises InputError where there is no probe, or a probe is empty, of another shape or dimension, or has a
    feature that is not finite or zero: a probe is never thinned without a word.
    """
    try:
        return _read(path)
    except SourceError as error:
        raise InputError(str(error)) from None


def _read(path: str | Path) -> ProbeSets:
    if str(path) == "-":
        return _json_lines(sys.stdin.buffer, "standard input")
    file = Path(path)
    if not file.exists():
        raise InputError(f"{file}: no such file of probes")
    if file.is_dir() or file.suffix in HDF5_SUFFIXES:
        return _hdf5(file)
    if file.suffix == ".npz":
        return _npz(file)
    if file.suffix == ".npy":
        return _joined(str(file), [(file.stem, np.atleast_2d(feature_array(read_npy(file), str(file))))])
    if file.suffix not in JSON_SUFFIXES:
        known = ", ".join((".npz", ".npy", *HDF5_SUFFIXES, *JSON_SUFFIXES))
        raise InputError(f"{file}: cannot tell what it is by its end {file.suffix!r}; known are {known}")
    try:
        with file.open("rb") as lines:
            return _json_lines(lines, str(file))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def _npz(path: Path) -> ProbeSets:
    file = Npz(path)
    features = feature_array(file["features"], f"{path}: features")
    if features.ndim != 2:
        raise InputError(f"{path}: features: the shape is [N, D], this one is {list(features.shape)}")
    offsets = offset_array(file["offsets"], len(features), f"{path}: offsets")
    sets = len(offsets) - 1
    ids, label = file.get("ids"), file.get("extractor")
    names = [str(i) for i in range(sets)] if ids is None else text_array(ids, sets, f"{path}: ids").tolist()
    if label is not None and (label.shape != () or label.dtype.kind != "U"):
        raise InputError(f"{path}: extractor is one text, this is {label.dtype} {list(label.shape)}")
    return _checked(str(path), features, offsets, names, None if label is None else str(label))


def _hdf5(path: Path) -> ProbeSets:
    # h5py takes a while to load and most probes come in other files.
    from pfstore.sources import hdf5

    layout = hdf5.find(path)
    probes: list[tuple[str, NDArray[Any]]] = []
    for one in layout.files:
        with hdf5.open_file(one) as file:
            for subject, name in hdf5.subject_groups(file).items():
                probes += _of_group(file[name], subject, str(one))
    return _joined(str(path), probes, layout.extractor)


def _of_group(group: Any, subject: str, where: str) -> Iterator[tuple[str, NDArray[Any]]]:
    from pfstore.sources import hdf5

    for name in filter(_PROBE.fullmatch, hdf5.members(group)):
        dataset = hdf5.dataset_of(group, name)
        if dataset is None:
            raise InputError(f"{where}: probe {subject}/{name} is no dataset of features")
        if dataset.fault:
            raise InputError(f"{where}: probe {subject}/{name} is {dataset.fault.reason}: {dataset.fault.detail}")
        yield f"{subject}/{name}", np.concatenate([part for _, part in dataset.slices()])


def _json_lines(lines: IO[bytes], where: str) -> ProbeSets:
    probes: list[tuple[str, NDArray[Any]]] = []
    labels: dict[str | None, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{where}: line {number}"
        probe = _object(line, place)
        probes.append((str(probe.get("id", number)), _vectors(probe["features"], place)))
        labels.setdefault(_label(probe, place), number)
    if len(labels) > 1:
        told = ", ".join(f"{label!r} (line {number})" for label, number in labels.items())
        raise InputError(f"{where}: the probes are of several extractors: {told}; search with one at a time")
    return _joined(where, probes, next(iter(labels), None))


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        probe = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON: {error}") from None
    if not isinstance(probe, dict) or "features" not in probe:
        raise InputError(f'{place}: a probe is {{"id": …, "features": [[…], …]}}, one a line')
    if isinstance(probe.get("id"), dict | list):
        raise InputError(f"{place}: id is text or a number, not {type(probe['id']).__name__}")
    return probe


def _label(probe: dict[str, Any], place: str) -> str | None:
    label = probe.get("extractor")
    if label is not None and not isinstance(label, str):
        raise InputError(f"{place}: extractor is text, not {type(label).__name__}")
    return label


def _vectors(value: Any, place: str) -> NDArray[Any]:
    """Return one feature or a list of them as [n, D]. Raises InputError."""
    try:
        array = np.array(value)
    except ValueError:
        raise InputError(f"{place}: the features are lists of different lengths") from None
    if array.size and array.dtype.kind not in "iuf":
        raise InputError(f"{place}: features are numbers, not {array.dtype}")
    if array.ndim not in (1, 2):
        raise InputError(f"{place}: features are [[…], …] or […], the shape is {list(array.shape)}")
    return np.atleast_2d(array) if array.size else np.empty((0, 0))


def _joined(where: str, probes: Iterable[tuple[str, NDArray[Any]]], extractor: str | None = None) -> ProbeSets:
    named = list(probes)
    if not named:
        raise InputError(f"{where}: there is no probe in it")
    # An empty probe has no dimension to compare; _checked names it.
    filled = [(name, features) for name, features in named if len(features)]
    for name, features in filled:
        if features.shape[1] != filled[0][1].shape[1]:
            raise InputError(
                f"{where}: probe {name!r} has features of {features.shape[1]} values, "
                f"probe {filled[0][0]!r} of {filled[0][1].shape[1]}; one search takes one dimension"
            )
    together = np.concatenate([features for _, features in filled]) if filled else np.empty((0, 1))
    return _checked(where, together, offsets_of([len(one) for _, one in named]), [name for name, _ in named], extractor)


def _checked(
    where: str, features: NDArray[Any], offsets: Offsets, ids: Sequence[str], extractor: str | None
) -> ProbeSets:
    """Return the probes if every feature of every one can be used. Raises InputError."""
    if len(ids) == 0:
        raise InputError(f"{where}: there is no probe in it")
    empty = (np.diff(offsets) == 0).nonzero()[0]
    if len(empty):
        raise InputError(f"{where}: probe {ids[empty[0]]!r} is empty; leave it out, or give it a feature")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(features, dtype=np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", values, values, dtype=np.float64))
    bad = (~np.isfinite(norms) | (norms < MINIMUM_NORM)).nonzero()[0]
    if len(bad):
        row = int(bad[0])
        probe = int(np.searchsorted(offsets, row, side="right")) - 1
        what = f"has the norm {norms[row]:.3g}" if np.isfinite(norms[row]) else "is not finite (NaN or infinite)"
        raise InputError(f"{where}: probe {ids[probe]!r}: feature {row - int(offsets[probe])} {what}; leave it out")
    return ProbeSets(values, offsets, ids, extractor)
