"""A model on another device or in another precision gives the same templates, within what that costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pfstore.errors import ModelError
from pfstore.features import Floats, Offsets, offsets_of
from pfstore.fusion import from_bytes, load_model, random_model, to_bytes
from pfstore.fusion.precision import Precision
from tests.fusion.samples import REFERENCES, Reference, feature_sets

SUBJECTS = offsets_of([3, 1, 4])
ERRORS: dict[Precision, float] = {"float32": 1e-5, "tf32": 0.02, "bfloat16": 0.05}
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
on_gpu = pytest.param("cuda", marks=needs_gpu)


@pytest.fixture
def sets() -> tuple[Floats, Offsets]:
    return feature_sets([1, 2, 3, 30, 63, 64, 65, 300], 32)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("device", ["cpu", on_gpu])
def test_the_reference_values(name: str, device: str) -> None:
    reference = Reference.read(name)
    model: Any = from_bytes(to_bytes(load_model(reference.checkpoint)))
    model.to(device)
    for role in ("probe", "gallery"):
        fused = model.fuse(reference.features, reference.offsets, role)
        np.testing.assert_allclose(fused, reference.fused[role], rtol=0, atol=1e-5)
    staged = model.fuse_media(reference.features, reference.offsets, reference.subject_offsets)
    np.testing.assert_allclose(staged, reference.two_stage, rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", on_gpu])
def test_chunk_by_chunk(device: str, sets: tuple[Floats, Offsets], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = random_model(32).templates(*sets, role="gallery")
    staged = random_model(32).templates_media(*sets, SUBJECTS)
    for name in ("CHUNK_VALUES", "GPU_CHUNK_VALUES"):
        monkeypatch.setattr(f"pfstore.fusion.chunked.{name}", 32 * 20)
    model = random_model(32).to(device)
    for _ in range(3):
        np.testing.assert_allclose(model.templates(*sets, role="gallery"), whole, rtol=0, atol=1e-5)
        np.testing.assert_allclose(model.templates_media(*sets, SUBJECTS), staged, rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", on_gpu])
def test_half_precision_features_are_taken_as_they_are(device: str, sets: tuple[Floats, Offsets]) -> None:
    features, offsets = sets
    halves: Any = features.astype(np.float16)
    made = random_model(32).to(device).templates(halves, offsets)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, random_model(32).templates(halves.astype(np.float32), offsets), rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", on_gpu])
@pytest.mark.parametrize("precision", ERRORS)
def test_each_precision_costs_no_more_than_this(
    device: str, precision: Precision, sets: tuple[Floats, Offsets]
) -> None:
    exact = random_model(32).templates(*sets, role="gallery")
    before = torch.backends.cuda.matmul.allow_tf32
    made = random_model(32).to(device, precision).templates(*sets, role="gallery")
    assert np.linalg.norm(made - exact, axis=1).max() < ERRORS[precision]
    assert torch.backends.cuda.matmul.allow_tf32 == before
    if precision == "bfloat16":
        assert not np.allclose(made, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", on_gpu])
@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_no_precision_changes_the_choice_of_experts(device: str, precision: Precision) -> None:
    features, offsets = feature_sets([3] * 400, 32)
    exact = random_model(32).attend(features, offsets)
    made = random_model(32).to(device, precision).attend(features, offsets)
    assert exact.experts is not None
    assert made.experts is not None
    assert made.experts.tolist() == exact.experts.tolist()


def test_the_choice_of_experts_is_not_made_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = []
    linear = torch.nn.functional.linear

    def watched(values: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(weight) == 10:  # the dimension of the domain
            flags.append(torch.backends.cuda.matmul.allow_tf32)
        return linear(values, weight, *rest)

    monkeypatch.setattr("pfstore.fusion.proxyfusion.functional.linear", watched)
    random_model(32).to("cpu", "tf32").fuse(*feature_sets([3, 4], 32))
    assert flags
    assert not any(flags)


@pytest.mark.parametrize("device", [on_gpu])
def test_tensors_stay_where_they_are(device: str, sets: tuple[Floats, Offsets]) -> None:
    features, offsets = torch.from_numpy(sets[0]), sets[1]
    expected = random_model(32).templates(features, offsets)
    model = random_model(32).to(device)
    assert model.templates(features, offsets).device.type == "cpu"
    for given in (features.pin_memory(), features.to(device)):
        made = model.templates(given, offsets)
        assert made.device == given.device
        torch.testing.assert_close(made.cpu(), expected, rtol=0, atol=1e-5)


def test_another_precision_is_refused() -> None:
    wrong: Any = "float8"
    with pytest.raises(ModelError, match="unknown precision 'float8': use float32, tf32, bfloat16"):
        random_model(8).to("cpu", wrong)
