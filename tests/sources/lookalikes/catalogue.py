"""Every look-alike on every engine that its system runs on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.sources.lookalikes.base import Engine, Lookalike
from tests.sources.lookalikes.compreface import CompreFace, OldCompreFace
from tests.sources.lookalikes.deepface import DeepFaceArrays, DeepFaceVectors
from tests.sources.lookalikes.digikam import DigiKam6, DigiKam7, DigiKam8
from tests.sources.lookalikes.ente import Ente
from tests.sources.lookalikes.immich import (
    Immich2,
    Immich32,
    Immich83,
    Immich91,
    Immich106,
    Immich127,
    Immich137,
)
from tests.sources.lookalikes.inspireface import InspireFace
from tests.sources.lookalikes.librephotos import LibrePhotos23, LibrePhotos70, LibrePhotos71, LibrePhotos99
from tests.sources.lookalikes.nextcloud import FaceRecognition, OldFaceRecognition, Recognize2, Recognize10
from tests.sources.lookalikes.photoprism import PhotoPrism

_ON: dict[Engine, list[type[Lookalike]]] = {
    "postgresql": [
        *(Immich83, Immich91, Immich106, Immich127, Immich137, Immich2, Immich32),
        *(CompreFace, OldCompreFace, DeepFaceArrays, DeepFaceVectors),
        *(LibrePhotos23, LibrePhotos70, LibrePhotos71, LibrePhotos99),
        *(Recognize2, Recognize10, OldFaceRecognition, FaceRecognition),
    ],
    "mysql": [PhotoPrism, DigiKam6, DigiKam8, Recognize2, Recognize10, OldFaceRecognition, FaceRecognition],
    "sqlite": [
        *(PhotoPrism, DigiKam6, DigiKam7, DigiKam8, LibrePhotos71, LibrePhotos99, Ente, InspireFace),
        *(Recognize2, Recognize10, OldFaceRecognition, FaceRecognition),
    ],
}

LOOKALIKES: list[Lookalike] = [kind(engine) for engine, kinds in _ON.items() for kind in kinds]


def _marks(lookalike: Lookalike) -> list[pytest.MarkDecorator]:
    if lookalike.engine == "mysql":
        return [pytest.mark.mariadb]
    return [pytest.mark.postgres15] if lookalike.engine == "postgresql" and not lookalike.needs_pgvector else []


def each(lookalikes: Sequence[Lookalike]) -> pytest.MarkDecorator:
    """Run a test on each of the stores, filled, as the fixtures lookalike, engine and store_url."""
    parameters = [pytest.param(one, marks=_marks(one), id=name_of(one)) for one in lookalikes]
    return pytest.mark.parametrize("lookalike", parameters, indirect=True)


def name_of(lookalike: Lookalike) -> str:
    return f"{type(lookalike).__name__}-{lookalike.engine}"
