from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pfstore.fusion import Nan, NanModel, random_model, to_bytes
from tests.cli.conftest import Run, write_probe
from tests.memory import batch_of, people

CARD = {
    "seed": 3,
    "stopped_early": True,
    "learning_rate": 0.0005,
    "data": {"subjects": 1189, "digest": "ab12"},
    "curve": [{"epoch": epoch, "loss": 5 - epoch / 8} for epoch in range(40)],
    "widths": [8, 16],
    "versions": {f"library_{number:02}": number for number in range(11)},
    "split": {"train": {"subjects": 900}, "test": {"subjects": 289}},
    "warnings": [],
    "note\x1b[31m": "two\nlines",
}


@pytest.fixture
def model() -> NanModel:
    made, random = Nan(8), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.3, generator=random)
    return NanModel(made, "unit", "trained", CARD)


def test_a_nan_model_fills_a_gallery(folder: Path, run: Run, model: NanModel) -> None:
    (folder / "paper.safetensors").write_bytes(to_bytes(model))
    config = folder / "pfstore.toml"
    config.write_text(config.read_text().replace('model = "average"', 'model = "paper"'))
    assert run("model", "import", "paper.safetensors").code == 0
    assert run("model", "list", "--json").json[0]["kind"] == "nan"
    assert run("backfill", "staff", "--json").json["subjects"]["written"] == 30

    subjects = people(30)
    probes = write_probe(folder / "probes.npz", {one: np.concatenate(list(subjects[one].values())) for one in subjects})
    found = run("search", "staff", "--probes", probes, "--top", "1", "--exact", "--json").json["probes"]
    batch = batch_of(subjects)
    gallery = model.templates_media(batch.features, batch.media_offsets, batch.subject_offsets)
    scores = model.templates(batch.features, batch.set_offsets) @ gallery.T
    names = list(subjects)
    assert [one["candidates"][0]["subject"] for one in found] == [names[at] for at in scores.argmax(axis=1)]
    told = [one["candidates"][0]["score"] for one in found]
    np.testing.assert_allclose(told, scores.max(axis=1), atol=2e-3)


def test_a_model_card_is_shown_on_a_page_and_whole_as_json(folder: Path, run: Run, model: NanModel) -> None:
    (folder / "paper.safetensors").write_bytes(to_bytes(model))
    run("model", "import", "paper.safetensors")
    assert run("model", "show", "paper", "--json").json["details"]["card"] == CARD
    above, card = run("model", "show", "paper").out.split("Model card\n")
    assert "kind" in above
    assert "card" not in above
    lines = {line[:15].strip(): line[15:].strip() for line in card.splitlines()}
    assert lines == {
        "learning rate": "0.0005",
        "note\\x1b[31m": "two\\nlines",
        "seed": "3",
        "stopped early": "yes",
        "curve": "40: (epoch 0, loss 5) … (epoch 39, loss 0.125)",
        "data": "digest ab12, subjects 1,189",
        "split": "test (subjects 289), train (subjects 900)",
        "versions": ", ".join(f"library {number:02} {number}" for number in range(8)) + ", and 3 more",
        "warnings": "none",
        "widths": "8, 16",
    }


def test_a_model_without_a_card_has_no_such_part(folder: Path, run: Run) -> None:
    (folder / "plain.safetensors").write_bytes(to_bytes(random_model(8, experts=2, selected=1)))
    assert "card" not in run("model", "import", "plain.safetensors").out
    assert "card" not in run("model", "show", "plain").out
