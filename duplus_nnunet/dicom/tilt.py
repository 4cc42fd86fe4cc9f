"""Corrects a gantry tilt: slices that are shifted sideways along the stack become an orthogonal volume."""

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.dicom.series import Series

_TINY = 1e-6


def straighten(
    values: NDArray[np.float32], affine: NDArray[np.float64], series: Series
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Shift each slice in its plane, by linear interpolation, so that all lie above one another.

    The volume is enlarged so that nothing is cut off; what no slice covers gets the lowest value.

    Args:
        values: Shape (slices, rows, columns).
        affine: From indices to mm (RAS) without the shift, shape (4, 4).
        series: Whose `shear` says how slices are shifted.

    Returns:
        The values, and the affine of their grid.
    """
    first = series.slices[0]
    shear = np.array(series.shear)
    # In voxels along rows and columns by slice.
    down = float(shear @ np.array(first.directions[3:])) * series.spacing[0] / series.spacing[1]
    across = float(shear @ np.array(first.directions[:3])) * series.spacing[0] / series.spacing[2]
    shifts = np.arange(len(values))[:, None] * np.array([down, across])
    start = np.floor(shifts.min(axis=0) + _TINY).astype(int)
    stop = np.ceil(shifts.max(axis=0) - _TINY).astype(int)
    shape = (values.shape[1] + stop[0] - start[0], values.shape[2] + stop[1] - start[1])
    fill = float(values.min())
    moved = np.full((len(values), *shape), fill, np.float32)
    for plane, new, (row, column) in zip(values, moved, shifts - start, strict=True):
        new[...] = _shift(_shift(plane, row, shape[0], fill).T, column, shape[1], fill).T
    placed = affine.copy()
    placed[:, 3] = affine @ np.array([0.0, start[0], start[1], 1.0])
    return moved, placed


def _shift(plane: NDArray[np.float32], by: float, length: int, fill: float) -> NDArray[np.float32]:
    """Shift along the first axis by a number of voxels, 0 or more, into a plane of another length."""
    whole = int(np.floor(by + _TINY))
    rest = max(0.0, by - whole)
    padded = np.full((length + 2, plane.shape[1]), fill, np.float32)
    padded[whole + 1 : whole + 1 + len(plane)] = plane
    mixed: NDArray[np.float32] = (1 - rest) * padded[1 : length + 1] + rest * padded[:length]
    return mixed.astype(np.float32)
