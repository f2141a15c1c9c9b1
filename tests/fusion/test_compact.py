"""A compact template is the normalised sum of the blocks that the whole model gives."""

import numpy as np
import pytest
import torch

from pfstore.errors import CancelledSetsError, ContractError, InputError
from pfstore.features import Floats, Offsets
from pfstore.fusion import BASELINES, Compact, Fuser, compacted, load_model, random_model
from pfstore.fusion.compact import summed, whole
from pfstore.fusion.explaining import Strategy, explain, selection
from pfstore.fusion.fuser import Role
from tests.fusion.samples import Reference, feature_sets

D = 24
SIZES = [3, 1, 40, 2, 7]
SUBJECTS = np.array([0, 2, 5])
ROLES: tuple[Role, ...] = ("gallery", "probe")


@pytest.fixture
def full() -> Fuser:
    return random_model(D, experts=6, selected=4)


@pytest.fixture
def sets() -> tuple[Floats, Offsets]:
    return feature_sets(SIZES, D)


def unit(sums: Floats) -> Floats:
    wide = sums.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


@pytest.mark.parametrize("role", ROLES)
def test_templates_are_the_normalised_sums_of_the_blocks(full: Fuser, sets: tuple[Floats, Offsets], role: Role) -> None:
    compact = compacted(full)
    blocks = full.fuse(*sets, role)
    assert blocks.shape == (5, 4, D)
    np.testing.assert_allclose(compact.fuse(*sets, role), blocks.sum(axis=1)[:, None], atol=1e-6)
    made = compact.templates(*sets, role)
    assert made.shape == (5, D)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, unit(blocks.sum(axis=1)), atol=1e-6)
    # Media go through the whole model, all blocks of each, and are summed in the end.
    of_media = full.fuse_media(*sets, SUBJECTS, role).sum(axis=1)
    np.testing.assert_allclose(compact.fuse_media(*sets, SUBJECTS, role)[:, 0], of_media, atol=1e-6)
    np.testing.assert_allclose(compact.templates_media(*sets, SUBJECTS, role), unit(of_media), atol=1e-6)


def test_templates_of_a_published_checkpoint_are_those_of_the_reference() -> None:
    reference = Reference.read("reference_d32_e11_k4")
    compact = compacted(load_model(reference.checkpoint))
    for role in ROLES:
        expected = unit(reference.fused[role].sum(axis=1))
        np.testing.assert_allclose(compact.templates(reference.features, reference.offsets, role), expected, atol=1e-5)


def test_tensors_come_back_as_tensors(full: Fuser, sets: tuple[Floats, Offsets]) -> None:
    compact = compacted(full)
    features, offsets, subjects = torch.from_numpy(sets[0]), torch.from_numpy(sets[1]), torch.from_numpy(SUBJECTS)
    for made, expected in (
        (compact.fuse(features, offsets), compact.fuse(*sets)),
        (compact.templates(features, offsets), compact.templates(*sets)),
        (compact.templates_media(features, offsets, subjects), compact.templates_media(*sets, SUBJECTS)),
    ):
        assert isinstance(made, torch.Tensor)
        np.testing.assert_allclose(made.numpy(), expected, atol=1e-6)


def test_it_is_the_same_model(full: Fuser) -> None:
    compact = compacted(full)
    assert (compact.blocks, full.blocks) == (1, 4)
    for name in ("name", "kind", "dimension", "normalisation", "digest"):
        assert getattr(compact, name) == getattr(full, name)
    assert compact.describe() == full.describe() | {"compact": True}
    assert whole(compact) is whole(full) is full


@pytest.mark.parametrize("fuser", [*map(load_model, BASELINES), random_model(D, 3, 1), Compact(random_model(D, 3, 2))])
def test_one_block_is_refused(fuser: Fuser) -> None:
    with pytest.raises(ContractError, match=f"{fuser.name} has one block already"):
        compacted(fuser)


def test_wrong_features_are_refused_as_by_the_whole_model(full: Fuser) -> None:
    with pytest.raises(ContractError, match="the model takes 24"):
        compacted(full).templates(np.ones((2, D + 1), np.float32), np.array([0, 2]))
    with pytest.raises(InputError, match="feature 1 is zero"):
        compacted(full).templates(np.diag([1, 0, 1]).astype(np.float32) @ np.ones((3, D), np.float32), np.array([0, 3]))


def test_blocks_that_cancel_have_no_template() -> None:
    """Each block has a direction, and yet their sum has none."""
    random = np.random.default_rng(0)
    blocks = random.normal(size=(6, 4, D)).astype(np.float32)
    blocks[2, 2:] = -blocks[2, :2]
    left, right = blocks[5, :2].copy()
    blocks[5] = left, right, -left, -right * (1 + 1e-7)
    with pytest.raises(CancelledSetsError, match="the features of subject 2 cancel to zero") as raised:
        summed(blocks, "subject")
    assert (raised.value.of, raised.value.numbers) == ("subject", [2, 5])
    with pytest.raises(CancelledSetsError, match="the features of set 2 cancel to zero") as raised:
        summed(torch.from_numpy(blocks), "set")
    assert (raised.value.of, raised.value.numbers) == ("set", [2, 5])
    np.testing.assert_allclose(summed(blocks[:2], "set"), blocks[:2].sum(axis=1, keepdims=True), atol=1e-6)


def test_features_that_cancel_have_no_template(full: Fuser, sets: tuple[Floats, Offsets]) -> None:
    features = np.concatenate([sets[0], np.ones((1, D), np.float32), -np.ones((1, D), np.float32)])
    with pytest.raises(CancelledSetsError):
        load_model("average").templates(features, np.append(sets[1], len(features)))
    with pytest.raises(CancelledSetsError):
        Compact(load_model("average")).templates(features, np.append(sets[1], len(features)))


@pytest.mark.parametrize("strategy", ["media", "set"])
def test_the_explained_weights_make_the_sum(full: Fuser, sets: tuple[Floats, Offsets], strategy: Strategy) -> None:
    features, offsets = sets
    compact = compacted(full)
    told, of_all = (explain(one, features, offsets, strategy=strategy) for one in (compact, full))
    assert told.weights.shape == (1, len(features))
    if strategy == "media":
        expected = compact.fuse_media(features, offsets, np.array([0, len(SIZES)]))[0]
    else:
        expected = compact.fuse(features, np.array([0, len(features)]), "gallery")[0]
    np.testing.assert_allclose(told.template, expected, atol=1e-6)
    np.testing.assert_allclose(told.weights @ unit(features), expected, atol=1e-6)
    np.testing.assert_allclose(told.media_weights, of_all.media_weights.mean(axis=0, keepdims=True), atol=1e-9)
    assert told.shares.sum() == pytest.approx(1)
    assert told.template_cosines.shape == (1, len(features))
    # The experts are chosen as ever, but no block is one's own.
    assert told.selection is not None
    assert of_all.selection is not None
    assert told.selection.experts.tolist() == of_all.selection.experts.tolist() == of_all.experts
    assert told.experts is None
    probe, probe_of_all = selection(compact, features), selection(full, features)
    assert probe is not None
    assert probe_of_all is not None
    assert probe.experts.tolist() == probe_of_all.experts.tolist()
