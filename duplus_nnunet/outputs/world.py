"""Computes affine and orientation of an image from the properties of nnU-Net's readers."""

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.data.orientations import NO_REORIENTATION, Reorientation
from duplus_nnunet.outputs.answer import Geometry

Affine = NDArray[np.float64]

__all__ = ["NO_REORIENTATION", "Affine", "Reorientation", "find_affine", "find_reorientation"]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def find_affine(geometry: Geometry) -> Affine | None:
    """Compute the affine of an image from the properties of nnU-Net's reader.

    Returns:
        Matrix (4, 4) from indices (z, y, x) to world coordinates in mm: right, anterior, superior (NIfTI's RAS); None
        if the reader does not provide it.
    """
    nibabel, sitk = geometry.properties.get("nibabel_stuff", {}), geometry.properties.get("sitk_stuff", {})
    # Reorienting readers provide the affine of the file and that of the array.
    affine = nibabel.get("reoriented_affine", nibabel.get("original_affine"))
    if affine is None and len(sitk.get("direction", ())) == 9:
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(sitk["direction"], (3, 3)) * np.asarray(sitk["spacing"])
        affine[:3, 3] = sitk["origin"]
        affine = _LPS_TO_RAS @ affine
    if affine is None or not abs(np.linalg.det(np.asarray(affine, dtype=float)[:3, :3])) > 0:
        return None
    return np.asarray(affine, dtype=float)[:, [2, 1, 0, 3]]


def find_reorientation(geometry: Geometry) -> Reorientation | None:
    """Find the reorientation of a grid, to the nearest axes if it is oblique; None if the orientation is unknown."""
    from nibabel.orientations import io_orientation

    affine = find_affine(geometry)
    if affine is None:
        return None
    world_axes, signs = io_orientation(affine).T
    s, a, r = (int(np.flatnonzero(world_axes == axis)[0]) for axis in (2, 1, 0))
    return Reorientation((s, a, r), (signs[s] < 0, signs[a] > 0, signs[r] > 0))
