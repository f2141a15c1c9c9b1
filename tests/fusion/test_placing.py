"""A fuser is put on the device that is asked for."""

from __future__ import annotations

import pytest
import torch

from pfstore.errors import ConfigError
from pfstore.fusion import compacted, load_model, random_model
from pfstore.fusion.devices import device_of, placed
from tests.fusion.samples import feature_sets


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpu", "there is no device 'gpu': use auto, cpu or cuda"),
        ("meta", "pfstore knows no device 'meta'"),
        ("cuda:99", "there is no device 'cuda:99' here: use cpu"),
    ],
)
def test_a_device_that_is_not_here_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        placed(load_model("average"), name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_compact_model_goes_too() -> None:
    model = random_model(16, experts=3, selected=2)
    sets = feature_sets([3, 1], 16)
    expected = compacted(model).templates(*sets)
    made = placed(compacted(model), "auto").templates(*sets)
    assert next(model.network.parameters()).device.type == "cuda"
    assert abs(made - expected).max() < 1e-5
