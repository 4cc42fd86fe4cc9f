"""Finds how the axes of a layer lie in the array of an image file, and turns masks from one to the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError

Matrix = NDArray[np.float64]
Volume = NDArray[Any]

# Readers differ in the last bits of scaled intensities.
_TOLERANCE = 1e-4
# Voxels along each axis that are compared before all are.
_SAMPLES = 24


@dataclass(frozen=True)
class Turn:
    """A permutation of axes, after which some are reversed.

    Attributes:
        axes: Which axis of the file's array (z, y, x) becomes each axis of the layer.
        reversed: Which axes of the layer then run the other way.

    Example:
        >>> turn = Turn((2, 1, 0), (False, True, False))
        >>> turn.apply(np.zeros((3, 4, 5))).shape
        (5, 4, 3)
        >>> array = np.arange(60).reshape(3, 4, 5)
        >>> bool((turn.undo(turn.apply(array)) == array).all())
        True
    """

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    def apply(self, array: Volume) -> Volume:
        """Turn an array (z, y, x) of the file to the axes of the layer; the result is a view."""
        return self._flip(array.transpose(self.axes))

    def undo(self, array: Volume) -> Volume:
        """Turn an array of the layer to the axes (z, y, x) of the file; the result is a view."""
        return self._flip(array).transpose([int(axis) for axis in np.argsort(self.axes)])

    def _flip(self, array: Volume) -> Volume:
        return array[tuple(slice(None, None, -1 if turned else 1) for turned in self.reversed)]


def find_turn_by_affine(layer: Matrix, file: Matrix, shape: Sequence[int]) -> Turn:
    """Find the turn between two grids from their affines.

    Args:
        layer: (4, 4) from the layer's indices to world coordinates in mm.
        file: (4, 4) from indices (z, y, x) of the file's array to the same coordinates.
        shape: Of the file's array, (D, H, W).

    Raises:
        DataError: The voxels of both do not lie on each other.
    """
    to_file = np.linalg.solve(file, layer)
    axes = np.abs(to_file[:3, :3]).argmax(axis=0)
    if sorted(axes) == [0, 1, 2]:
        d, h, w = (int(axis) for axis in axes)
        i, j, k = (bool(to_file[axis, column] < 0) for column, axis in enumerate(axes))
        expected = np.eye(4)[:, [d, h, w, 3]]
        for column, (axis, turned) in enumerate(zip((d, h, w), (i, j, k), strict=True)):
            if turned:
                expected[axis, column], expected[axis, 3] = -1, shape[axis] - 1
        if np.allclose(to_file, expected, atol=0.01):
            return Turn((d, h, w), (i, j, k))
    raise DataError(
        "The layer's voxels do not lie on those of the image that was made of it: its transform is sheared or "
        "degenerate. Give the layer a rotation, a scale and a translation only."
    )


def find_turns_by_values(layer: Volume, file: Volume, where: str) -> list[Turn]:
    """Find the turns between a layer and the array of its file from their values: one, unless the image is symmetric.

    Args:
        layer: Values of the layer.
        file: Values of the file, (z, y, x).
        where: Name of the file, for messages.

    Raises:
        DataError: The values are not those of the file.
    """
    found = [turn for turn in _list_turns() if _is_equal(layer, turn.apply(file))]
    if not found:
        raise DataError(
            f"The layer's values, of shape {tuple(layer.shape)}, are not those of {where}, of shape "
            f"{tuple(file.shape)} in the order (z, y, x): the layer was changed, or its reader changes intensities. "
            "Open the file with the button of this window."
        )
    return found


def require_one_turn(turns: Sequence[Turn], where: str) -> Turn:
    """Return the only turn.

    Raises:
        DataError: There are several, or none.
    """
    if not turns:
        raise DataError(
            f"The channels beside {where} lie in other orientations than it. Open each file with the button."
        )
    if len(turns) > 1:
        raise DataError(
            f"The values of {where} are the same in {len(turns)} orientations, so that left and right cannot be told "
            "apart in the layer. Open the file with the button of this window."
        )
    return turns[0]


def _list_turns() -> Iterator[Turn]:
    for axes, turned in product(permutations(range(3)), product((False, True), repeat=3)):
        (d, h, w), (i, j, k) = axes, turned
        yield Turn((d, h, w), (i, j, k))


def _is_equal(first: Volume, second: Volume) -> bool:
    """Compare some voxels, and then all if those are equal."""
    if first.shape != second.shape:
        return False
    some = tuple(slice(None, None, max(1, length // _SAMPLES)) for length in first.shape)
    return _is_close(first[some], second[some]) and _is_close(first, second)


def _is_close(first: Volume, second: Volume) -> bool:
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    # Values may be small in their unit, such as diffusion in mm2/s.
    largest = float(np.abs(b).max(initial=0.0, where=np.isfinite(b)))
    return bool(np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * min(1.0, largest), equal_nan=True))
