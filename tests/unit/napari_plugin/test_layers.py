"""Layers become images whose place in the patient is known, or are refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from duplus_nnunet.errors import DataError
from duplus_nnunet.napari_plugin.layers import (
    ORIENTATIONS,
    LayerImage,
    Place,
    find_slice,
    read_file,
    read_layer,
    require_one_grid,
    to_display_affine,
    write_image,
)

DICOM, _, NIBABEL, _ = ORIENTATIONS


def make_layer(values: Any, affine: Any = None, **more: Any) -> SimpleNamespace:
    """Make what the plug-in knows of a layer of napari."""
    values = np.asarray(values)
    matrix = np.eye(4) if affine is None else np.asarray(affine, float)
    place = lambda position: matrix[:3, :3] @ np.asarray(position) + matrix[:3, 3]  # noqa: E731
    known = {"rgb": False, "multiscale": False, "metadata": {}, "source": SimpleNamespace(path=None), "units": None}
    return SimpleNamespace(name="scan", data=values, ndim=values.ndim, data_to_world=place, **(known | more))


def make_image(affine: Any = None) -> LayerImage:
    return read_layer(make_layer(np.arange(24.0).reshape(2, 3, 4), affine))


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 4, 4)])
def test_other_numbers_of_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=f"{len(shape)} axes"):
        read_layer(make_layer(np.zeros(shape)))


def test_colours_and_complex_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="colour"):
        read_layer(make_layer(np.zeros((4, 4, 3)), rgb=True))
    with pytest.raises(DataError, match="complex"):
        read_layer(make_layer(np.zeros((4, 4, 3), complex)))


def test_the_finest_scale_is_taken() -> None:
    fine, coarse = np.ones((4, 4, 4)), np.ones((2, 2, 2))
    layer = make_layer(fine, multiscale=True)
    layer.data = [fine, coarse]
    assert read_layer(layer).values.shape == (4, 4, 4)


def test_units_become_millimetres() -> None:
    layer = make_layer(
        np.zeros((2, 3, 4)), np.diag([2000, 500, 1, 1]), units=("micrometer", "micrometer", "millimeter")
    )
    np.testing.assert_allclose(read_layer(layer).spacing, (2, 0.5, 1))
    with pytest.raises(DataError, match="second"):
        read_layer(make_layer(np.zeros((2, 3, 4)), units=("second", "millimeter", "millimeter")))


def test_without_orientation_a_layer_is_refused() -> None:
    with pytest.raises(DataError, match="scan"):
        Place().find_ras(make_image(np.diag([2, 1, 1, 1])))
    with pytest.raises(DataError, match="nibabel"):
        Place("sideways").find_ras(make_image(np.diag([2, 1, 1, 1])))


def test_without_spacing_a_layer_is_refused_until_it_is_said() -> None:
    with pytest.raises(DataError, match="voxel size"):
        Place(DICOM).find_ras(make_image())
    with pytest.raises(DataError, match="above 0"):
        Place(DICOM, (1, -1, 1)).find_ras(make_image())
    to_ras = Place(DICOM, (3, 2, 1)).find_ras(make_image())
    # Slices run up, rows to the back, columns to the left.
    np.testing.assert_array_equal(to_ras[:3, :3], [[0, 0, -1], [0, -2, 0], [3, 0, 0]])


def test_the_scale_of_a_layer_is_not_overruled() -> None:
    to_ras = Place(NIBABEL, (9, 9, 9)).find_ras(make_image(np.diag([2, 1, 1, 1])))
    np.testing.assert_array_equal(to_ras, np.diag([2, 1, 1, 1]))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint16", "float32", "float64", "bool", "float16"])
def test_a_written_image_has_the_values_and_the_affine_of_the_layer(dtype: str, tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    affine = np.array([[0, 0, -2, 5], [0, 3, 0, 6], [1, 0, 0, 7], [0, 0, 0, 1.0]])
    write_image(LayerImage("scan", values, np.eye(4)), affine, tmp_path / "a.nii.gz")
    image = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), values)  # type: ignore[attr-defined]
    np.testing.assert_allclose(image.affine, affine)  # type: ignore[attr-defined]
    read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a.nii.gz")))
    np.testing.assert_array_equal(read.transpose(2, 1, 0), values)


@pytest.mark.parametrize("affine", [np.eye(4) + np.eye(4, k=1) * 0.5, np.diag([1, 1, 0, 1])])
def test_sheared_layers_are_refused(affine: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="scan"):
        write_image(make_image(), affine, tmp_path / "a.nii.gz")


def test_channels_on_other_grids_are_refused() -> None:
    require_one_grid([make_image(), make_image()])
    with pytest.raises(DataError, match="grid"):
        require_one_grid([make_image(), make_image(np.diag([2, 1, 1, 1]))])


def test_a_file_is_shown_with_the_patients_left_to_the_right(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    image.SetSpacing((0.5, 1.5, 4.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))  # columns run to the patient's right
    SimpleITK.WriteImage(image, str(tmp_path / "scan_0000.nii.gz"))
    values, keywords = read_file(tmp_path / "scan_0000.nii.gz")
    assert keywords["name"] == "scan"
    np.testing.assert_array_equal(values, np.arange(24).reshape(2, 3, 4))
    # Up, to the back, to the left.
    expected = [[4, 0, 0, 30], [0, 1.5, 0, 20], [0, 0, -0.5, 10], [0, 0, 0, 1]]
    np.testing.assert_allclose(keywords["affine"], expected)
    own = read_layer(make_layer(values, keywords["affine"], metadata=keywords["metadata"]))
    assert own.file == tmp_path / "scan_0000.nii.gz"
    np.testing.assert_allclose(Place().find_ras(own)[:3, 3], (-10, -20, 30))


def test_an_oblique_image_is_shown_upright() -> None:
    angle = np.deg2rad(20)
    oblique = np.eye(4)
    oblique[:3, :3] = np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]]) * 2
    shown = to_display_affine(oblique)  # indices run to the right, the front and up
    np.testing.assert_allclose(shown[:3, :3], [[0, 0, 2], [0, -2, 0], [-2, 0, 0]], atol=1e-9)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_text("no image")
    with pytest.raises(DataError, match=r"a\.nii\.gz"):
        read_file(tmp_path / "a.nii.gz")
    flat = SimpleITK.GetImageFromArray(np.zeros((4, 4), np.uint8))
    SimpleITK.WriteImage(flat, str(tmp_path / "flat.png"))
    with pytest.raises(DataError, match="2 axes"):
        read_file(tmp_path / "flat.png")


def test_the_largest_slice_is_found_unless_the_mask_is_seen() -> None:
    mask = np.zeros((6, 5, 4), bool)
    mask[1, 0, 0] = mask[4, :2, :2] = True
    affine = np.diag([2.0, 1, 1, 1])
    affine[0, 3] = 10
    assert find_slice(mask, affine, 0, 14.0) == 18
    assert find_slice(mask, affine, 0, 12.5) is None
    assert find_slice(mask, affine, 1, 4.0) == 0
    assert find_slice(np.zeros_like(mask), affine, 0, 14.0) is None


def test_the_slice_to_show_of_a_turned_layer_is_where_most_of_the_mask_is() -> None:
    mask = np.zeros((6, 6, 6), bool)
    mask[1, 1, 1] = mask[4, 2:5, 2:5] = True
    turned = np.eye(4)
    turned[:2, :2] = [[0.9, 0.05], [-0.05, 0.9]]
    for affine in (np.eye(4), turned):
        found = find_slice(mask, affine, 0, -50.0)
        heights = np.argwhere(mask) @ affine[0, :3]
        assert found is not None
        assert (np.abs(heights - found) <= 0.5).sum() >= 6


@pytest.mark.parametrize("offset", [10, 11, 10.5])
@pytest.mark.parametrize("level", range(6))
def test_the_slice_to_show_is_one_that_holds_the_mask(level: int, offset: float) -> None:
    mask = np.zeros((6, 3, 3), bool)
    mask[level, 1, 1] = True
    affine = np.diag([2.0, 1, 1, 1])
    affine[0, 3] = offset
    assert find_slice(mask, affine, 0, now=1000.0) == offset + 2 * level
