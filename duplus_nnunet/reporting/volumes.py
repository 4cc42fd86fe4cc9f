"""Reads NIfTI volumes as radiologists look at them.

In: a file. Out: an array of axial slices from foot to head, each with the front on top and the patient's right on the
left.
"""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError


def read_axial(path: Path) -> tuple[NDArray[Any], tuple[float, float, float]]:
    """Read a 3D volume, whichever way it is stored.

    Returns:
        The array in the order (foot to head, front to back, patient's right to left), and its spacing along these axes,
        in mm.

    Raises:
        DataError: The file is missing or not a 3D NIfTI volume.
    """
    try:
        stored = nibabel.load(path)
    except (OSError, ImageFileError) as error:
        message = f"{path} cannot be read as a NIfTI volume ({error}). Check that the step before wrote it."
        raise DataError(message) from error
    if len(stored.shape) != 3:
        raise DataError(f"{path} has shape {stored.shape}; expected three axes. Give a 3D volume.")
    turn = ornt_transform(io_orientation(stored.affine), axcodes2ornt("LPS"))
    turned = stored.as_reoriented(turn)
    across, depth, height = (float(width) for width in turned.header.get_zooms()[:3])
    return np.ascontiguousarray(np.asarray(turned.dataobj).transpose(2, 1, 0)), (height, depth, across)


def read_label_map(path: Path) -> NDArray[np.uint8]:
    """Read a label map in the order of `read_axial`."""
    labels, _ = read_axial(path)
    rounded: NDArray[np.uint8] = np.rint(labels).astype(np.uint8)
    return rounded
