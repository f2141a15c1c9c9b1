"""The baselines agree with their definitions, written out set by set."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from pfstore.errors import ContractError, InputError, ModelError
from pfstore.features import offsets_of
from pfstore.fusion import BASELINES, load_model
from tests.fusion.samples import feature_sets, regrouped

Values = NDArray[np.float64]


def unit(values: Values) -> Values:
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True))


def average(values: Values) -> Values:
    return np.asarray(unit(values).mean(axis=0))


def norm_weighted(values: Values) -> Values:
    return np.asarray(values.mean(axis=0))


def trimmed_mean(values: Values) -> Values:
    units = unit(values)
    cosines = units @ unit(units.mean(axis=0))
    nearest = np.argsort(-cosines, kind="stable")
    stay = set(nearest[: (7 * len(units) + 9) // 10]) | set(np.flatnonzero(cosines >= 0.30))
    ordered = np.sort(units[sorted(stay)], axis=0)
    cut = 15 * len(ordered) // 100
    return np.asarray(ordered[cut : len(ordered) - cut].mean(axis=0))


DEFINITIONS: dict[str, Callable[[Values], Values]] = {
    "average": average,
    "norm-weighted": norm_weighted,
    "trimmed-mean": trimmed_mean,
}
SIZES = [1, 2, 3, 7, 20, 255, 256, 257, 900]


@pytest.fixture(params=BASELINES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_has_a_definition() -> None:
    assert tuple(DEFINITIONS) == BASELINES


def test_sets_are_fused_as_defined(name: str) -> None:
    features, offsets = feature_sets(SIZES, 12)
    fused = load_model(name).fuse(features, offsets)
    assert fused.shape == (len(SIZES), 1, 12)
    for at, result in enumerate(fused[:, 0]):
        expected = DEFINITIONS[name](features[offsets[at] : offsets[at + 1]].astype(np.float64))
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


def test_a_large_set_is_fused_as_defined(name: str) -> None:
    features, offsets = feature_sets([100_000], 16)
    fused = load_model(name).fuse(features, offsets)[0, 0]
    np.testing.assert_allclose(fused, DEFINITIONS[name](features.astype(np.float64)), rtol=0, atol=1e-5)


def test_media_are_fused_first(name: str) -> None:
    features, offsets = feature_sets([3, 1, 6, 2, 2], 12)
    fused = load_model(name).fuse_media(features, offsets, offsets_of([3, 2]))
    media = [DEFINITIONS[name](features[a:b].astype(np.float64)) for a, b in pairwise(offsets)]
    expected = [DEFINITIONS[name](np.stack(part)) for part in (media[:3], media[3:])]
    np.testing.assert_allclose(fused[:, 0], expected, rtol=1e-6, atol=1e-6)


def test_outliers_are_dropped() -> None:
    random = np.random.default_rng(0)
    good = np.ones(32) + 0.1 * random.standard_normal((8, 32))
    features = np.concatenate([good, -np.ones((2, 32))]).astype(np.float32)
    template = load_model("trimmed-mean").templates(features, np.array([0, 10]))[0]
    assert template @ unit(np.ones(32)) > 0.99


def test_a_set_is_fused_the_same_in_any_company(name: str) -> None:
    model = load_model(name)
    features, offsets = feature_sets(SIZES, 12)
    order = [8, 0, 5, 3]
    fused = model.fuse(*regrouped(features, offsets, order))
    np.testing.assert_allclose(fused, model.fuse(features, offsets)[order], rtol=1e-6, atol=1e-6)


def test_chunks_and_columns_do_not_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(name)
    features, offsets = feature_sets(SIZES, 12)
    whole = model.fuse(features, offsets)
    monkeypatch.setattr("pfstore.fusion.chunked.CHUNK_VALUES", 12 * 300)
    monkeypatch.setattr("pfstore.fusion.baselines.CACHED_VALUES", 12 * 40)
    np.testing.assert_allclose(model.fuse(features, offsets), whole, rtol=1e-6, atol=1e-6)


def test_templates_have_norm_one_and_no_role(name: str) -> None:
    model = load_model(name)
    features, offsets = feature_sets(SIZES, 12)
    probes = model.templates(features, offsets, "probe")
    np.testing.assert_allclose(np.linalg.norm(probes, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(probes, model.templates(features, offsets, "gallery"))


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e4])
def test_opposite_features_have_no_template(name: str, scale: float) -> None:
    features = np.array([[1, 0], [0, 1], [3, 4], [-3, -4]], dtype=np.float32) * np.float32(scale)
    with pytest.raises(InputError, match="set 1 cancel"):
        load_model(name).fuse(features, np.array([0, 2, 4]))


def test_unit_normalisation_makes_norm_weighted_the_average() -> None:
    features, offsets = feature_sets(SIZES, 12)
    unweighted = load_model("norm-weighted", normalisation="unit").fuse(features, offsets)
    np.testing.assert_allclose(unweighted, load_model("average").fuse(features, offsets), atol=1e-6)


def test_digests_tell_models_and_normalisations_apart() -> None:
    digests = {load_model(name, normalisation=each).digest for name in BASELINES for each in ("raw", "unit", "scale:2")}
    assert len(digests) == 3 * len(BASELINES)
    assert load_model("average").digest == load_model("average", dimension=512).digest


def test_a_dimension_is_kept_if_given() -> None:
    assert load_model("average").dimension is None
    with pytest.raises(ContractError, match="12 values"):
        load_model("average", dimension=512).fuse(*feature_sets([2], 12))


def test_a_baseline_has_no_experts() -> None:
    with pytest.raises(ModelError, match="no experts"):
        load_model("average", experts_selected=4)
