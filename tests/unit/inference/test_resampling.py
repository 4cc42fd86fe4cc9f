"""Logits from the network's grid to the image's: the numbers are those of nnU-Net 2.8 (scikit-image and SciPy)."""

import re
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from scipy.ndimage import gaussian_filter

from duplus_nnunet.errors import DataError, HostError, ModelError
from duplus_nnunet.inference import resampling
from duplus_nnunet.inference.resampling import NOWHERE, Resampler, exceeds, make_resampler

LINEAR = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
EVERYTHING = float("-inf")


def make_configuration(
    spacing: Any = (1, 1, 1), function: str = "resample_data_or_seg_to_shape", **changes: Any
) -> ConfigurationManager:
    return ConfigurationManager(
        {
            "architecture": {},
            "spacing": list(spacing),
            "resampling_fn_probabilities": function,
            "resampling_fn_probabilities_kwargs": {**LINEAR, **changes},
        }
    )


def make_plans(forward: Any = (0, 1, 2)) -> Any:
    return SimpleNamespace(transpose_forward=list(forward), transpose_backward=np.argsort(forward).tolist())


def make_properties(target: Any, spacing: Any = (1, 1, 1), start: Any = (0, 0, 0), margin: int = 0) -> dict[str, Any]:
    return {
        "spacing": spacing,
        "shape_after_cropping_and_before_resampling": tuple(target),
        "bbox_used_for_cropping": [[first, first + size] for first, size in zip(start, target, strict=True)],
        "shape_before_cropping": tuple(first + size + margin for first, size in zip(start, target, strict=True)),
    }


def make(source: Any, target: Any, current: Any = (1, 1, 1), wanted: Any = (1, 1, 1), **changes: Any) -> Resampler:
    configuration = make_configuration(current, **changes)
    return make_resampler(configuration, make_plans(), make_properties(target, wanted), source)


def draw_logits(shape: Any, seed: int = 0, shift: float = 0.0) -> np.ndarray[Any, Any]:
    """Draw smooth logits with values on both sides of 0."""
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    logits: np.ndarray[Any, Any] = (20 * smooth + shift).astype(np.float16)
    return logits


def spread(box: Any, values: np.ndarray[Any, Any], shape: Any) -> np.ndarray[Any, Any]:
    whole = np.full(shape, -np.inf, values.dtype)
    whole[box] = values
    return whole


SIZES = [
    pytest.param((10, 12, 14), (10, 12, 14), id="same"),
    pytest.param((10, 12, 14), (17, 20, 15), id="up"),
    pytest.param((14, 17, 20), (10, 9, 11), id="down"),
    pytest.param((12, 12, 12), (6, 24, 12), id="mixed"),
    pytest.param((1, 9, 8), (1, 13, 5), id="one slice"),
    pytest.param((2, 7, 9), (13, 1, 4), id="hardly any"),
]
SPACINGS = [
    pytest.param((1, 1, 1), (1.2, 0.9, 1), id="isotropic"),
    pytest.param((5, 1, 1), (4, 1, 1), id="thick along the first axis"),
    pytest.param((1, 6, 1), (1, 6, 1), id="thick along the second axis"),
    pytest.param((1, 1.2, 1), (1, 1, 4), id="thick along the third axis, image only"),
    pytest.param((1, 4, 4), (1, 4, 4), id="two thick axes"),
]


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize(("current", "wanted"), SPACINGS)
def test_numbers_are_nnunets(source: Any, target: Any, current: Any, wanted: Any) -> None:
    logits = draw_logits(source)
    stock = make_configuration(current).resampling_fn_probabilities(
        torch.from_numpy(logits)[None], target, current, wanted
    )
    box, found = make(source, target, current, wanted).resample(logits, EVERYTHING)
    assert box == tuple(slice(0, size) for size in target)
    np.testing.assert_allclose(found.astype(np.float32), stock[0].astype(np.float32), rtol=1.1e-3, atol=2e-6)
    assert (found == stock[0]).mean() > 0.95  # where nnU-Net rounds half a digit, the last one may differ


@pytest.mark.parametrize("ratio", range(1, 9))
def test_of_two_equally_near_slices_nnunets_is_taken(ratio: int) -> None:
    logits = np.arange(24, dtype=np.float16).reshape(24, 1, 1)
    target = (24 // ratio, 1, 2)
    stock = make_configuration((9, 1, 1)).resampling_fn_probabilities(logits[None], target, (9, 1, 1), (9, 1, 1))
    _, found = make((24, 1, 1), target, (9, 1, 1), (9, 1, 1)).resample(logits, EVERYTHING)
    np.testing.assert_array_equal(found, stock[0])


sizes = st.tuples(*[st.integers(1, 14)] * 3)


@given(source=sizes, target=sizes, thick=st.sampled_from([(1, 1, 1), (9, 1, 1), (1, 1, 9)]), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_box_is_to_the_bit_what_the_whole_has_there(source: Any, target: Any, thick: Any, data: Any) -> None:
    resampler = make(source, target, thick, thick)
    logits = draw_logits(source)
    starts = [data.draw(st.integers(0, size - 1)) for size in target]
    stops = [data.draw(st.integers(start + 1, size)) for start, size in zip(starts, target, strict=True)]
    box: Any = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    everywhere: Any = tuple(slice(0, size) for size in target)
    whole = resampler.interpolate(logits, everywhere)
    np.testing.assert_array_equal(resampler.interpolate(logits, box).view(np.int32), whole[box].view(np.int32))


@given(source=sizes, target=sizes, floor=st.sampled_from([0.0, -0.0, -4.6, -1.0, 2.5]), shift=st.integers(-12, 4))
@settings(max_examples=80, deadline=None)
def test_nothing_outside_the_box_is_above_the_floor(source: Any, target: Any, floor: float, shift: int) -> None:
    resampler = make(source, target)
    logits = draw_logits(source, shift=shift)
    _, everything = resampler.resample(logits, EVERYTHING)
    box, values = resampler.resample(logits, floor)
    whole = spread(box, values, target)
    above = everything > np.float16(floor)
    np.testing.assert_array_equal(whole > np.float16(floor), above)
    np.testing.assert_array_equal(values, everything[box])


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("order", [1, 3])
def test_inside_a_box_a_target_is_resampled_as_in_the_whole(source: Any, target: Any, order: int) -> None:
    """Of the network's grid no more is known than the box is made of; what is left out does not exceed 0."""
    resampler, logits = make(source, target, order=order), draw_logits(source, shift=-2)
    box: Any = tuple(slice(size // 3, size // 3 + max(1, size // 2)) for size in target)
    part: Any = tuple(slice(0, size) for size in source)
    if resampler.axes is not None:
        part = tuple(axis.cut(own)[0] for axis, own in zip(resampler.axes, box, strict=True))
    whole = spread(*resampler.resample(logits, EVERYTHING), target)
    (found,) = resampler.resample_inside(np.ascontiguousarray(logits[part]), part, [box])
    left = whole.copy()
    if found is not None:
        np.testing.assert_array_equal(found[1], whole[found[0]])
        left[found[0]] = -1
    assert not (left[box] > 0).any()


def test_a_target_that_cannot_exceed_0_is_not_resampled() -> None:
    resampler, everywhere = make((4, 4, 4), (6, 6, 6)), (slice(0, 4),) * 3
    found = resampler.resample_inside(np.full((4, 4, 4), -1, np.float16), everywhere, [(slice(0, 6),) * 3] * 2)
    assert list(found) == [None, None]


def test_box_is_the_smallest_that_will_do() -> None:
    logits = np.full((8, 8, 8), -1, np.float16)
    logits[2, 3, 4] = 4
    box, values = make((8, 8, 8), (16, 16, 16)).resample(logits)
    assert box == (slice(4, 6), slice(6, 8), slice(8, 10))
    assert values.shape == (2, 2, 2)
    assert values.base is None


def test_target_that_is_nowhere_has_no_box() -> None:
    box, values = make((8, 8, 8), (16, 16, 16)).resample(np.full((8, 8, 8), -1, np.float16))
    assert box == NOWHERE
    assert values.size == 0


def test_target_between_the_voxels_that_are_kept_has_no_box() -> None:
    logits = np.full((16, 16, 16), -1, np.float16)
    logits[0] = 1
    box, _ = make((16, 16, 16), (4, 4, 4)).resample(logits)
    assert box == NOWHERE


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, resampler = draw_logits((10, 9, 8)), make((10, 9, 8), (23, 7, 11))
    before = resampler.resample(logits)
    monkeypatch.setattr(resampling, "SLAB", 200)
    after = resampler.resample(logits)
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])


def test_tensors_and_strided_views_are_taken_as_they_are() -> None:
    logits, resampler = draw_logits((6, 7, 8)), make((6, 7, 8), (9, 9, 9))
    wide = torch.zeros(6, 7, 12, dtype=torch.float16)
    wide[..., 2:10] = torch.from_numpy(logits)
    _, expected = resampler.resample(logits)
    np.testing.assert_array_equal(resampler.resample(wide[..., 2:10])[1], expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"order": 3},
        {"order_z": 1},
        {"function": "resample_torch_fornnunet"},
        {"force_separate_z": True, "order_z": 3},
    ],
)
def test_other_ways_to_resample_are_left_to_nnunet(changes: dict[str, Any]) -> None:
    thick, logits = (4, 1, 1), draw_logits((6, 8, 8))
    configuration = make_configuration(thick, **changes)
    if "function" in changes:
        configuration.configuration["resampling_fn_probabilities_kwargs"] = {"is_seg": False, "force_separate_z": None}
    resampler = make_resampler(configuration, make_plans(), make_properties((9, 5, 12), thick), logits.shape)
    stock = configuration.resampling_fn_probabilities(torch.from_numpy(logits)[None], (9, 5, 12), thick, thick)
    box, values = resampler.resample(logits)
    assert resampler.axes is None
    assert box != NOWHERE
    stock = np.asarray(stock)[0]
    np.testing.assert_array_equal(spread(box, values, stock.shape) > 0, stock > 0)
    np.testing.assert_array_equal(values, stock[box].astype(np.float16))
    with pytest.raises(HostError, match="resample"):
        resampler.interpolate(logits, box)


@pytest.mark.parametrize("order", [1, 3])
def test_resamplers_can_be_sent_to_other_processes(order: int) -> None:
    resampler, logits = make((5, 6, 7), (8, 8, 8), order=order), draw_logits((5, 6, 7))
    sent = ForkingPickler.loads(ForkingPickler.dumps(resampler))
    np.testing.assert_array_equal(sent.resample(logits)[1], resampler.resample(logits)[1])


def test_settings_of_a_function_of_the_same_kind_are_not_taken_for_nnunets() -> None:
    assert make((4, 4, 4), (8, 8, 8), function="my_resampling").axes is None


def test_order_across_slices_does_not_matter_where_none_are_thick() -> None:
    assert make((4, 4, 4), (8, 8, 8), order_z=3).axes is not None


@pytest.mark.parametrize("order", [1, 3])
def test_answers_do_not_change_when_the_network_goes_on(order: int) -> None:
    sums = torch.ones(4, 4, 4, dtype=torch.float16)
    _, values = make((4, 4, 4), (4, 4, 4), order=order).resample(sums)
    sums.zero_()
    assert (values == 1).all()


def test_a_function_that_makes_another_shape_is_refused() -> None:
    configuration = make_configuration(function="no_resampling_hack")
    configuration.configuration["resampling_fn_probabilities_kwargs"] = {}
    resampler = make_resampler(configuration, make_plans(), make_properties((8, 8, 8)), (4, 4, 4))
    with pytest.raises(HostError, match=r"\(4, 4, 4\).*\(8, 8, 8\)"):
        resampler.resample(np.ones((4, 4, 4), np.float16))


def test_2d_configuration_leaves_slices_alone() -> None:
    properties = make_properties((5, 9, 9), (4, 1, 1))
    resampler = make_resampler(make_configuration((2, 2)), make_plans(), properties, (5, 5, 5))
    logits = draw_logits((5, 5, 5))
    _, whole = resampler.resample(logits, EVERYTHING)
    _, slice_alone = make((1, 5, 5), (1, 9, 9)).resample(logits[2:3], EVERYTHING)
    np.testing.assert_array_equal(whole[2], slice_alone[0])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan, 1e6])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits = np.zeros((3, 3, 3), np.float32)
    logits[1, 1, 1] = value
    with pytest.raises(ModelError, match="finite"):
        make((3, 3, 3), (4, 4, 4)).resample(logits)


def test_logits_of_another_grid_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(3, 3, 4\).*\(3, 3, 3\)"):
        make((3, 3, 3), (4, 4, 4)).resample(np.zeros((3, 3, 4), np.float16))


@pytest.mark.parametrize("box", [[[0, 5], [0, 4], [0, 4]], [[1, 5], [0, 4], [0, 4]], [[-1, 3], [0, 4], [0, 4]]])
def test_crop_that_does_not_fit_is_refused(box: Any) -> None:
    properties = {**make_properties((4, 4, 4)), "bbox_used_for_cropping": box}
    with pytest.raises(DataError, match=re.escape(str(tuple(box[0])))):
        make_resampler(make_configuration(), make_plans(), properties, (4, 4, 4))


@given(st.lists(st.floats(width=16, allow_nan=False), min_size=1), st.floats(width=16, allow_nan=False))
def test_bits_say_what_numbers_say(values: list[float], floor: float) -> None:
    halves = np.array(values, np.float16)
    np.testing.assert_array_equal(exceeds(halves, floor), halves > np.float16(floor))


@pytest.mark.parametrize("forward", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
def test_boxes_and_arrays_come_back_to_the_images_order(forward: Any) -> None:
    image = np.arange(6 * 7 * 8).reshape(6, 7, 8)
    properties = make_properties((2, 3, 4), start=(1, 2, 1), margin=1)
    turned = image.transpose(forward)
    properties["shape_before_cropping"] = turned.shape
    placement = make_resampler(make_configuration(), make_plans(forward), properties, (2, 3, 4)).placement
    box = (slice(0, 1), slice(1, 3), slice(2, 4))
    crop = turned[1:3, 2:5, 1:5]
    np.testing.assert_array_equal(image[placement.move(box)], placement.turn(crop[box]))
    assert placement.move(NOWHERE) == NOWHERE
