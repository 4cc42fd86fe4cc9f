"""The 48 orientations of an image, compared with nibabel."""

from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform

from duplus_nnunet.data.orientations import (
    NO_REORIENTATION,
    ORIENTATIONS,
    Reorientation,
    find_across,
    find_orientation,
    find_turn,
    note_turn,
    read_orientation,
    read_turn,
)
from duplus_nnunet.errors import DataError

VALUES = np.arange(3 * 4 * 5).reshape(3, 4, 5)


def turn_with_nibabel(values: Any, stored: str, wanted: str) -> Any:
    """Reorient an array (z, y, x) of a file."""
    turn = ornt_transform(axcodes2ornt(stored), axcodes2ornt(wanted))
    return nibabel.orientations.apply_orientation(values.transpose(), turn).transpose()


def test_there_are_48() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("stored", ORIENTATIONS)
def test_an_array_is_turned_as_by_nibabel_and_back(stored: str) -> None:
    turn = find_turn(stored, "LPS")
    turned = turn.apply(VALUES)
    np.testing.assert_array_equal(turned, turn_with_nibabel(VALUES, stored, "LPS"))
    np.testing.assert_array_equal(turn.invert().apply(turned), VALUES)
    assert turn.invert() == find_turn("LPS", stored)
    assert turn.sort(VALUES.shape) == turned.shape


@pytest.mark.parametrize("stored", ORIENTATIONS)
def test_a_box_is_turned_with_its_array(stored: str) -> None:
    box, turn = (slice(1, 2), slice(0, 3), slice(2, 5)), find_turn(stored, "SRA")
    turned = turn.apply(VALUES)[turn.apply_to_box(box, VALUES.shape)]
    np.testing.assert_array_equal(turned, turn.apply(VALUES[box]))


def test_channels_are_left_where_they_are() -> None:
    turn = find_turn("RPS", "SLP")
    np.testing.assert_array_equal(turn.apply(np.stack([VALUES, -VALUES]))[1], turn.apply(-VALUES))


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_orientation_is_that_of_the_direction(name: str) -> None:
    affine = np.eye(4)
    affine[:, :3] = 0
    for axis, (world, sign) in enumerate(axcodes2ornt(name)):
        affine[int(world), axis] = sign
    assert "".join(nibabel.orientations.aff2axcodes(affine)) == name
    found = read_orientation({"nibabel_stuff": {"original_affine": affine}})
    assert found is not None
    assert (found.name, found.across, found.least) == (name, 1, 1)
    assert name[::-1][find_across(name)] in "LR"
    direction = np.diag([-1, -1, 1]) @ affine[:3, :3]
    assert read_orientation({"sitk_stuff": {"direction": direction.ravel().tolist()}}) == found


def rotate(degrees: float, around: int) -> Any:
    first, second = (axis for axis in range(3) if axis != around)
    turn = np.eye(3)
    turn[first, first] = turn[second, second] = np.cos(np.deg2rad(degrees))
    turn[first, second] = -np.sin(np.deg2rad(degrees))
    turn[second, first] = np.sin(np.deg2rad(degrees))
    return turn.ravel()


@pytest.mark.parametrize(
    ("degrees", "around", "name", "sided", "oblique"),
    [(20, 2, "LPS", True, False), (40, 2, "LPS", False, True), (44, 0, "LPS", True, True), (80, 2, "PRS", True, False)],
)
def test_an_oblique_image_has_the_nearest_orientation(
    degrees: float, around: int, name: str, sided: bool, oblique: bool
) -> None:
    found = find_orientation(rotate(degrees, around))
    assert (found.name, found.has_sides, found.is_oblique) == (name, sided, oblique)


def test_an_image_without_direction_has_no_orientation() -> None:
    assert read_orientation({"spacing": (1, 1, 1)}) is None
    assert read_orientation({"sitk_stuff": {"direction": (1, 0, 0, 1)}}) is None


def test_a_turn_is_noted_and_read() -> None:
    turn = Reorientation((1, 2, 0), (True, False, True))
    assert read_turn({"duplus": {"context": "ct", **note_turn(turn)}}) == turn
    assert note_turn(NO_REORIENTATION) == {}
    assert read_turn({}) == NO_REORIENTATION


def test_letters_of_no_orientation_are_refused() -> None:
    with pytest.raises(DataError, match="LPL"):
        find_turn("LPL", "LPS")
