"""A model keeps its weights, settings and digest through its bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load

from pfstore.errors import ModelError
from pfstore.fusion import ProxyFusion, ProxyFusionModel, from_bytes, load_model, random_model, to_bytes
from tests.fusion.samples import REFERENCES, Reference

REFERENCE = Reference.read(REFERENCES[0])


def test_a_round_trip_keeps_everything() -> None:
    model = load_model(REFERENCE.checkpoint, experts_selected=3, normalisation="scale:16")
    again = from_bytes(to_bytes(model))
    assert again.describe() == model.describe()
    assert to_bytes(again) == to_bytes(model)
    np.testing.assert_array_equal(
        again.fuse(REFERENCE.features, REFERENCE.offsets), model.fuse(REFERENCE.features, REFERENCE.offsets)
    )


def test_the_digest_is_that_of_the_bytes() -> None:
    model = random_model(8, experts=3, selected=2, seed=0)
    assert model.digest == hashlib.sha256(to_bytes(model)).hexdigest()


def test_the_bytes_are_safetensors_of_the_checkpoints_weights(tmp_path: Path) -> None:
    data = to_bytes(load_model(REFERENCE.checkpoint))
    weights = load(data)
    assert weights.keys() == REFERENCE.weights.keys()
    assert all((weights[key] == tensor).all() for key, tensor in REFERENCE.weights.items())
    (tmp_path / "model.safetensors").write_bytes(data)
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        metadata = file.metadata()
    assert metadata == {
        "experts_selected": "4",
        "format_version": "1",
        "normalisation": "raw",
        "origin": "imported weights",
    }


def test_stored_settings_are_read_and_must_not_be_contradicted(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(load_model(REFERENCE.checkpoint, experts_selected=2, normalisation="unit")))
    assert (load_model(path).blocks, load_model(path).normalisation) == (2, "unit")
    assert load_model(path, experts_selected=2, normalisation="unit").digest == load_model(path).digest
    with pytest.raises(ModelError, match="made with experts_selected 2, not 4"):
        load_model(path, experts_selected=4)
    with pytest.raises(ModelError, match="made with normalisation unit, not raw"):
        load_model(path, normalisation="raw")


def test_the_same_scale_may_be_written_in_other_digits(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(load_model(REFERENCE.checkpoint, normalisation="scale:16.0")))
    assert load_model(path, normalisation="scale:1.6e1").normalisation == "scale:16"


def test_every_setting_changes_the_digest() -> None:
    settings: list[dict[str, object]] = [{}, {"experts_selected": 3}, {"normalisation": "unit"}]
    models = [load_model(REFERENCE.checkpoint, **each) for each in settings]  # type: ignore[arg-type]
    network = from_bytes(to_bytes(models[0])).network
    assert isinstance(network, ProxyFusion)
    labelled = ProxyFusionModel(network, origin="trained")
    other = load_model(Reference.read(REFERENCES[1]).checkpoint)
    assert len({model.digest for model in [*models, labelled, other]}) == 5


def test_the_digest_is_the_same_in_every_process() -> None:
    code = "from pfstore.fusion import random_model; print(random_model(8, experts=3, selected=2, seed=4).digest)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert ran.stdout.strip() == random_model(8, experts=3, selected=2, seed=4).digest


def test_random_models_say_so() -> None:
    model = from_bytes(to_bytes(random_model(8, experts=3, selected=2, seed=4)))
    assert model.describe()["origin"] == "random weights"
    assert model.digest != random_model(8, experts=3, selected=2, seed=5).digest


@pytest.mark.parametrize("data", [b"", b"nothing", b"\x08" + bytes(7) + b'{"a":1} '])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="the stored model"):
        from_bytes(data)


def test_a_baseline_has_no_bytes() -> None:
    with pytest.raises(ModelError, match="known by its name"):
        to_bytes(load_model("average"))
