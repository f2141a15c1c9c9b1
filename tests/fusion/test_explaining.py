"""The explained weights are those that make the template, and what lies apart is found."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pfstore.errors import CancelledSetsError, InputError, ModelError
from pfstore.features import Floats, Offsets
from pfstore.fusion import BASELINES, Fuser, Nan, NanModel, ProxyFusionModel, load_model, random_model
from pfstore.fusion.agreement import cosines_to, cosines_to_others, first_alike, outlier_limit
from pfstore.fusion.attention import Attending
from pfstore.fusion.chunked import ChunkedFuser
from pfstore.fusion.explaining import Explanation, Strategy, explain, selection
from pfstore.fusion.fuser import Role
from pfstore.fusion.normalisation import Normalisation
from pfstore.synthetic import Population
from tests.fusion import oracle
from tests.fusion.samples import REFERENCES, SELECTED, Reference, feature_sets, regrouped

ROLES: tuple[Role, ...] = ("gallery", "probe")
STRATEGIES: tuple[Strategy, ...] = ("media", "set")
SIZES = [3, 1, 40, 300, 2, 1]


def units(features: Floats) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def assert_reconstructs(told: Explanation, features: Floats) -> None:
    made = told.weights @ units(features)
    np.testing.assert_allclose(made, told.template, rtol=0, atol=1e-6 * max(1, np.abs(told.template).max()))


def nan_model(dimension: int, seed: int = 0) -> NanModel:
    network = Nan(dimension)
    with torch.no_grad():
        random = torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) / 4)
    return NanModel(network)


def exact_models() -> list[Fuser]:
    network = random_model(24, experts=7, selected=3, seed=1).network
    return [
        random_model(24, experts=7, selected=3),
        ProxyFusionModel(network, "unit"),
        ProxyFusionModel(network, "scale:3.5"),
        nan_model(24),
        load_model("average"),
        load_model("norm-weighted"),
        load_model("norm-weighted", normalisation="scale:0.1"),
    ]


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_make_the_templates_of_published_checkpoints(name: str, role: Role, strategy: Strategy) -> None:
    reference = Reference.read(name)
    model = load_model(reference.checkpoint)
    for subject, (first, last) in enumerate(pairwise(reference.subject_offsets[:6])):
        features, offsets = regrouped(reference.features, reference.offsets, list(range(first, last)))
        told = explain(model, features, offsets, strategy=strategy, role=role)
        assert_reconstructs(told, features)
        if (strategy, role) == ("media", "gallery"):
            made = told.weights @ units(features)
            np.testing.assert_allclose(made, reference.two_stage[subject], rtol=0, atol=1e-5)


@pytest.mark.parametrize("number", range(len(exact_models())))
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_make_the_template_that_fusing_gives(number: int, role: Role, strategy: Strategy) -> None:
    model = exact_models()[number]
    assert isinstance(model, Attending)
    features, offsets = feature_sets(SIZES, 24)
    told = explain(model, features, offsets, strategy=strategy, role=role)
    assert told.exact
    assert_reconstructs(told, features)
    if strategy == "set":
        fused = model.fuse(features, np.array([0, len(features)]), role)
    else:
        fused = model.fuse_media(features, offsets, np.array([0, len(SIZES)]), role)
    assert (told.template == fused[0]).all()
    assert told.weights.dtype == np.float64
    assert (told.weights >= 0).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_shares_add_up(strategy: Strategy) -> None:
    features, offsets = feature_sets(SIZES, 24)
    for model in [*exact_models(), load_model("trimmed-mean")]:
        told = explain(model, features, offsets, strategy=strategy)
        of_media = np.add.reduceat(told.shares, offsets[:-1], axis=1)
        np.testing.assert_allclose(of_media, told.media_weights)
        np.testing.assert_allclose(told.shares.sum(axis=1), 1)
        np.testing.assert_allclose([told.overall.sum(), told.media_overall.sum()], 1)
        assert 1 <= told.effective_frames <= len(features) + 1e-9


@pytest.mark.parametrize("role", ROLES)
def test_the_experts_are_those_that_fusing_takes(role: Role) -> None:
    model = random_model(24, experts=9, selected=3, seed=2)
    features, offsets = feature_sets([5, 2, 7], 24)
    weights = oracle.wide(model.network)
    proxies = weights["proxies_p" if role == "probe" else "proxies_g"]
    values = torch.from_numpy(features).double()
    whole = explain(model, features, offsets, strategy="set", role=role)
    assert whole.selection is not None
    assert whole.selection.experts.tolist() == oracle.experts_of(weights, values, proxies, 3)
    projected = torch.nn.functional.linear(values, weights["transform.weight"], weights["transform.bias"])
    anchors = torch.nn.functional.linear(proxies, weights["transform.weight"], weights["transform.bias"])
    cosines = torch.nn.functional.cosine_similarity(projected[:, None], anchors[None], dim=2)
    np.testing.assert_allclose(whole.selection.scores, cosines.mean(dim=0).numpy(), atol=1e-6)
    assert whole.media_experts is None

    staged = explain(model, features, offsets, strategy="media", role=role)
    assert staged.media_experts is not None
    for (first, last), experts in zip(pairwise(offsets), staged.media_experts.tolist(), strict=True):
        assert experts == oracle.experts_of(weights, values[first:last], proxies, 3)
    vectors = torch.from_numpy(model.fuse(features, offsets, role).reshape(-1, 24)).double()
    assert staged.selection is not None
    assert staged.selection.experts.tolist() == oracle.experts_of(weights, vectors, proxies, 3)


def test_a_probe_is_given_to_experts_of_its_own_all_at_once() -> None:
    model = random_model(24, experts=9, selected=3, seed=2)
    features, offsets = feature_sets([5, 2], 24)
    probe, told = selection(model, features), explain(model, features, offsets, strategy="set", role="probe")
    assert probe is not None
    assert told.selection is not None
    assert (probe.experts == told.selection.experts).all()
    assert (probe.scores == told.selection.scores).all()
    for other in (load_model("average"), nan_model(24)):
        assert selection(other, features) is None
        assert explain(other, features, offsets, strategy="media").selection is None


def test_averages_by_hand() -> None:
    features = np.array([[2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 4, 0]], dtype=np.float32)
    offsets = np.array([0, 2, 3])
    told = explain(load_model("average"), features, offsets, strategy="media")
    # The first medium's vector is half of either, so it has the length sqrt(1/2).
    np.testing.assert_allclose(told.weights, [[0.5 * 0.5 * 2**0.5, 0.5 * 0.5 * 2**0.5, 0.5]])
    np.testing.assert_allclose(told.media_weights, [[0.5, 0.5]])
    np.testing.assert_allclose(told.shares, [[0.25, 0.25, 0.5]])
    assert told.effective_frames == pytest.approx(1 / (2 / 16 + 1 / 4))

    weighted = explain(load_model("norm-weighted"), features, offsets, strategy="media")
    np.testing.assert_allclose(weighted.weights, [[0.5, 0.75, 2]])
    np.testing.assert_allclose(weighted.template, [[0.5, 0.75, 2, 0]])
    whole = explain(load_model("norm-weighted"), features, offsets, strategy="set")
    np.testing.assert_allclose(whole.weights, [[2 / 3, 1, 4 / 3]])
    np.testing.assert_allclose(whole.media_weights, [[5 / 9, 4 / 9]])


def test_a_trimmed_mean_tells_in_how_many_coordinates_a_feature_counts() -> None:
    features, _ = feature_sets([9], 12, seed=4)
    features = np.concatenate([features, -features[:1]])  # is far from the mean, and 7 of 10 are enough
    told = explain(load_model("trimmed-mean"), features, np.array([0, 10]), strategy="set")
    assert not told.exact
    kept = units(features)[:9]
    counted = np.zeros(9)
    for column in kept.T:
        counted[np.argsort(column)[1:-1]] += 1  # 15 % of 9 is one at either end
    np.testing.assert_allclose(told.weights[0], [*counted / 12 / 7, 0])
    assert told.negligible.tolist() == [False] * 9 + [True]


def test_a_trimmed_mean_over_media_multiplies_the_stages() -> None:
    features, offsets = feature_sets([3, 1, 2], 12)
    told = explain(load_model("trimmed-mean"), features, offsets, strategy="media")
    # Of so few nothing is trimmed, so it is the average.
    average = explain(load_model("average"), features, offsets, strategy="media")
    np.testing.assert_allclose(told.weights, average.weights)


@pytest.mark.parametrize("role", ROLES)
def test_the_weights_of_a_set_do_not_depend_on_its_company(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    features, offsets = feature_sets(SIZES, 24)
    for model in [*exact_models(), load_model("trimmed-mean")]:
        assert isinstance(model, Attending)
        alone = [model.attend(*regrouped(features, offsets, [at]), role) for at in range(len(SIZES))]
        for values in (2**24, 24 * 40):
            monkeypatch.setattr("pfstore.fusion.chunked.CHUNK_VALUES", values)
            together = model.attend(features, offsets, role)
            expected = np.concatenate([one.weights for one in alone], axis=1)
            np.testing.assert_allclose(together.weights, expected, rtol=0, atol=1e-5 * expected.max())
            if together.experts is not None:
                assert together.experts.tolist() == [
                    one.experts[0].tolist() for one in alone if one.experts is not None
                ]


@pytest.mark.parametrize("step", [2**20, 16 * 50])
@pytest.mark.parametrize("counts", [[3, 1, 400, 2], [5, 4], [6], [60, 1, 1, 9]], ids=str)
def test_cosines_to_the_others(counts: list[int], step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfstore.fusion.agreement._CACHED_VALUES", step)
    features, offsets = feature_sets(counts, 16)
    wide = units(features)
    groups = list(pairwise(offsets)) if len(counts) >= 3 else [(n, n + 1) for n in range(len(features))]
    means = [wide[first:last].mean(axis=0) for first, last in groups]
    expected = []
    for own, (first, last) in enumerate(groups):
        others = np.sum([mean for at, mean in enumerate(means) if at != own], axis=0)
        expected += (wide[first:last] @ others / np.linalg.norm(others)).tolist()
    np.testing.assert_allclose(cosines_to_others(features, offsets), expected)
    vectors = features[:3] * 2
    np.testing.assert_allclose(cosines_to(vectors, features), units(vectors) @ wide.T)


def test_without_others_there_is_no_cosine() -> None:
    one = np.array([[3, 4]], dtype=np.float32)
    assert np.isnan(cosines_to_others(one, np.array([0, 1]))).all()
    told = explain(load_model("average"), one, np.array([0, 1]), strategy="set")
    assert told.limit is None
    assert not told.outliers.any()
    assert not told.dominant.any()
    # What the other two show cancels.
    three = np.array([[1, 0], [-1, 0], [0, 1]], dtype=np.float32)
    assert np.isnan(cosines_to_others(three, np.array([0, 3]))).tolist() == [False, False, True]


def test_the_rule_for_outliers() -> None:
    cosines = np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    # The median is 0.7, the deviations from it are 0.2, 0.1, 0, 0.1, 0.6, so theirs is 0.1.
    assert outlier_limit(cosines) == pytest.approx(0.7 - 3 * 1.4826 * 0.1)
    assert outlier_limit(cosines[:4]) is None
    assert outlier_limit(np.array([0.9, 0.8, 0.7, 0.6, np.nan])) is None


def test_duplicates_name_the_first() -> None:
    features = np.array([[1, 2], [3, 4], [1, 2], [1, 2.5], [3, 4], [1, 2]], dtype=np.float32)
    assert first_alike(features).tolist() == [-1, -1, 0, -1, 1, 0]


@pytest.mark.parametrize(("norms", "dominant"), [([1, 1, 8], [0, 0, 1]), ([1, 1, 1.9], [0, 0, 0]), ([1, 9], [0, 0])])
def test_what_outweighs_all_others(norms: list[float], dominant: list[int]) -> None:
    features = np.array([[1, 0]] * len(norms), dtype=np.float32) * np.array(norms, dtype=np.float32)[:, None]
    told = explain(load_model("norm-weighted"), features, np.array([0, len(norms)]), strategy="set")
    assert told.dominant.tolist() == [bool(one) for one in dominant]


def test_what_weighs_next_to_nothing() -> None:
    features = np.ones((4, 2), dtype=np.float32) * np.array([[1], [1], [0.009], [1]], dtype=np.float32)
    told = explain(load_model("norm-weighted"), features, np.array([0, 4]), strategy="set")
    # A hundredth of an equal share is 0.0025, the third has 0.009 / 3.009.
    assert not told.negligible.any()
    features[2] *= 0.8
    told = explain(load_model("norm-weighted"), features, np.array([0, 4]), strategy="set")
    assert told.negligible.tolist() == [False, False, True, False]


def subjects(population: Population) -> list[tuple[Floats, Offsets]]:
    """The subjects with at least 12 features in 3 media."""
    found = []
    for batch in population.batches():
        for first, last in pairwise(batch.subject_offsets):
            media = batch.media_offsets[first : last + 1]
            if last - first >= 3 and media[-1] - media[0] >= 12:
                found.append((batch.features[media[0] : media[-1]].copy(), media - media[0]))
    return found


def test_a_wrong_persons_frame_in_a_video_is_found() -> None:
    population = Population(
        subjects=60, dimension=256, seed=7, wrong_person_share=0, noise=0.4, medium_noise=0.5, features_per_subject=25
    )
    random = np.random.default_rng(0)
    found, innocent, tried, frames = 0, 0, 0, 0
    for features, offsets in subjects(population):
        wrong = int(random.integers(offsets[-2], offsets[-1]))  # videos come last
        features[wrong] = population.strangers(wrong + 1).features[wrong]
        told = explain(load_model("average"), features, offsets, strategy="media")
        assert np.argmin(told.cosines) == wrong
        tried += 1
        frames += len(features)
        found += bool(told.outliers[wrong])
        innocent += int(told.outliers.sum()) - bool(told.outliers[wrong])
    assert tried >= 20
    assert found >= 0.85 * tried  # of few frames that differ much, the rule calls none an outlier
    assert innocent <= 0.08 * frames


def test_a_medium_of_a_wrong_person_is_found() -> None:
    population = Population(subjects=40, dimension=256, seed=8, wrong_person_share=0, noise=0.4, medium_noise=0.5)
    found, tried = 0, 0
    for features, offsets in subjects(population):
        if len(offsets) < 6:
            continue
        features[0] = population.strangers(1).features[0]  # a photo
        tried += 1
        found += bool(explain(load_model("average"), features, offsets, strategy="media").outliers[0])
    assert tried >= 8
    assert found >= 0.9 * tried


def test_errors() -> None:
    class Silent(ChunkedFuser):
        name, kind, dimension, blocks = "silent", "baseline", None, 1
        digest = ""

        def describe(self) -> dict[str, Any]:
            return {}

        def _pool(self, features: torch.Tensor, offsets: Offsets, role: Role) -> tuple[torch.Tensor, torch.Tensor]:
            return features[None, : len(offsets) - 1], features.new_ones(())

    features = np.ones((2, 3), dtype=np.float32)
    with pytest.raises(ModelError, match="the model silent cannot tell how it weighs"):
        explain(Silent(Normalisation("raw")), features, np.array([0, 2]), strategy="set")
    with pytest.raises(ModelError, match="cannot be explained: it has no method `attend`"):
        explain(OfOnesOwn(), features, np.array([0, 2]), strategy="set")  # type: ignore[arg-type]
    opposite = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    with pytest.raises(CancelledSetsError):
        explain(load_model("average"), opposite, np.array([0, 2]), strategy="media")
    with pytest.raises(InputError, match="there is no set"):
        load_model("average").attend(features[:0], np.array([0]))  # type: ignore[attr-defined]


class OfOnesOwn:
    """A Fuser as a user may write one: only what explaining asks of it before it gives up."""

    name = "of-ones-own"


def test_all_models_of_pfstores_own_can_be_explained() -> None:
    for name in BASELINES:
        assert isinstance(load_model(name), Attending)
    assert (
        explain(
            load_model(Reference.read(REFERENCES[0]).checkpoint), *feature_sets([4], 32), strategy="set"
        ).weights.shape[0]
        == SELECTED
    )


MEBIBYTE = 2**20
PROGRAM = """
import resource
import numpy as np
from pfstore.fusion import random_model
from pfstore.fusion.explaining import explain

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

model = random_model(64, experts=3, selected=2, seed=0)
features = np.random.default_rng(0).standard_normal((100_000, 64), dtype=np.float32)
explain(model, features[:5000], np.array([0, 10, 5000]), strategy="media")
before = peak()
explain(model, features, np.linspace(0, 100_000, {media} + 1).astype(int), strategy="{strategy}")
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in KiB on Linux only")
@pytest.mark.parametrize(("strategy", "media"), [("set", 1), ("media", 2000)])
def test_memory_is_bounded(strategy: str, media: int) -> None:
    """The features are 24 MiB; an [N, D, blocks] tensor in float64 would be 98."""
    program = PROGRAM.format(strategy=strategy, media=media)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert int(ran.stdout) < 4 * 24 * MEBIBYTE
