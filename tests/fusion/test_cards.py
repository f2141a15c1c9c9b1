"""A model card goes with the model, counts into its digest, and leaves models without one as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from pfstore.errors import ModelError
from pfstore.fusion import Nan, NanModel, NetworkModel, ProxyFusionModel, from_bytes, load_model, random_model, to_bytes
from tests.fusion.samples import REFERENCES, Reference

CARD: dict[str, Any] = {
    "seed": 0,
    "data": {"subjects": 1189, "name": 'Zoë\'s "faces" \\u0000'},
    "curve": [{"epoch": 0, "loss": 5.25}, {"epoch": 1, "loss": 0.1 + 0.2}],
    "stopped": None,
}


def carrying(card: dict[str, Any] | None) -> list[NetworkModel]:
    """One model of each kind with this card."""
    network = random_model(4, experts=2, selected=1).network
    return [ProxyFusionModel(network, "unit", "trained", card), NanModel(Nan(4), "unit", "trained", card)]


def test_a_card_comes_back_and_is_described(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for model in carrying(CARD):
        again = from_bytes(to_bytes(model))
        assert again.card == model.card == CARD
        assert again.describe() == model.describe()
        assert again.describe()["card"] == CARD
        path.write_bytes(to_bytes(model))
        loaded = load_model(path)
        assert loaded.describe()["card"] == CARD
        assert loaded.digest == model.digest


def test_it_is_stored_as_json_with_sorted_keys(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(carrying(CARD)[0]))
    with safe_open(path, "np") as file:
        text = file.metadata()["card"]
    assert json.loads(text) == CARD
    assert text.startswith('{"curve":[{"epoch":0,"loss":5.25},')


def test_the_card_is_part_of_the_digest_and_the_order_of_its_keys_is_not() -> None:
    cards = [None, {}, CARD, CARD | {"seed": 1}]
    for kind in range(2):
        assert len({carrying(card)[kind].digest for card in cards}) == len(cards)
        assert carrying(dict(reversed(CARD.items())))[kind].digest == carrying(CARD)[kind].digest


def test_without_a_card_nothing_is_said() -> None:
    for model in carrying(None):
        assert model.card is None
        assert "card" not in model.describe()
        assert b"card" not in to_bytes(model)


@pytest.mark.parametrize(
    ("name", "settings", "digest"),
    [
        (REFERENCES[0], {}, "98986ecb218387322ae374a53fb5b8b8fd7a5ed3949cd29d2b31f9a85a7eab27"),
        (
            REFERENCES[1],
            {"experts_selected": 3, "normalisation": "scale:16"},
            "073247dc7d12b0c72face84dcf0487810203dbd4ecb7587cf8b6292ab84e9c26",
        ),
    ],
)
def test_models_that_galleries_hold_keep_their_digests(name: str, settings: dict[str, Any], digest: str) -> None:
    """These were computed before there were cards and other kinds."""
    assert load_model(Reference.read(name).checkpoint, **settings).digest == digest


def test_a_card_is_a_copy() -> None:
    card = {"data": {"subjects": 3}}
    model = NanModel(Nan(4), card=card)
    card["data"]["subjects"] = 4
    told = model.card
    assert told is not None
    told["data"]["subjects"] = 5
    assert model.card == {"data": {"subjects": 3}}


@pytest.mark.parametrize(
    "card",
    [{"loss": float("nan")}, {"rate": float("inf")}, {"path": Path("a")}, {"name": "\ud800"}, {1: 1, "a": 2}],
    ids=["nan", "infinite", "object", "surrogate", "keys"],
)
def test_what_is_no_json_is_refused(card: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="the model card cannot be stored as JSON"):
        NanModel(Nan(4), card=card)


@pytest.mark.parametrize("name", ["\0", "a\\\0", "\\\\\0b"])
def test_what_a_database_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"U\+0000"):
        NanModel(Nan(4), card={"name": name})


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is not JSON"), ("[1]", "no JSON object"), ('{"loss":NaN}', "cannot be stored as JSON")]
)
def test_wrong_cards_in_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file(Nan(4).state_dict(), path, {"kind": "nan", "card": text})
    with pytest.raises(ModelError, match=f"{path}.*{said}"):
        load_model(path)
