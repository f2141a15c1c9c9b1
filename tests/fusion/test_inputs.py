"""What callers give is used or refused in one line that names the row or the set."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from pfstore.errors import ContractError, InputError
from pfstore.fusion import Fuser, load_model, random_model
from tests.fusion.samples import feature_sets

FEATURES, OFFSETS = feature_sets([2, 3, 1], 8)


@pytest.fixture(params=["average", "trimmed-mean", "proxyfusion"])
def model(request: pytest.FixtureRequest) -> Fuser:
    return (
        random_model(8, experts=3, selected=2, seed=0) if request.param == "proxyfusion" else load_model(request.param)
    )


@pytest.mark.parametrize(
    ("offsets", "said"),
    [
        ([0, 2, 2, 6], "set 1 is empty"),
        ([0, 4, 2, 6], "set 1 ends before it begins"),
        ([1, 2, 6], "run from 1 to 6, must run from 0 to 6 features"),
        ([0, 2, 7], "run from 0 to 7"),
        ([], "must be"),
        ([[0, 6]], "must be"),
        ([0.0, 6.0], "must be"),
    ],
)
def test_malformed_offsets_are_refused(model: Fuser, offsets: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        model.fuse(FEATURES, np.array(offsets))


def test_media_and_subjects_without_features_are_refused(model: Fuser) -> None:
    with pytest.raises(InputError, match="medium 2 is empty"):
        model.fuse_media(FEATURES, np.array([0, 2, 3, 3, 6]), np.array([0, 4]))
    with pytest.raises(InputError, match="subject 1 is empty"):
        model.fuse_media(FEATURES, OFFSETS, np.array([0, 1, 1, 3]))
    with pytest.raises(InputError, match="from 0 to 3 media"):
        model.fuse_media(FEATURES, OFFSETS, np.array([0, 4]))


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e30, "no finite norm"), (0.0, "is zero")]
)
def test_faulty_features_are_named(model: Fuser, value: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfstore.fusion.chunked.CHUNK_VALUES", 8)
    features = FEATURES.copy()
    features[4] = value
    with pytest.raises(InputError, match="feature 4 .*" + said):
        model.fuse(features, OFFSETS)
    with pytest.raises(InputError, match="feature 4 .*" + said):
        model.fuse_media(features, OFFSETS, np.array([0, 1, 3]))


def test_a_cancelled_medium_is_named() -> None:
    features = np.array([[1, 0], [1, 0], [0, 2], [0, -2]], dtype=np.float32)
    with pytest.raises(InputError, match="medium 2 cancel"):
        load_model("average").fuse_media(features, np.array([0, 1, 2, 4]), np.array([0, 1, 3]))


def test_cancelled_media_of_a_subject_are_named() -> None:
    features = np.array([[1, 0], [0, 2], [0, -2]], dtype=np.float32)
    with pytest.raises(InputError, match="subject 1 cancel"):
        load_model("average").fuse_media(features, np.array([0, 1, 2, 3]), np.array([0, 1, 3]))


def test_features_that_a_scale_makes_infinite_are_refused() -> None:
    with pytest.raises(InputError, match="set 0 are too large"):
        load_model("norm-weighted", normalisation="scale:1e30").fuse(FEATURES * np.float32(1e9), OFFSETS)


@pytest.mark.parametrize("features", [np.ones(8), np.ones((6, 8), dtype=int), np.ones((6, 0)), np.full((6, 8), "a")])
def test_other_arrays_are_refused(model: Fuser, features: Any) -> None:
    with pytest.raises(InputError, match="features must be"):
        model.fuse(features, OFFSETS)


def test_another_dimension_is_refused() -> None:
    with pytest.raises(ContractError, match="8 values, the model takes 16"):
        random_model(16, experts=2, selected=1).fuse(FEATURES, OFFSETS)


def test_an_unknown_role_is_refused(model: Fuser) -> None:
    with pytest.raises(InputError, match="use probe or gallery"):
        model.fuse(FEATURES, OFFSETS, "reference")  # type: ignore[arg-type]


def test_any_layout_and_float_type_will_do(model: Fuser) -> None:
    expected = model.fuse(FEATURES, OFFSETS)
    readonly = FEATURES.copy()
    readonly.setflags(write=False)
    others: list[Any] = [readonly, np.asfortranarray(FEATURES), FEATURES.astype(np.float64), FEATURES.astype(">f4")]
    for same in others:
        np.testing.assert_allclose(model.fuse(same, OFFSETS), expected, atol=1e-6)
    reversed_view = FEATURES[::-1].copy()[::-1]
    np.testing.assert_allclose(model.fuse(reversed_view, OFFSETS.astype(np.int32)), expected, atol=1e-6)
    wide = torch.from_numpy(FEATURES).double().requires_grad_(True)
    fused = model.fuse(wide, torch.from_numpy(OFFSETS))
    assert fused.dtype == torch.float32
    np.testing.assert_allclose(fused.numpy(), expected, atol=1e-6)
    fused.requires_grad_(True).sum().backward()  # type: ignore[no-untyped-call]


def test_the_callers_features_are_left_as_they_are(model: Fuser) -> None:
    features = FEATURES.copy()
    model.templates(features, OFFSETS)
    np.testing.assert_array_equal(features, FEATURES)


def test_no_sets_give_no_templates(model: Fuser) -> None:
    none, zero = np.empty((0, 8), dtype=np.float32), np.array([0])
    assert model.fuse(none, zero).shape == (0, model.blocks, 8)
    assert model.templates_media(none, zero, zero).shape == (0, model.blocks * 8)


def test_templates_are_the_blocks_in_a_row(model: Fuser) -> None:
    fused = model.fuse(FEATURES, OFFSETS, "gallery").reshape(3, -1)
    expected = fused / np.linalg.norm(fused, axis=1, keepdims=True)
    np.testing.assert_allclose(model.templates(FEATURES, OFFSETS, "gallery"), expected, atol=1e-6)
    two_stage = model.fuse_media(FEATURES, OFFSETS, np.array([0, 2, 3]))
    templates = model.templates_media(FEATURES, OFFSETS, np.array([0, 2, 3]))
    assert templates.dtype == np.float32
    np.testing.assert_allclose(
        (templates * two_stage.reshape(2, -1)).sum(axis=1), np.linalg.norm(two_stage, axis=(1, 2)), rtol=1e-5
    )


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, pfstore.fusion; pfstore.fusion.BASELINES, pfstore.fusion.Fuser; "
        "assert 'torch' not in sys.modules; pfstore.fusion.load_model('average'); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_unknown_names_are_no_attributes() -> None:
    import pfstore.fusion

    with pytest.raises(AttributeError, match="nonsense"):
        pfstore.fusion.nonsense  # noqa: B018
