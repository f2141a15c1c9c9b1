"""Probes in files: npz, npy, HDF5 and JSON lines, also from standard input."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from pfstore.errors import InputError, SourceError
from pfstore.features import Floats, Offsets, offsets_of
from pfstore.sources.arrays import Npz, feature_array, offset_array, read_npy, text_array
from pfstore.sources.assembly import MINIMUM_NORM
from pfstore.sources.base import FeatureSource
from pfstore.sources.keyed import HDF5_SUFFIXES
from pfstore.sources.lines import lines_as_they_come

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")

BATCH_PROBES = 256
"""Probes of a file that are checked, fused and searched with at once."""

BATCH_FEATURES = 4096
"""Features after which a batch of fewer probes is full: 8 MB at 512 values."""

SHARD_FEATURES = 4 * BATCH_FEATURES

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

    def part(self, first: int, last: int) -> ProbeSets:
        """Return the probes of the numbers from first to before last."""
        cuts = self.offsets[first : last + 1]
        return ProbeSets(self.features[cuts[0] : cuts[-1]], cuts - cuts[0], self.ids[first:last], self.extractor)


def read_probes(path: str | Path) -> ProbeSets:
    """Read the probes of a file, or JSON lines from standard input where path is "-".

    npz: `features [N, D]`, `offsets [S+1]`, optional `ids [S]` (else the probes' numbers from 0), optional text
    `extractor`. npy: one probe, `[N, D]` or `[D]`; its id is the file's name. HDF5: a file or folder, every
    `<subject>/probe_<n>` under this very id. JSON lines: `{"id": …, "features": [[…], …]}` a line, also `[…]`
    for one feature, optional "extractor"; without an id it is the line's number.

    Raises InputError where there is no probe, or a probe is empty, of another shape or dimension, or has a
    feature that is not finite or zero: a probe is never thinned without a word.
    """
    batches = list(probe_batches(path))
    return ProbeSets(
        np.concatenate([one.features for one in batches]),
        offsets_of(np.concatenate([np.diff(one.offsets) for one in batches])),
        [name for one in batches for name in one.ids],
        batches[0].extractor,
    )


def probe_batches(path: str | Path) -> Iterator[ProbeSets]:
    """Read probes as read_probes does, a batch at a time: JSON lines as they come, without waiting for further ones.

    All are of one dimension and extractor. Raises InputError as read_probes does, for a file that is not there at
    once, for a probe when those before it have been given.
    """
    where, found = _opened(path)
    return _as_input(_batches(where, found))


def subject_batches(
    source: FeatureSource, where: str, *, dimension: int, rejected: Counter[str]
) -> Generator[ProbeSets, None, None]:
    """Read a source's subjects as probes, each one's features of all media together, a batch at a time.

    dimension: of the gallery; those of a source of another one are given as they are, to be refused. rejected: is
    told the rows that cannot be used, by reason. Raises InputError where no subject is left, and SourceError.
    """
    nobody = True
    length = source.sample().dimension or dimension
    for shard in source.shards(SHARD_FEATURES):
        for batch in source.read(shard.range, dimension=length, features=BATCH_FEATURES):
            rejected.update(str(one.reason) for one in batch.rejects)
            features = batch.features
            if len(features.subject_ids):
                nobody = False
                yield ProbeSets(features.features, features.set_offsets, features.subject_ids, source.extractor)
    if nobody:
        told = ", ".join(f"{count:,} {reason}" for reason, count in rejected.most_common())
        raise InputError(f"{where}: no subject has a feature that can be used ({told or 'it holds none'})")


@dataclass(frozen=True)
class _Probe:
    """A probe as it stands in a file: [n, D], unchecked. place: where, for messages."""

    place: str
    name: str
    features: NDArray[Any]
    extractor: str | None


_Found: TypeAlias = Iterator[_Probe | None]
"""Probes one by one; None: the next one may take a while."""


def _opened(path: str | Path) -> tuple[str, _Found]:
    if str(path) == "-":
        if sys.stdin is None:
            raise InputError("standard input: it is closed")
        return "standard input", _json_lines(sys.stdin.buffer, "standard input")
    file = Path(path)
    if not file.exists():
        raise InputError(f"{file}: no such file of probes")
    if file.is_dir() or file.suffix in HDF5_SUFFIXES:
        return str(file), _hdf5(file)
    if file.suffix == ".npz":
        return str(file), _npz(file)
    if file.suffix == ".npy":
        return str(file), _npy(file)
    if file.suffix not in JSON_SUFFIXES:
        known = ", ".join((".npz", ".npy", *HDF5_SUFFIXES, *JSON_SUFFIXES))
        raise InputError(f"{file}: cannot tell what it is by its end {file.suffix!r}; known are {known}")
    return str(file), _json_file(file)


def _as_input(batches: Iterator[ProbeSets]) -> Iterator[ProbeSets]:
    try:
        yield from batches
    except SourceError as error:
        raise InputError(str(error)) from None


def _npy(path: Path) -> _Found:
    yield _Probe(str(path), path.stem, np.atleast_2d(feature_array(read_npy(path), str(path))), None)


def _npz(path: Path) -> _Found:
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
    extractor = None if label is None else str(label)
    for name, first, last in zip(names, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        yield _Probe(str(path), name, features[first:last], extractor)


def _hdf5(path: Path) -> _Found:
    # h5py takes a while to load and most probes come in other files.
    from pfstore.sources import hdf5

    layout = hdf5.find(path)
    for one in layout.files:
        with hdf5.open_file(one) as file:
            for subject, group in hdf5.subject_groups(file).items():
                for name, features in _of_group(file[group], subject, str(one)):
                    yield _Probe(str(path), name, features, layout.extractor)


def _of_group(group: Any, subject: str, where: str) -> Iterator[tuple[str, NDArray[Any]]]:
    from pfstore.sources import hdf5

    for name in filter(_PROBE.fullmatch, hdf5.members(group)):
        dataset = hdf5.dataset_of(group, name)
        if dataset is None:
            raise InputError(f"{where}: probe {subject}/{name} is no dataset of features")
        if dataset.fault:
            raise InputError(f"{where}: probe {subject}/{name} is {dataset.fault.reason}: {dataset.fault.detail}")
        yield f"{subject}/{name}", np.concatenate([part for _, part in dataset.slices()])


def _json_file(path: Path) -> _Found:
    try:
        with path.open("rb") as file:
            yield from _json_lines(file, str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _json_lines(stream: IO[bytes], where: str) -> _Found:
    number, first = 0, 0
    label: str | None = None
    for lines in lines_as_they_come(stream):
        for line in lines:
            number += 1
            if not line.strip():
                continue
            place = f"{where}: line {number}"
            probe = _object(line, place)
            told = _label(probe, place)
            if first == 0:
                first, label = number, told
            if told != label:
                raise InputError(
                    f"{where}: the probes are of several extractors: {label!r} (line {first}), {told!r} (line "
                    f"{number}); search with one at a time"
                )
            yield _Probe(place, str(probe.get("id", number)), _vectors(probe["features"], place), told)
        yield None


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


def _batches(where: str, found: _Found) -> Iterator[ProbeSets]:
    """Check probes and put them together; those before one that cannot be used are given before the error."""
    first: _Probe | None = None
    gathered: list[_Probe] = []
    rows = 0
    try:
        for probe in found:
            if probe is not None:
                first = first or probe
                _check_dimension(probe, first)
                gathered.append(probe)
                rows += len(probe.features)
            if gathered and (probe is None or len(gathered) >= BATCH_PROBES or rows >= BATCH_FEATURES):
                full, gathered, rows = gathered, [], 0
                yield from _checked(full)
    except (InputError, SourceError):
        if gathered:
            yield from _checked(gathered)
        raise
    if gathered:
        yield from _checked(gathered)
    if first is None:
        raise InputError(f"{where}: there is no probe in it")


def _check_dimension(probe: _Probe, first: _Probe) -> None:
    if len(probe.features) == 0:
        raise InputError(f"{probe.place}: probe {probe.name!r} is empty; leave it out, or give it a feature")
    if probe.features.shape[1] != first.features.shape[1]:
        raise InputError(
            f"{probe.place}: probe {probe.name!r} has features of {probe.features.shape[1]} values, "
            f"probe {first.name!r} of {first.features.shape[1]}; one search takes one dimension"
        )


def _checked(probes: Sequence[_Probe]) -> Iterator[ProbeSets]:
    """Give the probes as far as every feature can be used. Raises InputError at the first that cannot."""
    offsets = offsets_of([len(one.features) for one in probes])
    with np.errstate(over="ignore"):
        values = np.concatenate([one.features for one in probes]).astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("nd,nd->n", values, values, dtype=np.float64))
    bad = (~np.isfinite(norms) | (norms < MINIMUM_NORM)).nonzero()[0]
    good = len(probes) if len(bad) == 0 else int(np.searchsorted(offsets, bad[0], side="right")) - 1
    if good:
        names = [one.name for one in probes[:good]]
        yield ProbeSets(values[: offsets[good]], offsets[: good + 1], names, probes[0].extractor)
    if good < len(probes):
        row, probe = int(bad[0]), probes[good]
        what = f"has the norm {norms[row]:.3g}" if np.isfinite(norms[row]) else "is not finite (NaN or infinite)"
        number = row - int(offsets[good])
        raise InputError(f"{probe.place}: probe {probe.name!r}: feature {number} {what}; leave it out")
