"""Finds the array axis that runs from left to right in image files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK

# nnU-Net's readers of these names put the first axis of the file last.
_READERS_BY_HEADER = ("SimpleITKIO", "NibabelIO")
# These reorient every image so that the left-right axis is the last one, always in the same direction.
_READERS_REORIENTED = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
# Cosine of about 37 degrees: a more oblique image has no axis from left to right.
_LEAST_COSINE = 0.8


def find_axis(direction: Sequence[float]) -> tuple[int, bool] | None:
    """Return the array axis (z, y, x order) along the patient's left-right axis, and whether it runs to the left.

    Args:
        direction: Nine direction cosines as in SimpleITK, row by row.

    Returns:
        None if no axis is close enough to the left-right axis.
    """
    across = np.asarray(direction, dtype=float).reshape(3, 3)[0]
    axis = int(np.abs(across).argmax())
    return (2 - axis, bool(across[axis] > 0)) if abs(across[axis]) >= _LEAST_COSINE else None


def _read_axis(file: str) -> tuple[int, bool] | None:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return find_axis(reader.GetDirection()) if reader.GetDimension() == 3 else None


def find_left_right_axis(dataset: Mapping[str, Mapping[str, Any]], reader_name: str) -> int | None:
    """Find the array axis along the patient's left-right axis that all training images share, in the same direction.

    Args:
        dataset: nnU-Net's mapping of case identifiers to {"images": [files], "label": file}.
        reader_name: Name of nnU-Net's reader that the plans chose.

    Returns:
        The axis of the array as nnU-Net reads it, before its transposition; None if images differ, are oblique, or
        their files contain no direction.
    """
    if reader_name in _READERS_REORIENTED:
        return 2
    if reader_name not in _READERS_BY_HEADER:
        return None
    axes = {_read_axis(case["images"][0]) for case in dataset.values()}
    axis = axes.pop() if len(axes) == 1 else None
    return None if axis is None else axis[0]
