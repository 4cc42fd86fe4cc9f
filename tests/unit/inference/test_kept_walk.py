"""A walk over kept calls gives, at the voxels that are wanted, to the bit the logits of the network."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.inference.binding import bind
from duplus_nnunet.inference.kept_maps import KeptMaps
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.voxels import Voxels
from duplus_nnunet.inference.window_maps import WindowMaps
from duplus_nnunet.networks.head import apply_heads, count_weights

from .test_rivals import IMAGE, KINDS, make_image, make_model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_mask(kind: str) -> np.ndarray[Any, Any]:
    mask = np.zeros(IMAGE, bool)
    if kind == "one voxel":
        mask[9, 0, 11] = True
    elif kind == "a box":
        mask[2:5, 1:7, 3:9] = True
    elif kind == "all":
        mask[:] = True
    else:
        mask[np.random.default_rng(1).random(IMAGE) < 0.1] = True
    return mask


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "another resampling"])
def test_logits_are_those_of_the_network(kind: str) -> None:
    model, data = make_model(**KINDS[kind]), make_image()[0]
    prompts = bind(model, Selection((), "ct")).first.prompts
    whole_calls, parts_of_calls, nothing = KeptMaps(1 << 30), WindowMaps(1 << 30), KeptMaps(0, uses_file=False)
    with torch.inference_mode():
        whole = model.predictor.predict_logits(data, prompts)
        for maps in (whole_calls, parts_of_calls, nothing):
            model.predictor.predict_logits(data, prompts.take([0, 3]), maps)
            for where in ("one voxel", "a box", "scattered", "all"):
                mask = torch.from_numpy(draw_mask(where))
                found = model.predictor.predict_rivals(data, prompts, maps, mask)
                assert found.dtype == torch.float16
                assert torch.equal(found, whole[:, mask])
    assert whole_calls.calls_again == 0
    assert nothing.calls_again > 0


@pytest.mark.parametrize("kind", ["one fold", "two folds, mirrored", "adapter, two folds, mirrored"])
def test_an_image_smaller_than_a_window_is_padded(kind: str) -> None:
    model, data = make_model(**KINDS[kind]), torch.randn(1, 5, 9, 6, generator=torch.Generator().manual_seed(0))
    prompts = bind(model, Selection((), "ct")).first.prompts
    mask = torch.rand(data.shape[1:], generator=torch.Generator().manual_seed(1)) < 0.3
    maps = KeptMaps(1 << 30)
    with torch.inference_mode():
        whole = model.predictor.predict_logits(data, prompts)
        assert torch.equal(model.predictor.predict_kept(data, prompts, maps), whole)
        assert torch.equal(model.predictor.predict_kept(data, prompts, maps), whole)
        assert torch.equal(model.predictor.predict_rivals(data, prompts, maps, mask), whole[:, mask])


def test_what_is_kept_of_calls_is_measured_beforehand() -> None:
    for kind in KINDS.values():
        model = make_model(**kind)
        prompts, data, maps = bind(model, Selection((), "ct")).first.prompts, make_image()[0], KeptMaps(1 << 30)
        with torch.inference_mode():
            model.predictor.predict_kept(data, prompts, maps)
        assert model.predictor.measure_calls(data.shape[1:], prompts) >= maps.uncompressed > 0
        if "adapter" not in kind:  # which are mirrored along axes of their own
            assert model.predictor.measure_calls(data.shape[1:], prompts) == maps.uncompressed


@pytest.mark.parametrize("voxels", [64, 128, 192, 4096, 70016])
def test_a_head_gives_a_voxel_the_same_logit_among_any_others(voxels: int) -> None:
    """Columns are multiples of 64, as those that a walk asks for; targets one or many."""
    rng = torch.Generator().manual_seed(0)
    maps, weights = torch.randn(1, 8, 40, 50, 40, generator=rng), torch.randn(1, 60, count_weights(8), generator=rng)
    whole = apply_heads(maps, weights[:, :1])[0, 0].flatten()
    some = torch.randperm(whole.numel(), generator=rng)[:voxels]
    part = maps.flatten(2)[..., some][..., None, None]
    assert torch.equal(apply_heads(part, weights)[0, 0].flatten(), whole[some])


def test_voxels_of_a_window_are_found_in_c_order() -> None:
    mask = np.random.default_rng(0).random((6, 7, 8)) < 0.3
    voxels, places = Voxels.of(mask), np.argwhere(mask)
    assert voxels.count == len(places)
    selected = voxels.select((slice(1, 5), slice(0, 4), slice(3, 8)))
    assert selected is not None
    numbers, at = selected
    inside = ((places >= [1, 0, 3]) & (places < [5, 4, 8])).all(1)
    assert numbers.tolist() == np.flatnonzero(inside).tolist()
    assert (at.T + np.array([1, 0, 3])).tolist() == places[inside].tolist()
    assert voxels.select((slice(6, 9), slice(0, 7), slice(0, 8))) is None


def test_values_are_spread_over_the_box_of_their_voxels() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 2, 3] = mask[3, 2, 1] = True
    voxels = Voxels.of(mask)
    spread = voxels.spread(np.array([5, 7], np.float16))
    assert spread.shape == (3, 1, 3)
    assert spread[0, 0, 2] == 5
    assert spread[2, 0, 0] == 7
    assert spread.sum() == 12
    with pytest.raises(ValueError, match="no voxel"):
        Voxels.of(np.zeros((2, 2, 2), bool))
