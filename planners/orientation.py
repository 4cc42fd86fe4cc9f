"""Which array axis runs from left to right: in come image headers, out comes an axis or None."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK

# nnU-Net's readers of these names put the first axis of the file last.
_READERS_BY_HEADER = ("SimpleITKIO", "NibabelIO")
# These turn every image so that the axis along the patient's left and right is the last one, in one direction.
_READERS_REORIENTED = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
# Cosine of about 37 degrees: beyond, an oblique image has no axis that runs from left to right.
_LEAST_COSINE = 0.8


def find_axis(direction: Sequence[float]) -> tuple[int, bool] | None:
    """Return the array axis (z, y, x order) along the patient's left-right axis, and whether it runs to the left.

    Args:
        direction: Nine direction cosines as SimpleITK has them, a row after the other.

    Returns:
        None if no axis does.
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
    """Find the array axis that runs from the patient's left to right in every training image, always the same way.

    Args:
        dataset: nnU-Net's mapping of case identifiers to {"images": [files], "label": file}.
        reader_name: Name of nnU-Net's reader that the plans chose.

    Returns:
        The axis of the array as nnU-Net reads it, before its transposition; None where images differ, are oblique, or
        their files say nothing of direction.
    """
    if reader_name in _READERS_REORIENTED:
        return 2
    if reader_name not in _READERS_BY_HEADER:
        return None
    found = {_read_axis(case["images"][0]) for case in dataset.values()}
    axis = found.pop() if len(found) == 1 else None
    return None if axis is None else axis[0]
