"""Features in one pickled document: DeepFace's, and that of the tutorials for face_recognition. None is ever run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import ConfigError, SourceError
from pfstore.sources import keys, pickled
from pfstore.sources.assembly import Fault
from pfstore.sources.formats.common import check_texts, labelled, pattern, subject_in, vectors
from pfstore.sources.formats.rows import NOBODY, RowSource, Values
from pfstore.sources.keyed import SLICE_VALUES

# Since DeepFace 0.0.90; the names before do not tell all that changes the features.
_STORE = re.compile(r"ds_model_(.+)_detector_(.+?)_((?:un)?aligned_normalization_.+_expand_\d+)")
_USUAL = "aligned_normalization_base_expand_0"


class _Document(NamedTuple):
    """The rows of a document, [N] each. media: None where there are none."""

    subjects: Sequence[str]
    media: Sequence[str] | None
    features: Sequence[Any]


class _DocumentSource(RowSource):
    """A source of all rows of a pickled document, which is in memory as long as the source is."""

    def __init__(self, path: Path, document: _Document, extractor: str, dimension: int | None) -> None:
        with _saying(path):
            self._features = vectors(document.features, path.stat().st_size)
        longest = max((len(one) for one in self._features if not isinstance(one, Fault)), default=1)
        super().__init__(
            extractor,
            dimension,
            subjects=document.subjects,
            media=document.media,
            step=SLICE_VALUES // max(1, longest),
        )

    def values(self, rows: NDArray[np.int64]) -> Values:
        """Return the features of the rows of these numbers, and what is wrong with some."""
        found = [self._features[row] for row in rows.tolist()]
        faults = {i: one for i, one in enumerate(found) if isinstance(one, Fault)}
        return Values([None if isinstance(one, Fault) else one for one in found], faults)

    def row_key(self, row: int) -> str:
        """Return the row's number in the document."""
        return str(row)


class DeepFaceSource(_DocumentSource):
    """The pickle in which DeepFace.find keeps the embeddings of a folder: ds_model_*.pkl, and older ones.

    A list with, for each face, a dict of `identity` (the image's path) and `embedding`, or a list that begins with
    these two; an embedding of None, where no face was found, is rejected as empty. A medium is an identity; a subject
    is the first group that subject_pattern finds in it, or the folder that the image lies in. The label of the
    extractor is taken from the file's name where that is as DeepFace wrote it.

    Raises ConfigError where nothing tells the extractor, SourceError where the file is no such pickle.
    """

    def __init__(
        self,
        path: Path,
        *,
        extractor: str | None,
        name: str,
        dimension: int | None = None,
        subject_pattern: str | None = None,
    ) -> None:
        label = extractor or _deepface_label(path)
        if label is None:
            raise ConfigError(
                f"sources.{name}: {path} is not named ds_model_<model>_detector_<detector>_….pkl, "
                'so nothing tells what made its features; set extractor = "…"'
            )
        document = _deepface(path, pattern(subject_pattern, name))
        super().__init__(path, document, label, dimension)


class EncodingsSource(_DocumentSource):
    """The pickle {"encodings": […], "names": […]} that tutorials for face_recognition write; a subject is a name.

    Raises ConfigError where nothing tells the extractor, SourceError where the file is no such pickle.
    """

    def __init__(self, path: Path, *, extractor: str | None, name: str, dimension: int | None = None) -> None:
        label = labelled(extractor, name, path)
        super().__init__(path, _encodings(path), label, dimension)


def _read(path: Path) -> Any:
    with _saying(path):
        return pickled.read(path)


@contextmanager
def _saying(path: Path) -> Iterator[None]:
    """Say of which file it is that a pickle cannot be read."""
    try:
        yield
    except pickled.Unreadable as error:
        raise SourceError(f"{path}: the pickle {error}") from None


def _deepface(path: Path, expression: re.Pattern[str] | None) -> _Document:
    records = _read(path)
    if not isinstance(records, list):
        raise SourceError(f"{path}: the pickle is a {type(records).__name__}, not DeepFace's list of dicts")
    pairs = [_identity_and_embedding(record, f"{path}: record {i}") for i, record in enumerate(records)]
    media = [identity for identity, _ in pairs]
    with _saying(path):
        check_texts(media, path.stat().st_size)
    subjects = [subject_in(identity, expression) if expression else _folder(identity) for identity in media]
    return _Document(subjects, media, [embedding for _, embedding in pairs])


def _identity_and_embedding(record: Any, where: str) -> tuple[str, Any]:
    if isinstance(record, dict) and "identity" in record and "embedding" in record:
        identity, embedding = record["identity"], record["embedding"]
    elif isinstance(record, list | tuple) and len(record) >= 2:
        # Before 0.0.86: identity, embedding, and later the face's place.
        identity, embedding = record[0], record[1]
    else:
        raise SourceError(f"{where}: has no 'identity' and 'embedding', so it is not one of DeepFace's")
    if not isinstance(identity, str):
        raise SourceError(f"{where}: the identity is a {type(identity).__name__}, not the path of an image")
    return identity, embedding


def _folder(identity: str) -> str:
    return PurePosixPath(identity.replace("\\", "/")).parent.name


def _deepface_label(path: Path) -> str | None:
    """Return "detector/deepface-model", and what is unusual about it, as all of that changes the features."""
    told = _STORE.fullmatch(path.stem)
    if told is None:
        return None
    model, detector, rest = told.groups()
    return f"{detector}/deepface-{model}" + ("" if rest == _USUAL else f"-{rest.replace('_', '-')}")


def _encodings(path: Path) -> _Document:
    found = _read(path)
    if not isinstance(found, dict) or not {"encodings", "names"} <= found.keys():
        raise SourceError(f"{path}: the pickle is no dict of 'encodings' and 'names'")
    encodings, names = (_sequence(found[key], f"{path}: {key!r}") for key in ("encodings", "names"))
    if len(encodings) != len(names):
        raise SourceError(f"{path}: {len(encodings):,} encodings for {len(names):,} names")
    with _saying(path):
        check_texts(names, path.stat().st_size)
    return _Document([_name(one) for one in names], None, encodings)


def _sequence(found: Any, where: str) -> Sequence[Any]:
    # What has no values could be any number of them.
    if isinstance(found, np.ndarray) and found.ndim > 0 and len(found) <= found.size:
        return found.tolist() if found.ndim == 1 else list(found)
    if not isinstance(found, list | tuple):
        raise SourceError(f"{where} is a {type(found).__name__}, not a list")
    return found


def _name(found: Any) -> str:
    return keys.part_text(found) if isinstance(found, str | bytes | int | float) else NOBODY
