"""Corrects a gantry tilt: slices that are shifted sideways along the stack become an orthogonal volume."""

from typing import Any

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
    shifts, start, shape = _measure_shifts(series)
    fill = float(values.min())
    moved = np.full((len(values), *shape), fill, np.float32)
    for plane, new, (row, column) in zip(values, moved, shifts, strict=True):
        new[...] = _shift(_shift(plane, row, shape[0], fill).T, column, shape[1], fill).T
    placed = affine.copy()
    placed[:, 3] = affine @ np.array([0.0, start[0], start[1], 1.0])
    return moved, placed


def straighten_labels(labels: NDArray[Any], series: Series) -> NDArray[Any]:
    """Bring labels of the slices, shape (slices, rows, columns), to the grid of `straighten` by whole voxels.

    A label lies at most half a voxel from the structure in the image; what no slice covers is background.
    """
    shifts, _, shape = _measure_shifts(series)
    rows, columns = labels.shape[1:]
    moved = np.zeros((len(labels), *shape), labels.dtype)
    for plane, new, (down, across) in zip(labels, moved, np.rint(shifts).astype(int), strict=True):
        new[down : down + rows, across : across + columns] = plane
    return moved


def _measure_shifts(series: Series) -> tuple[NDArray[np.float64], NDArray[np.int64], tuple[int, int]]:
    """Measure how slices are shifted along rows and columns.

    Returns:
        The shift of each slice in the enlarged plane, in voxels, shape (slices, 2); first row and column of that plane
        in the first slice; and its shape.
    """
    first, shear = series.slices[0], np.array(series.shear)
    down = float(shear @ np.array(first.directions[3:])) * series.spacing[0] / series.spacing[1]
    across = float(shear @ np.array(first.directions[:3])) * series.spacing[0] / series.spacing[2]
    shifts = np.arange(len(series.slices))[:, None] * np.array([down, across])
    start = np.floor(shifts.min(axis=0) + _TINY).astype(np.int64)
    stop = np.ceil(shifts.max(axis=0) - _TINY).astype(np.int64)
    rows, columns = series.shape[1:]
    return shifts - start, start, (rows + int(stop[0] - start[0]), columns + int(stop[1] - start[1]))


def _shift(plane: NDArray[np.float32], by: float, length: int, fill: float) -> NDArray[np.float32]:
    """Shift along the first axis by a number of voxels, 0 or more, into a plane of another length."""
    whole = int(np.floor(by + _TINY))
    rest = max(0.0, by - whole)
    padded = np.full((length + 2, plane.shape[1]), fill, np.float32)
    padded[whole + 1 : whole + 1 + len(plane)] = plane
    mixed: NDArray[np.float32] = (1 - rest) * padded[1 : length + 1] + rest * padded[:length]
    return mixed.astype(np.float32)
