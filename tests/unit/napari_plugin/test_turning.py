"""Masks are turned to the axes of the layer, and back."""

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.napari_plugin.turning import Turn, find_turn_by_affine, find_turns_by_values, require_one_turn

SHAPE = (4, 5, 6)
TURNS = [Turn(axes, flips) for axes, flips in product(permutations(range(3)), product((False, True), repeat=3))]  # type: ignore[arg-type]


def make_array(shape: tuple[int, ...] = SHAPE) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_undoing_a_turn_gives_the_array_back(turn: Turn) -> None:
    array = make_array()
    np.testing.assert_array_equal(turn.undo(turn.apply(array)), array)


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_turn_is_found_by_values_in_a_cube(turn: Turn) -> None:
    array = make_array((5, 5, 5))
    assert find_turns_by_values(turn.apply(array), array, "a.nii.gz") == [turn]


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_turn_is_found_by_affines(turn: Turn) -> None:
    angle = 0.3
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    file = np.eye(4)
    file[:3, :3], file[:3, 3] = rotation * [3.0, 1.5, 0.7], [-20, 5, 300]
    # Voxels of the layer, and of the file that show the same.
    indices = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    places = np.stack([turn.apply(axis) for axis in indices])
    origin, steps = places[:, 0, 0, 0], [places[:, 1, 0, 0], places[:, 0, 1, 0], places[:, 0, 0, 1]]
    to_file = np.eye(4)
    to_file[:3] = np.column_stack([*(step - origin for step in steps), origin])
    assert find_turn_by_affine(file @ to_file, file, SHAPE) == turn


@pytest.mark.parametrize("layer", [np.diag([1, 1, 2, 1]), np.eye(4) + np.eye(4, k=1) * 0.5])
def test_other_grids_are_refused(layer: Any) -> None:
    with pytest.raises(DataError):
        find_turn_by_affine(layer, np.eye(4), SHAPE)


def test_a_shifted_grid_is_refused() -> None:
    layer = np.eye(4)
    layer[0, 3] = 1
    with pytest.raises(DataError):
        find_turn_by_affine(layer, np.eye(4), SHAPE)


def test_a_changed_layer_is_refused() -> None:
    array = make_array()
    changed = array.copy()
    changed[2, 2, 2] += 1
    with pytest.raises(DataError, match=r"a\.nii\.gz"):
        find_turns_by_values(changed, array, "a.nii.gz")
    with pytest.raises(DataError):
        find_turns_by_values(array[1:], array, "a.nii.gz")


def test_a_symmetric_image_has_several_turns() -> None:
    array = make_array()
    symmetric = array + array[:, :, ::-1]
    turns = find_turns_by_values(symmetric, symmetric, "a.nii.gz")
    assert turns == [Turn((0, 1, 2), (False, False, False)), Turn((0, 1, 2), (False, False, True))]
    with pytest.raises(DataError, match="2 orientations"):
        require_one_turn(turns, "a.nii.gz")
    assert require_one_turn(turns[:1], "a.nii.gz") == turns[0]


def test_small_values_are_compared_in_their_own_unit() -> None:
    diffusion = np.random.default_rng(0).uniform(0.5e-3, 3e-3, (4, 4, 4))
    assert len(find_turns_by_values(diffusion, diffusion, "a.nii.gz")) == 1
    with pytest.raises(DataError):
        find_turns_by_values(diffusion + 5e-5, diffusion, "a.nii.gz")
