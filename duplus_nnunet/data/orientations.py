"""Names how an image lies in the patient, and turns arrays from one of the 48 orientations to another.

An orientation is three letters, such as LPS: the directions in which the file's first, second and third axis run (left
or right, posterior or anterior, superior or inferior). Arrays have the axes of their file in reverse, (z, y, x).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.plans_section import PLANS_KEY

Scalar = TypeVar("Scalar", bound=np.generic)
Item = TypeVar("Item")
Box = tuple[slice, slice, slice]

_POSITIVE, _NEGATIVE = "LPS", "RAI"
ORIENTATIONS = tuple("".join(axes) for pick in product("LR", "PA", "SI") for axes in permutations(pick))
# Cosine of about 37 degrees: a more oblique axis has no certain direction.
LEAST_COSINE = 0.8
_TURN = "turn"


@dataclass(frozen=True)
class Reorientation:
    """Axis permutation and flips of an array.

    Attributes:
        order: Axis of the array (z, y, x) that becomes the first, second and third axis.
        flips: Whether each of the three is reversed.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Reorient the last three axes of an array; the result is a view."""
        before = values.ndim - 3
        turned = values.transpose([*range(before), *(before + axis for axis in self.order)])
        z, y, x = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return turned[..., z, y, x]

    def apply_to_box(self, box: Box, shape: Sequence[int]) -> Box:
        """Return the position in the reoriented array of a box in an array of a shape (z, y, x)."""
        z, y, x = (
            slice(shape[axis] - box[axis].stop, shape[axis] - box[axis].start) if flip else box[axis]
            for axis, flip in zip(self.order, self.flips, strict=True)
        )
        return z, y, x

    def sort(self, of_axes: Sequence[Item]) -> tuple[Item, Item, Item]:
        """Return what belongs to the axes (z, y, x), such as spacing or shape, in the order of the reoriented array."""
        first, second, third = (of_axes[axis] for axis in self.order)
        return first, second, third

    def invert(self) -> "Reorientation":
        """Return the reorientation that undoes this one."""
        z, y, x = (self.order.index(axis) for axis in range(3))
        return Reorientation((z, y, x), (self.flips[z], self.flips[y], self.flips[x]))


NO_REORIENTATION = Reorientation((0, 1, 2), (False, False, False))


@dataclass(frozen=True)
class Orientation:
    """How an image lies in the patient.

    Attributes:
        name: Three letters of the nearest axes, such as LPS.
        across: Cosine between the nearest axis and the patient's left-right axis, 0 to 1.
        least: The smallest such cosine of the three axes.
    """

    name: str
    across: float
    least: float

    @property
    def has_sides(self) -> bool:
        """Whether left and right are certain."""
        return self.across >= LEAST_COSINE

    @property
    def is_oblique(self) -> bool:
        """Whether the direction of some axis is uncertain."""
        return self.least < LEAST_COSINE


def find_orientation(direction: Sequence[float]) -> Orientation:
    """Find the nearest orientation of an image.

    Args:
        direction: Nine direction cosines as in SimpleITK, row by row.
    """
    cosines = np.asarray(direction, dtype=float).reshape(3, 3)
    rows = max(permutations(range(3)), key=lambda order: sum(abs(cosines[row, axis]) for axis, row in enumerate(order)))
    own = [float(cosines[row, axis]) for axis, row in enumerate(rows)]
    name = "".join((_POSITIVE if cosine >= 0 else _NEGATIVE)[row] for row, cosine in zip(rows, own, strict=True))
    return Orientation(name, abs(own[rows.index(0)]), min(map(abs, own)))


def read_orientation(properties: Mapping[str, Any]) -> Orientation | None:
    """Find the orientation of an array from the properties of nnU-Net's reader; None if they name no direction."""
    sitk, nibabel = properties.get("sitk_stuff", {}), properties.get("nibabel_stuff", {})
    direction = sitk.get("direction")
    if direction is not None and len(direction) == 9:
        return find_orientation(direction)
    affine = nibabel.get("reoriented_affine", nibabel.get("original_affine"))
    if affine is None:
        return None
    axes = np.asarray(affine, dtype=float)[:3, :3]
    widths = np.linalg.norm(axes, axis=0)
    return None if not (widths > 0).all() else find_orientation((np.diag([-1, -1, 1]) @ (axes / widths)).ravel())


def find_turn(stored: str, wanted: str) -> Reorientation:
    """Return the reorientation of arrays (z, y, x) from one orientation to another.

    Raises:
        DataError: One of them is not an orientation.
    """
    for name in (stored, wanted):
        if name not in ORIENTATIONS:
            raise DataError(f"{name!r} is not an orientation; expected three letters such as LPS, RAS or PIR.")
    before, after = stored[::-1], wanted[::-1]
    world = [_find_world_axis(letter) for letter in before]
    z, y, x = (world.index(_find_world_axis(letter)) for letter in after)
    return Reorientation((z, y, x), (before[z] != after[0], before[y] != after[1], before[x] != after[2]))


def _find_world_axis(letter: str) -> int:
    return (_POSITIVE if letter in _POSITIVE else _NEGATIVE).index(letter)


def find_across(name: str) -> int:
    """Return the array axis (z, y, x) that runs from left to right, or from right to left."""
    return next(axis for axis, letter in enumerate(name[::-1]) if letter in "LR")


def note_turn(turn: Reorientation) -> dict[str, Any]:
    """Return what preprocessing notes of a turn among the properties of a case."""
    return {} if turn == NO_REORIENTATION else {_TURN: (turn.order, turn.flips)}


def read_turn(properties: Mapping[str, Any]) -> Reorientation:
    """Return how preprocessing turned an image before nnU-Net's transposition, by the properties of the case."""
    noted = properties.get(PLANS_KEY, {}).get(_TURN)
    if noted is None:
        return NO_REORIENTATION
    (z, y, x), (first, second, third) = noted
    return Reorientation((int(z), int(y), int(x)), (bool(first), bool(second), bool(third)))
