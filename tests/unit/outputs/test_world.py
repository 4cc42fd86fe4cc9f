"""Affine and orientation of images, compared with SimpleITK and nibabel."""

from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

from duplus_nnunet.outputs.answer import Geometry
from duplus_nnunet.outputs.world import NO_REORIENTATION, find_affine, find_reorientation

from .outputs_answers import PROPERTIES, SHAPE, SPACING, save_oriented

READERS = (SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient)
ORIENTATIONS = ["".join(axes) for choice in product("RL", "AP", "SI") for axes in permutations(choice)]
# Different along every axis, so that no permutation goes unnoticed.
RAS_SHAPE, RAS_SPACING = (5, 6, 7), (1.0, 1.5, 2.0)


def read(reader: Any, file: Path) -> tuple[Any, Geometry]:
    image, properties = reader().read_images([str(file)])
    return image[0], Geometry(image.shape[1:], tuple(properties["spacing"]), properties)


def make_geometry(**properties: Any) -> Geometry:
    return Geometry(SHAPE, SPACING, properties)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LPI", "SRA", "PIR"])
def test_marked_voxel_lies_where_nibabel_says(orientation: str, reader: Any, tmp_path: Path) -> None:
    values = np.zeros(RAS_SHAPE, np.float32)
    values[1, 4, 2] = 1
    file = save_oriented(tmp_path / "a.nii.gz", values, orientation, RAS_SPACING)
    image, geometry = read(reader, file)
    affine = find_affine(geometry)
    assert affine is not None
    stored = nibabel.load(file)
    expected = stored.affine @ [*np.argwhere(np.asarray(stored.dataobj))[0], 1]
    assert affine @ [*np.argwhere(image)[0], 1] == pytest.approx(expected, abs=1e-4)


def test_oblique_voxel_lies_where_simpleitk_says() -> None:
    image = SimpleITK.Image(SHAPE[::-1], SimpleITK.sitkUInt8)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((-11.0, 3.5, 40.25))
    turn = SimpleITK.Euler3DTransform()
    turn.SetRotation(0.2, -0.3, 0.4)
    image.SetDirection(turn.GetMatrix())
    stuff = {"spacing": SPACING[::-1], "origin": image.GetOrigin(), "direction": image.GetDirection()}
    affine = find_affine(make_geometry(sitk_stuff=stuff))
    assert affine is not None
    x, y, z = image.TransformIndexToPhysicalPoint((4, 3, 2))
    assert affine @ [2, 3, 4, 1] == pytest.approx([-x, -y, z, 1])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_gives_the_same_reoriented_image(orientation: str, tmp_path: Path) -> None:
    values = np.arange(np.prod(RAS_SHAPE), dtype=np.float32).reshape(RAS_SHAPE)
    image, geometry = read(NibabelIO, save_oriented(tmp_path / "a.nii.gz", values, orientation, RAS_SPACING))
    turn = find_reorientation(geometry)
    assert turn is not None
    turned = turn.apply(image)
    # From foot to head, from front to back, from right to left.
    np.testing.assert_array_equal(turned, values[::-1, ::-1].transpose(2, 1, 0))
    assert np.shares_memory(turned, image)
    assert tuple(geometry.spacing[axis] for axis in turn.order) == (2.0, 1.5, 1.0)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_box_turns_with_the_image(orientation: str, tmp_path: Path) -> None:
    values = np.arange(np.prod(RAS_SHAPE), dtype=np.float32).reshape(RAS_SHAPE)
    image, geometry = read(NibabelIO, save_oriented(tmp_path / "a.nii.gz", values, orientation, RAS_SPACING))
    box = (slice(1, 3), slice(0, 4), slice(2, 5))
    turn = find_reorientation(geometry)
    assert turn is not None
    np.testing.assert_array_equal(turn.apply(image)[turn.apply_to_box(box, geometry.shape)], turn.apply(image[box]))


@pytest.mark.parametrize("properties", [{}, {"nibabel_stuff": {"original_affine": np.zeros((4, 4))}}])
def test_nothing_is_known_of_a_file_that_says_nothing(properties: dict[str, Any]) -> None:
    assert find_affine(make_geometry(**properties)) is None
    assert find_reorientation(make_geometry(**properties)) is None


def test_image_of_two_dimensions_has_no_place() -> None:
    stuff = {"spacing": (1.0, 1.0), "origin": (0.0, 0.0), "direction": (1.0, 0.0, 0.0, 1.0)}
    assert find_affine(make_geometry(sitk_stuff=stuff)) is None


def test_image_that_lies_as_usual_is_turned_by_nothing_but_its_own_direction() -> None:
    assert find_reorientation(make_geometry(**PROPERTIES)) == NO_REORIENTATION
