"""Reads NIfTI volumes as axial slices in radiological orientation."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError


def read_axial(path: Path) -> tuple[NDArray[Any], tuple[float, float, float]]:
    """Read a 3D volume in any orientation.

    Returns:
        The array with axes (foot to head, front to back, patient's right to left), and the voxel size along these axes
        in mm.

    Raises:
        DataError: The file is missing or not a 3D NIfTI volume.
    """
    try:
        stored = nibabel.load(path)
    except (OSError, ImageFileError) as error:
        message = f"{path} cannot be read as a NIfTI volume ({error}). Check that the previous step wrote it."
        raise DataError(message) from error
    if len(stored.shape) != 3:
        raise DataError(f"{path} has shape {stored.shape}, expected three axes. Give a 3D volume.")
    transform = ornt_transform(io_orientation(stored.affine), axcodes2ornt("LPS"))
    reoriented = stored.as_reoriented(transform)
    x, y, z = (float(size) for size in reoriented.header.get_zooms()[:3])
    return np.ascontiguousarray(np.asarray(reoriented.dataobj).transpose(2, 1, 0)), (z, y, x)


def read_label_map(path: Path) -> NDArray[np.uint8]:
    """Read a label map with the axes of `read_axial`."""
    labels, _ = read_axial(path)
    rounded: NDArray[np.uint8] = np.rint(labels).astype(np.uint8)
    return rounded
