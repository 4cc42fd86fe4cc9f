"""Contours of a slice: drawn and filled again, voxels are the same, whatever rule the reader has."""

import numpy as np
import pytest
from matplotlib.path import Path

from duplus_nnunet.dicom.contours import fill_contours, trace_contours

RING = np.zeros((9, 9), bool)
RING[1:8, 1:8] = True
RING[3:6, 3:6] = False


def fill_by_union(contours, shape):
    """Fill each contour by itself and join them, by another program than ours."""
    centres = np.argwhere(np.ones(shape, bool))
    inside = np.zeros(len(centres), bool)
    for contour in contours:
        inside |= Path(np.vstack([contour, contour[:1]])).contains_points(centres)
    return inside.reshape(shape)


def measure_area(contour):
    rows, columns = contour.T
    return abs(np.dot(rows, np.roll(columns, 1)) - np.dot(columns, np.roll(rows, 1))) / 2


@pytest.mark.parametrize("seed", range(12))
def test_contours_of_any_mask_hold_its_voxels(seed):
    generator = np.random.default_rng(seed)
    mask = generator.random(generator.integers(1, 12, 2)) < generator.choice([0.3, 0.6, 0.9])
    contours = list(trace_contours(mask))
    np.testing.assert_array_equal(fill_contours(contours, mask.shape), mask)
    np.testing.assert_array_equal(fill_by_union(contours, mask.shape), mask)


def test_a_hole_is_part_of_the_outer_contour():
    (contour,) = trace_contours(RING)
    np.testing.assert_array_equal(fill_contours([contour], RING.shape), RING)
    # By marching squares, each corner outside lacks an eighth of a voxel, and each corner inside has one more.
    assert measure_area(contour) == pytest.approx(RING.sum(), rel=0.03)


def test_several_holes_are_joined_one_after_another():
    mask = np.ones((7, 11), bool)
    mask[2, [2, 4, 8]] = mask[4, [2, 3, 8]] = mask[2:5, 6] = False
    (contour,) = trace_contours(mask)
    np.testing.assert_array_equal(fill_by_union([contour], mask.shape), mask)


def test_an_island_in_a_hole_has_a_contour_of_its_own():
    mask = RING.copy()
    mask[4, 4] = True
    contours = list(trace_contours(mask))
    assert len(contours) == 2
    np.testing.assert_array_equal(fill_by_union(contours, mask.shape), mask)


def test_voxels_that_touch_at_a_corner_are_two_regions():
    assert len(list(trace_contours(np.eye(2, dtype=bool)))) == 2


def test_a_single_voxel_has_a_contour():
    (contour,) = trace_contours(np.ones((1, 1), bool))
    assert len(contour) == 4
    assert np.abs(contour).max() < 0.5


def test_corners_round_to_voxels_inside():
    """As readers need that round corners to whole voxels."""
    generator = np.random.default_rng(3)
    mask = generator.random((15, 15)) < 0.6
    for contour in trace_contours(mask):
        rows, columns = np.rint(contour).astype(int).T
        assert mask[rows, columns].all()


def test_straight_sides_have_no_corners_between_their_ends():
    (contour,) = trace_contours(np.ones((5, 6), bool))
    assert len(contour) == 8


def test_an_empty_mask_has_no_contour():
    assert not list(trace_contours(np.zeros((3, 3), bool)))


def test_contours_inside_one_another_cut_holes():
    outer, inner = np.array([(0, 0), (0, 6), (6, 6), (6, 0)]) - 0.5, np.array([(2, 2), (2, 4), (4, 4), (4, 2)]) - 0.5
    filled = fill_contours([outer, inner], (6, 6))
    assert filled.sum() == 36 - 4
    assert not filled[2:4, 2:4].any()


def test_contours_beyond_the_image_are_cut_off():
    assert fill_contours([np.array([(-5, -5), (-5, 20), (20, 20), (20, -5)])], (4, 5)).all()


def test_lines_and_points_have_no_inside():
    assert not fill_contours([np.array([(1, 1), (3, 3)]), np.array([(1.0, 1.0)])], (5, 5)).any()
