import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from duplus_nnunet.model_report.packing import (
    Resolution,
    choose_levels,
    encode_runs,
    measure_areas,
    pack_viewer,
    reduce_mask,
    to_grey,
)
from duplus_nnunet.model_report.viewer_picture import list_chosen

from .reports import SHAPE, make_box, make_case, make_viewer


def decode_runs(text, shape):
    """Read run lengths as the script of the page does, one byte after the other."""
    lengths, length, shift = [], 0, 0
    for byte in base64.b64decode(text):
        length += (byte & 127) << shift
        shift += 7
        if byte < 128:
            lengths.append(length)
            length = shift = 0
    values = np.concatenate(
        [np.full(run, number % 2 == 1) for number, run in enumerate(lengths)] or [np.zeros(0, bool)]
    )
    whole = np.zeros(int(np.prod(shape)), np.bool_)
    whole[: len(values)] = values
    return whole.reshape(shape)


def read_picture(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("L"))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=8))
def test_runs_are_read_back(runs):
    mask = np.concatenate([np.full(length, value) for value, length in runs] or [np.zeros(3, bool)])
    assert np.array_equal(decode_runs(encode_runs(mask), mask.shape), mask)


def test_a_run_longer_than_two_million_is_read_back():
    mask = np.zeros(2_200_000, np.bool_)
    mask[-1] = True
    assert np.flatnonzero(decode_runs(encode_runs(mask), mask.shape)).tolist() == [2_199_999]


def test_packed_masks_are_those_of_the_case():
    case = pack_viewer(make_viewer())["cases"][0]
    assert (case["levels"], case["depth"]) == (list(range(8)), 8)
    assert np.array_equal(decode_runs(case["masks"][1]["truth"], SHAPE), make_box(4, 5, 7))


def test_the_proportion_of_a_slice_is_that_in_millimetres():
    assert pack_viewer(make_viewer())["cases"][0]["proportion"] == pytest.approx(10 * 2.0 / (12 * 1.0))


def test_slices_stand_row_by_row_in_one_picture():
    image = np.zeros(SHAPE, np.float32)
    image[4] = 100.0
    case = pack_viewer(make_viewer(replace(make_case(), image=image)))["cases"][0]
    sheet = read_picture(case["picture"])
    means = [
        sheet[row * 10 : row * 10 + 10, column * 12 : column * 12 + 12].mean()
        for row in range(3)
        for column in range(3)
    ]
    assert case["columns"] == 3
    assert np.argmax(means) == 4
    assert means[4] > 250


def test_a_coarser_resolution_has_fewer_pixels_and_slices():
    case = pack_viewer(make_viewer(), Resolution(6, 4))["cases"][0]
    assert (case["height"], case["width"], len(case["levels"])) == (5, 6, 4)


def test_levels_of_a_case_that_holds_some_slices_are_those_of_the_whole_image():
    held = replace(make_case(), levels=list(range(10, 90, 10)), depth=100)
    case = pack_viewer(make_viewer(held))["cases"][0]
    assert (case["levels"], case["depth"]) == (list(range(10, 90, 10)), 100)


def test_slices_far_from_all_masks_are_left_out():
    area = np.zeros(100, int)
    area[40:43] = 5
    assert choose_levels([area], 100, 40) == list(range(38, 45))


def test_a_mask_between_the_slices_that_are_shown_gets_one():
    wide, thin = np.ones(400, int), np.zeros(400, int)
    thin[203] = 1
    levels = choose_levels([wide, thin], 400, 10)
    assert len(levels) == 10
    assert 203 in levels


def test_without_masks_slices_are_spread_over_the_image():
    assert choose_levels([], 100, 4) == [0, 33, 66, 99]


def test_a_small_mask_does_not_vanish_where_pixels_are_averaged():
    mask = np.zeros((1, 100, 100), np.bool_)
    mask[0, 37, 61] = True
    reduced = reduce_mask(mask, (10, 10))
    assert np.argwhere(reduced).tolist() == [[0, 3, 6]]


def test_a_large_mask_keeps_its_share_of_the_area():
    mask = np.zeros((1, 100, 100), np.bool_)
    mask[0, :40] = True
    assert reduce_mask(mask, (10, 10)).mean() == pytest.approx(0.4)


def test_intensities_outside_the_window_and_nan_are_clipped():
    image = np.full(SHAPE, np.nan, np.float32)
    image[0, 0, :4] = [-50.0, 0.0, 50.0, 500.0]
    grey = to_grey(replace(make_case(), image=image), 0)
    assert grey[0, :5].tolist() == [0, 0, 128, 255, 0]


def test_four_hundred_targets_differ_in_colour_or_dashes_as_far_as_styles_reach():
    case = make_case(targets=tuple(f"target {number}" for number in range(400)))
    packed = pack_viewer(make_viewer(case))
    styles = {(target["colour"], tuple(target["dashes"])) for target in packed["targets"]}
    assert (len(packed["targets"]), len(styles)) == (400, 84)
    assert len(json.dumps(packed)) < 100_000


def test_a_target_that_was_not_predicted_has_no_mask():
    case = make_case()
    masks = [replace(case.masks[0], prediction=None), case.masks[1]]
    packed = pack_viewer(make_viewer(replace(case, masks=masks)))["cases"][0]["masks"]
    assert [mask["prediction"] is None for mask in packed] == [True, False]


def test_areas_count_the_voxels_of_each_slice():
    assert measure_areas(make_box(4, 5, 7)).tolist() == [0, 0, 0, 0, 9, 9, 9, 0]


def test_of_many_targets_the_first_ones_of_each_image_are_chosen():
    names = [f"target {number}" for number in range(10)]
    cases = [replace(make_case(), masks=[replace(make_case().masks[0], target=name) for name in part]) for part in
             (names[:7], names[7:])]  # fmt: skip
    assert list_chosen(replace(make_viewer(), cases=cases)) == [*names[:4], *names[7:]]
    assert list_chosen(replace(make_viewer(), cases=[replace(cases[0], masks=cases[0].masks[:6])])) == names[:6]
