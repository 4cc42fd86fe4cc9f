"""What the browser gets of an image and its masks lies where it lies in the patient."""

import gzip
from dataclasses import replace
from typing import Any

import nibabel
import numpy as np
import pytest

from duplus_nnunet.notebook.display import DisplayGrid, choose_factors, reduce_mask
from duplus_nnunet.outputs.answer import Geometry, TargetAnswer
from duplus_nnunet.outputs.world import find_affine

SHAPE, SPACING = (7, 10, 12), (3.0, 1.5, 2.0)


def make_geometry() -> Geometry:
    """Make an oblique grid whose axes do not point where those of the patient do."""
    direction = np.linalg.qr(np.array([[0.1, 1.0, 0.2], [-1.0, 0.1, 0.1], [0.1, 0.2, -1.0]]))[0]
    sitk = {"spacing": SPACING[::-1], "origin": (11.0, -7.0, 5.0), "direction": tuple(direction.ravel())}
    return Geometry(SHAPE, SPACING, {"sitk_stuff": sitk})


def make_target(mask: Any, first: tuple[int, int, int]) -> TargetAnswer:
    z, y, x = (slice(start, start + size) for start, size in zip(first, mask.shape, strict=True))
    return TargetAnswer("liver", 1, "a liver", (z, y, x), mask, np.zeros(mask.shape, np.float16))


def read(content: bytes) -> Any:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content))


def to_world(geometry: Geometry, index: Any) -> Any:
    affine = find_affine(geometry)
    assert affine is not None
    return (affine @ [*index, 1])[:3]


def test_a_small_image_is_shown_as_it_is() -> None:
    geometry, values = make_geometry(), np.random.default_rng(0).integers(-1024, 3000, SHAPE).astype(np.float32)
    grid = DisplayGrid.of(geometry)
    shown = read(grid.encode_image(values))
    assert not grid.is_reduced
    assert shown.get_data_dtype() == np.int16
    np.testing.assert_array_equal(shown.get_fdata().transpose(2, 1, 0), values)
    np.testing.assert_allclose((shown.affine @ [3, 2, 1, 1])[:3], to_world(geometry, (1, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(shown.header.get_zooms(), SPACING[::-1], rtol=1e-5)


def test_each_mask_is_sent_in_its_box_and_lies_in_place() -> None:
    geometry, mask = make_geometry(), np.ones((2, 3, 4), bool)
    shown = read(DisplayGrid.of(geometry).encode_mask(make_target(mask, (4, 5, 6))))
    assert shown.shape == (4, 3, 2)
    np.testing.assert_allclose(shown.affine[:3, 3], to_world(geometry, (4, 5, 6)), atol=1e-4)


def test_blocks_of_voxels_are_shown_as_one_at_their_centre() -> None:
    geometry, values = make_geometry(), np.random.default_rng(0).normal(size=SHAPE)
    grid = replace(DisplayGrid.of(geometry, max_voxels=210), factors=(1, 3, 2))
    assert grid.is_reduced
    assert grid.shown_shape == (7, 4, 6)
    shown = read(grid.encode_image(values))
    found = shown.get_fdata().transpose(2, 1, 0)
    # To the step of 16 bits between the lowest and the highest value.
    step = np.ptp(values) / 65534
    assert found[6, 1, 5] == pytest.approx(values[6, 3:6, 10:12].mean(), abs=step)
    # The last row is a block of its own.
    assert found[0, 3, 0] == pytest.approx(values[0, 9, 0:2].mean(), abs=step)
    np.testing.assert_allclose((shown.affine @ [5, 1, 6, 1])[:3], to_world(geometry, (6, 4, 10.5)), atol=1e-4)


def test_no_small_lesion_is_lost_by_showing_fewer_voxels() -> None:
    geometry = make_geometry()
    mask = np.zeros((3, 4, 5), bool)
    mask[0, 0, 0] = mask[2, 3, 4] = True
    target = make_target(mask, (1, 3, 5))
    first, reduced = reduce_mask(target, (2, 2, 2))
    assert first == (0, 1, 2)
    whole = np.zeros((4, 5, 6), bool)
    whole[tuple(slice(start, start + size) for start, size in zip(first, reduced.shape, strict=True))] = reduced
    assert np.argwhere(whole).tolist() == [[0, 1, 2], [1, 3, 4]]
    grid = DisplayGrid(geometry.shape, (2, 2, 2), np.eye(4), True)
    shown = read(grid.encode_mask(target))
    # World coordinates are (z, y, x) here; the first shown voxel covers the indices 0 and 1, 2 and 3, 4 and 5.
    np.testing.assert_allclose((shown.affine @ [0, 0, 0, 1])[:3], [0.5, 2.5, 4.5])


@pytest.mark.parametrize(
    ("shape", "spacing", "limit", "factors"),
    [
        ((300, 512, 512), (1.5, 0.8, 0.8), 10_000_000, (2, 2, 2)),
        ((40, 512, 512), (6.0, 0.5, 0.5), 1_000_000, (1, 4, 4)),
        ((1, 3, 3), (1.0, 1.0, 1.0), 1, (1, 3, 3)),
        ((3, 3, 3), (1.0, 1.0, 1.0), 27, (1, 1, 1)),
    ],
)
def test_the_finest_axis_is_reduced_first(shape: Any, spacing: Any, limit: int, factors: Any) -> None:
    assert choose_factors(shape, spacing, limit) == factors


@pytest.mark.parametrize(
    "values",
    [
        np.full(SHAPE, 7.5),
        np.linspace(-1e30, 1e30, np.prod(SHAPE)).reshape(SHAPE),
        np.linspace(0, 1, np.prod(SHAPE)).reshape(SHAPE),
        np.full(SHAPE, 40000, np.int32),
    ],
    ids=["constant", "vast", "fine", "beyond 16 bits"],
)
def test_values_come_back_within_a_step_of_16_bits(values: Any) -> None:
    found = read(DisplayGrid.of(make_geometry()).encode_image(values)).get_fdata().transpose(2, 1, 0)
    np.testing.assert_allclose(found, values, rtol=1e-6, atol=np.ptp(values) / 65534)


def test_values_that_are_no_numbers_are_shown_as_the_lowest() -> None:
    values = np.ones(SHAPE)
    values[0, 0, 0], values[1, 1, 1], values[2, 2, 2] = np.nan, np.inf, -5
    found = read(DisplayGrid.of(make_geometry()).encode_image(values)).get_fdata().transpose(2, 1, 0)
    assert found[0, 0, 0] == found[1, 1, 1] == found[2, 2, 2] == -5
    assert found[3, 3, 3] == 1


def test_an_image_without_world_coordinates_keeps_its_spacing() -> None:
    grid = DisplayGrid.of(Geometry(SHAPE, SPACING, {}))
    assert not grid.is_oriented
    shown = read(grid.encode_image(np.zeros(SHAPE)))
    np.testing.assert_allclose(np.abs(np.diag(shown.affine)[:3]), SPACING[::-1])


def test_what_is_sent_says_nothing_of_the_patient() -> None:
    header = read(DisplayGrid.of(make_geometry()).encode_image(np.zeros(SHAPE))).header
    assert not any(header[name].item() for name in ("descrip", "aux_file", "intent_name", "db_name"))


def test_an_image_without_world_coordinates_lies_as_in_other_pictures() -> None:
    affine = DisplayGrid.of(Geometry(SHAPE, SPACING, {})).affine
    left, back, up = affine[:3, 2], affine[:3, 1], affine[:3, 0]
    assert (np.sign(left[0]), np.sign(back[1]), np.sign(up[2])) == (-1, -1, 1)
