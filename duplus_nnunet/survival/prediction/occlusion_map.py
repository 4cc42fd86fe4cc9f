"""A map of a preprocessed image as NIfTI on the grid of the image's own file.

In comes an array of nnU-Net's preprocessed grid, out comes an image with the file's own voxels and place; every voxel
takes the value of the nearest one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from duplus_nnunet.inference.answering import read_geometry
from duplus_nnunet.outputs.world import find_affine

Values = NDArray[np.float32]
_ZYX = [2, 1, 0, 3]


def bring_back(values: Values, properties: Mapping[str, Any], transpose_backward: Sequence[int]) -> Values:
    """Bring an array (D, H, W) from the preprocessed grid to the reader's (z, y, x); NaN where nnU-Net cropped."""
    shape = properties["shape_after_cropping_and_before_resampling"]
    places = [
        np.minimum(((np.arange(length) + 0.5) * now / length).astype(int), now - 1)
        for length, now in zip(shape, values.shape, strict=True)
    ]
    whole = np.full(tuple(properties["shape_before_cropping"]), np.nan, np.float32)
    whole[tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])] = values[np.ix_(*places)]
    return whole.transpose(tuple(transpose_backward))


def make_nifti(values: Values, plans: PlansManager, properties: dict[str, Any], file: Path) -> Any:
    """Make a NIfTI image of nibabel, on the grid of an image's file.

    Args:
        values: Of the preprocessed grid, (D, H, W).
        plans: nnU-Net's plans of the model.
        properties: nnU-Net's, of the case.
        file: Of the image; if it is no NIfTI file, the grid is what nnU-Net's reader said of it.
    """
    import nibabel

    found = bring_back(values, properties, plans.transpose_backward).transpose(2, 1, 0)
    geometry = read_geometry(plans, properties)
    affine = find_affine(geometry)
    if affine is None:
        return nibabel.Nifti1Image(found, np.diag([*geometry.spacing[::-1], 1.0]))
    placed = nibabel.Nifti1Image(found, affine[:, _ZYX])
    if not file.name.endswith((".nii", ".nii.gz")):
        return placed
    original: Any = nibabel.load(file)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(placed.affine), nibabel.io_orientation(original.affine)
    )
    turned = nibabel.orientations.apply_orientation(found, turn)
    if turned.shape != original.shape[:3]:
        return placed
    image = nibabel.Nifti1Image(turned, original.affine)
    image.header.set_xyzt_units("mm")
    return image
