"""Files of other systems as a user names them: by preset or format, checked, packed into HDF5."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.config import SourceConfig
from pfstore.errors import ConfigError
from pfstore.fusion import load_model
from pfstore.gallery import models
from pfstore.gallery.database import Connection
from pfstore.jobs.backfill import backfill
from pfstore.sources import open_source
from pfstore.sources.base import FeatureSource, MarkedSource
from pfstore.sources.files import FileSource
from pfstore.sources.pack import pack
from pfstore.sources.presets import all_presets
from tests.sources.formats.reading import DATA, numbers

FRAME = DATA / "pandas-2.2.3-protocol5.pkl"
FEATURES = numbers(4)
D = FEATURES.shape[1]


def write_ijb(folder: Path) -> dict[str, Any]:
    np.save(folder / "features.npy", FEATURES)
    (folder / "ijbx_face_tid_mid.txt").write_text("a.jpg 1 10\nb.jpg 1 11\nc.jpg 2 12\nd.jpg 3 13\n")
    (folder / "gallery.csv").write_text("1,anna\n2,bert\n")
    return {"path": "features.npy", "subjects": "gallery.csv", "extractor": "net"}


def write_frames(folder: Path) -> dict[str, Any]:
    for medium in ("G00001/a.pkl", "G00002/b.pkl"):
        (folder / "frames" / medium).parent.mkdir(parents=True)
        shutil.copy(FRAME, folder / "frames" / medium)
    return {"path": "frames", "extractor": "net"}


def write_gal(folder: Path) -> dict[str, Any]:
    shutil.copy(DATA / "qt5.gal", folder / "people.gal")
    return {"path": "people.gal", "extractor": "net"}


def write_edb(folder: Path) -> dict[str, Any]:
    content = FEATURES[:2].astype("<f4").tobytes()
    (folder / "edb").write_bytes(content)
    half = len(content) // 2
    (folder / "manifest").write_text(f"anna {half} 0\nbert {half} {half}\ncarl 0 {2 * half}\n")
    return {"path": "edb", "index": "manifest", "feature": {"encoding": "float32-le"}, "extractor": "net"}


def write_deepface(folder: Path) -> dict[str, Any]:
    rows = [
        {"identity": f"db/{who}/1.jpg", "embedding": FEATURES[i].tolist()} for i, who in enumerate(("anna", "bert"))
    ]
    (folder / "ds_model_x.pkl").write_bytes(pickle.dumps([*rows, {"identity": "db/carl/2.jpg", "embedding": None}]))
    return {"path": "ds_model_x.pkl", "extractor": "net"}


def write_encodings(folder: Path) -> dict[str, Any]:
    document = {"encodings": [FEATURES[0], FEATURES[1]], "names": ["anna", "bert"]}
    (folder / "encodings.pickle").write_bytes(pickle.dumps(document))
    return {"path": "encodings.pickle"}


STORES: dict[str, tuple[Callable[[Path], dict[str, Any]], int]] = {
    "ijb": (write_ijb, 2),
    "briar": (write_frames, 2),
    "openbr": (write_gal, 1),
    "frte": (write_edb, 2),
    "deepface-pickle": (write_deepface, 2),
    "face_recognition": (write_encodings, 2),
}


def test_every_preset_of_files_is_tried() -> None:
    assert {name for name, preset in all_presets().items() if preset.is_of_files} == set(STORES)


def everything(source: FeatureSource) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    dimension = source.sample().dimension
    assert dimension is not None
    for shard in source.shards(1):
        for batch in source.read(shard.range, dimension=dimension, features=100):
            cuts = batch.features.set_offsets
            for i, subject in enumerate(batch.features.subject_ids):
                found[subject] = sorted(row.tobytes() for row in batch.features.features[cuts[i] : cuts[i + 1]])
    return found


@pytest.mark.parametrize("preset", STORES)
def test_a_preset_opens_its_files_and_they_can_be_packed(tmp_path: Path, preset: str) -> None:
    write, subjects = STORES[preset]
    config = SourceConfig.model_validate({"preset": preset, **write(tmp_path)})
    with open_source(config, "legacy", tmp_path) as source:
        found = everything(source)
        assert len(found) == subjects
        packed = pack(source, tmp_path / "packed")
    with open_source(SourceConfig(path=Path("packed"), extractor="net"), "packed", tmp_path) as frozen:
        assert everything(frozen) == found
    assert packed.features == sum(map(len, found.values()))


@pytest.mark.parametrize("preset", STORES)
def test_a_gallery_is_made_of_such_files(tmp_path: Path, preset: str, connection: Connection) -> None:
    write, subjects = STORES[preset]
    models.resolve(connection, "average")
    config = SourceConfig.model_validate({"preset": preset, **write(tmp_path)})
    with open_source(config, "legacy", tmp_path) as source:
        done = backfill(connection, source, load_model("average"), gallery="found", source_name="legacy")
    assert done.counts.written == subjects
    assert done.counts.read == done.counts.fused + done.counts.rejected
    assert done.excluded == ({"template not in gallery.csv": 1} if preset == "ijb" else {})


def test_a_format_is_as_good_as_a_preset(tmp_path: Path) -> None:
    config = SourceConfig.model_validate({"format": "encodings", "extractor": "net", **write_encodings(tmp_path)})
    with open_source(config, "legacy", tmp_path) as source:
        assert set(everything(source)) == {"anna", "bert"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"path": "x.npz", "extractor": "e", "index": "y"}, "files of the format npz take no index"),
        ({"path": "x.npy", "format": "ijb", "extractor": "e", "subject_pattern": "(x)"}, "take no subject_pattern"),
        ({"path": "edb", "format": "edb", "extractor": "e"}, "say how a template is written"),
        ({"path": "x.pkl", "extractor": "e"}, 'set format = "deepface" or "encodings"'),
        ({"path": "edb", "preset": "immich"}, "is of a database; give its url"),
        ({"path": "edb", "preset": "imich"}, "did you mean immich"),
        ({"path": "edb", "preset": "frte", "feature": {"encoding": "pickle"}, "extractor": "e"}, "pickle is off"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_source(SourceConfig.model_validate(given), "legacy", tmp_path)


def test_a_preset_of_files_is_no_preset_of_a_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    config = SourceConfig(url=f"sqlite:///{tmp_path / 'x.db'}", preset="ijb")
    with pytest.raises(Exception, match="the preset ijb is for files, this is sqlite"):
        open_source(config, "legacy", tmp_path)


def test_a_pattern_needs_a_group() -> None:
    with pytest.raises(ValueError, match="has no group"):
        SourceConfig(path=Path("x"), format="frames", subject_pattern="G")
    with pytest.raises(ValueError, match="is no regular expression"):
        SourceConfig(path=Path("x"), format="frames", subject_pattern="(")


@pytest.mark.parametrize("link", [True, False])
def test_a_file_that_is_another_once_it_is_open_has_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    """Its rows are those of the file before, and so old that its times would be believed."""
    now, current = time.time, tmp_path / "current.npz"
    monkeypatch.setattr("pfstore.sources.stamps.time.time", lambda: now() + 7200)
    for number in (1, 2):
        np.savez(tmp_path / f"v{number}.npz", features=np.full((1, 2), number, np.float32), subject=np.array(["a"]))

    def point(number: int) -> None:
        path = tmp_path / f"v{number}.npz"
        if link:
            (tmp_path / "new").symlink_to(path)
        else:
            path.rename(tmp_path / "new")
        (tmp_path / "new").rename(current)

    def mark() -> bytes:
        with open_source(SourceConfig(path=current, extractor="net"), "s", tmp_path) as source:
            assert isinstance(source, MarkedSource)
            [one] = source.marks()
        return one.mark

    point(1)
    first, init = mark(), FileSource.__init__
    assert first

    def opening(self: FileSource, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        point(2)

    with monkeypatch.context() as patched:
        patched.setattr(FileSource, "__init__", opening)
        assert mark() == b""
    assert mark() not in (b"", first)


def test_what_is_known_of_a_preset_is_json() -> None:
    assert json.dumps([one.model_dump(mode="json") for one in all_presets().values()])
