"""Inspection of stores of known systems: the preset is recognised, and the content alone says the same."""

from __future__ import annotations

from pfstore.sources.inspection import Finding, inspect
from tests.sources.lookalikes.base import Lookalike
from tests.sources.lookalikes.catalogue import LOOKALIKES, each
from tests.sources.lookalikes.inspireface import InspireFace

# Of each system: the column, its encoding, and the columns that tell its persons apart, as good as the preset's or one
# step finer or coarser: an unnamed cluster is a person too.
EXPECTED = {
    "photoprism": ("markers.embeddings_json", "json:0", {"subj_uid"}),
    "immich-1.83": ("asset_faces.embedding", None, {"personId"}),
    "immich-1.106": ("face_search.embedding", "pgvector", {"asset_faces.personId"}),
    "immich-1.127": ("face_search.embedding", "pgvector", {"asset_faces.personId"}),
    "immich-1.137": ("face_search.embedding", "pgvector", {"asset_face.personId"}),
    "immich-2.5": ("face_search.embedding", "pgvector", {"asset_face.personId"}),
    "immich-3.2": ("face_search.embedding", "pgvector", {"asset_face.personGroupId"}),
    "compreface-0.5": ("face.embeddings", "json:embeddings", {"api_key/face_name"}),
    "compreface-0.5.1": ("embedding.embedding", "array", {"subject_id"}),
    "digikam-6": ("FaceMatrices.vecdata", "qcompress+float32-le", {"identity"}),
    "digikam-7": ("FaceMatrices.embedding", "float32-le", {"identity"}),
    "digikam-8": ("FaceMatrices.embedding", "float32-le", {"identity"}),
    "librephotos-0023": ("api_face.encoding", "hex+float64-le", {"person_id"}),
    "librephotos-0070": ("api_face.encoding", "hex+float64-le", {"person_id"}),
    "librephotos-0071": ("api_face.encoding", "hex+float64-le", {"person_id"}),
    "librephotos-0099": ("api_face.encoding", "hex+float64-le", {"person_id"}),
    "deepface-array": ("embeddings.embedding", "array", {"img_name"}),
    "deepface-pgvector": (None, "pgvector", {"img_name"}),
    "recognize-2": ("oc_recognize_face_detections.vector", "json", {"cluster_id"}),
    "recognize-10": ("oc_recognize_face_detections.face_vector", "json", {"cluster_id"}),
    "facerecognition-0.5": ("oc_facerecog_faces.descriptor", "json", {"person", "oc_facerecog_persons.name"}),
    "facerecognition-0.9.93": ("oc_facerecog_faces.descriptor", "json", {"oc_facerecog_clusters.person"}),
    "ente": ("faces.embedding", "protobuf:1:double", {"face_clusters.cluster_id", "cluster_person.person_id"}),
}


def subject_of(finding: Finding) -> str | None:
    return "/".join(one.label for one in finding.subject.columns) if finding.subject else None


@each([one for one in LOOKALIKES if not isinstance(one, InspireFace)])
def test_the_content_tells_what_the_preset_knows(lookalike: Lookalike, store_url: str) -> None:
    found = inspect(store_url)
    assert found.presets == [lookalike.preset]
    column, encoding, subjects = EXPECTED[lookalike.preset]
    best = found.findings[0]
    assert column in (None, f"{best.table.label}.{best.column}")
    assert encoding in (None, best.reading.encoding)
    assert best.reading.dimension == lookalike.dimension
    assert subject_of(best) in subjects
    assert not found.unread


@each([one for one in LOOKALIKES if isinstance(one, InspireFace)])
def test_vectors_inside_of_an_index_are_known_by_the_preset_alone(lookalike: Lookalike, store_url: str) -> None:
    found = inspect(store_url)
    assert found.presets == [lookalike.preset]
    assert all(finding.subject is None for finding in found.findings)


def test_every_preset_of_a_database_is_looked_for() -> None:
    assert {one.preset for one in LOOKALIKES} == {*EXPECTED, "inspireface"}
