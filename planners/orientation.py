"""Which array axis runs from left to right: in come image headers, out comes an axis or None."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import SimpleITK

# nnU-Net's readers of these names put the first axis of the file last.
_READERS_BY_HEADER = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO")
_READERS_REORIENTED = ("NibabelIOWithReorient",)
# Cosine of about 37 degrees: beyond, an oblique image has no axis that runs from left to right.
_LEAST_COSINE = 0.8


def _read_axis(file: str) -> int | None:
    """Return the array axis (z, y, x order) along the patient's left-right axis of an image, None if none is."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    if reader.GetDimension() != 3:
        return None
    across = np.abs(np.asarray(reader.GetDirection()).reshape(3, 3)[0])
    return 2 - int(across.argmax()) if across.max() >= _LEAST_COSINE else None


def find_left_right_axis(dataset: Mapping[str, Mapping[str, Any]], reader_name: str) -> int | None:
    """Find the array axis that runs from the patient's left to right in every training image.

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
    axes = {_read_axis(case["images"][0]) for case in dataset.values()}
    return axes.pop() if len(axes) == 1 else None
