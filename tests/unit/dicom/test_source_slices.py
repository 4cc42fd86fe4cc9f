"""Slices of a series are ordered by position, and masks of any grid are laid onto them."""

import numpy as np
import pytest

from duplus_nnunet.dicom.source_slices import lay_on_slices, read_source_slices
from duplus_nnunet.errors import DataError

from .series_phantom import AXIAL, CORONAL, OBLIQUE, write_series

SHAPE = (4, 5, 6)
VOLUME = np.arange(120).reshape(SHAPE)
LPS_TO_RAS = np.diag([-1, -1, 1, 1])


@pytest.mark.parametrize("direction", [AXIAL, CORONAL, OBLIQUE])
@pytest.mark.parametrize("step", [2.5, -2.5])
def test_slices_are_ordered_along_the_normal(tmp_path, direction, step):
    files = write_series(tmp_path, VOLUME, direction=direction, spacing=(step, 0.8, 0.6))
    source = read_source_slices(files)
    assert source.shape == SHAPE
    np.testing.assert_allclose(np.diff(source.heights), 2.5, atol=1e-4)
    numbers = [int(one.header.InstanceNumber) for one in source.slices]
    assert numbers == ([1, 2, 3, 4] if step > 0 else [4, 3, 2, 1])


def test_the_affine_leads_to_the_positions_of_the_headers(tmp_path):
    source = read_source_slices(write_series(tmp_path, VOLUME, direction=OBLIQUE, spacing=(2, 0.8, 0.6)))
    last = source.slices[-1].position + 3 * 0.8 * source.directions[1] + 2 * 0.6 * source.directions[0]
    np.testing.assert_allclose(LPS_TO_RAS @ source.affine @ [3, 3, 2, 1], [*last, 1], atol=1e-4)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flip", [(), (0,), (1, 2)])
def test_a_mask_with_other_axes_keeps_each_voxel(tmp_path, axes, flip):
    source = read_source_slices(write_series(tmp_path, VOLUME, direction=OBLIQUE))
    turned, affine = np.flip(VOLUME, flip), source.affine.copy()
    for axis in flip:
        affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
        affine[:3, axis] *= -1
    laid, same = lay_on_slices(turned.transpose(axes), affine[:, [*axes, 3]], source)
    assert same
    np.testing.assert_array_equal(laid, VOLUME)


def test_a_mask_of_another_grid_is_taken_at_the_nearest_voxel(tmp_path):
    source = read_source_slices(write_series(tmp_path, VOLUME))
    fine = source.affine @ np.diag([0.5, 0.5, 0.5, 1])
    laid, same = lay_on_slices(np.kron(VOLUME, np.ones((2, 2, 2), int)), fine, source)
    assert not same
    np.testing.assert_array_equal(laid, VOLUME)


def test_voxels_outside_of_a_mask_are_background(tmp_path):
    source = read_source_slices(write_series(tmp_path, VOLUME + 1))
    laid, same = lay_on_slices(np.ones((2, 5, 6), int), source.affine, source)
    assert not same
    assert laid[:2].all()
    assert not laid[2:].any()


def test_a_grid_that_is_shifted_by_a_voxel_is_not_the_same(tmp_path):
    source = read_source_slices(write_series(tmp_path, VOLUME))
    affine = source.affine.copy()
    affine[:3, 3] += affine[:3, 0]
    laid, same = lay_on_slices(VOLUME, affine, source)
    assert not same
    np.testing.assert_array_equal(laid[1:], VOLUME[:-1])


def test_uneven_slices_keep_their_own_positions(tmp_path):
    files = write_series(tmp_path / "a", VOLUME, SeriesInstanceUID="1.2.3", FrameOfReferenceUID="1.2.4")
    far = write_series(
        tmp_path / "b", VOLUME[:1], origin=(-10, -20, 60), SeriesInstanceUID="1.2.3", FrameOfReferenceUID="1.2.4"
    )
    source = read_source_slices([*files, *far])
    np.testing.assert_allclose(source.locate(4)[:, 2], [-10, -20, 60, 1])


def refuse(files):
    with pytest.raises(DataError) as caught:
        read_source_slices(files)
    return str(caught.value)


def test_two_series_are_refused(tmp_path):
    files = write_series(tmp_path / "a", VOLUME) + write_series(tmp_path / "b", VOLUME)
    assert "SeriesInstanceUID" in refuse(files)


def test_two_directions_are_refused(tmp_path):
    uids = {"SeriesInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    files = write_series(tmp_path / "a", VOLUME, **uids)
    assert "directions" in refuse(files + write_series(tmp_path / "b", VOLUME, direction=CORONAL, **uids))


def test_two_slices_at_one_position_are_refused(tmp_path):
    files = write_series(tmp_path, VOLUME)
    assert "one position" in refuse([*files, files[0]])


def test_a_file_that_is_not_dicom_is_named(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    assert "notes.txt" in refuse([file])


def test_a_file_without_position_is_refused(tmp_path):
    assert "FrameOfReferenceUID" in refuse(write_series(tmp_path, VOLUME, FrameOfReferenceUID=None))


def test_no_files_are_refused():
    assert "without files" in refuse([])
