"""Where voxels lie in the patient: in comes an image's grid, out come millimetres and the patient's own directions."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.outputs.answer import Box, Geometry

Affine = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Turn:
    """How to turn an array so that its axes run from foot to head, from front to back and from right to left.

    Attributes:
        order: Axis of the array (z, y, x) that becomes the first, second and third one.
        flips: Which of the three run the other way in the array.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn an array; nothing is copied."""
        return values.transpose(self.order)[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def find_box(self, box: Box, shape: tuple[int, int, int]) -> Box:
        """Find where a box of an array of a shape (z, y, x) lies in the turned array."""
        z, y, x = (
            slice(shape[axis] - box[axis].stop, shape[axis] - box[axis].start) if flip else box[axis]
            for axis, flip in zip(self.order, self.flips, strict=True)
        )
        return z, y, x


UNTURNED = Turn((0, 1, 2), (False, False, False))


def find_affine(geometry: Geometry) -> Affine | None:
    """Find where voxels lie, from what nnU-Net's reader said of the image.

    Returns:
        From indices (z, y, x) to mm to the patient's right, front and head (NIfTI's RAS), shape (4, 4); None if the
        reader says nothing of it.
    """
    nibabel, sitk = geometry.properties.get("nibabel_stuff", {}), geometry.properties.get("sitk_stuff", {})
    # Readers that reorient say both where the file's voxels lie and where the array's do.
    affine = nibabel.get("reoriented_affine", nibabel.get("original_affine"))
    if affine is None and len(sitk.get("direction", ())) == 9:
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(sitk["direction"], (3, 3)) * np.asarray(sitk["spacing"])
        affine[:3, 3] = sitk["origin"]
        affine = _LPS_TO_RAS @ affine
    if affine is None or not abs(np.linalg.det(np.asarray(affine, dtype=float)[:3, :3])) > 0:
        return None
    return np.asarray(affine, dtype=float)[:, [2, 1, 0, 3]]


def find_turn(geometry: Geometry) -> Turn | None:
    """Find how to turn arrays of a grid; an oblique one by the axes that are nearest. None if nothing is known."""
    from nibabel.orientations import io_orientation

    affine = find_affine(geometry)
    if affine is None:
        return None
    towards, signs = io_orientation(affine).T
    s, a, r = (int(np.flatnonzero(towards == world)[0]) for world in (2, 1, 0))
    return Turn((s, a, r), (signs[s] < 0, signs[a] > 0, signs[r] > 0))
