"""Computes the normalised surface distance (NSD) of two masks.

A reimplementation of DeepMind's surface-distance, which has no release for NumPy 2; the results are the same.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_ALL = 0b11111111
# Relative. Spacings in headers have seven digits; a surface one voxel away must be within a tolerance of one voxel.
_ROUNDING = 1e-6


def compute_nsd(prediction: Mask, reference: Mask, spacing: Sequence[float], tolerance: float) -> float:
    """Compute the normalised surface distance (surface Dice): the share of both surfaces close to the other one.

    Surfaces run between voxels, through the corners where foreground and background meet; each corner is weighted by
    the area of the surface through it.

    Args:
        prediction: Predicted mask, (D, H, W).
        reference: Reference mask of the same shape.
        spacing: Voxel size along these axes, in mm.
        tolerance: Distance up to which surfaces agree, in mm.

    Returns:
        0 to 1, higher is better; 0 if one mask is empty, NaN if both are.

    Source: Nikolov et al. 2021 (doi 10.2196/26151).

    Example:
        >>> reference = np.zeros((6, 6, 6), bool)
        >>> reference[1:4, 1:4, 1:4] = True
        >>> compute_nsd(np.roll(reference, 1, axis=0), reference, spacing=(1, 1, 1), tolerance=1)
        1.0
    """
    box = find_box(prediction | reference)
    if box is None:
        return float("nan")
    ours, theirs = (_find_surface(mask[box], spacing) for mask in (prediction, reference))
    close = _sum_close(ours, theirs, spacing, tolerance) + _sum_close(theirs, ours, spacing, tolerance)
    return float(close / (ours[1].sum() + theirs[1].sum()))


def find_box(mask: Mask) -> tuple[slice, ...] | None:
    """Find the bounding box of a mask; None if it is empty."""
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(filled):
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _find_surface(mask: Mask, spacing: Sequence[float]) -> tuple[Mask, NDArray[np.float64]]:
    """Find the voxel corners on the surface, and its area in mm² at each; arrays are one larger along each axis."""
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros(tuple(size - 1 for size in padded.shape), np.uint8)
    for bit, offset in enumerate(np.ndindex(2, 2, 2)):
        part = tuple(slice(start, start + size) for start, size in zip(offset, codes.shape, strict=True))
        codes |= padded[part] << bit
    return (codes != 0) & (codes != _ALL), _compute_areas(tuple(map(float, spacing)))[codes]


def _sum_close(surface: tuple[Any, Any], other: tuple[Any, Any], spacing: Sequence[float], tolerance: float) -> float:
    """Sum the area of a surface, in mm², that is within the tolerance of another surface."""
    from scipy.spatial import cKDTree

    limit = tolerance * (1 + _ROUNDING)
    points, other_points = (np.argwhere(corners) * np.asarray(spacing) for corners, _ in (surface, other))
    if not len(points) or not len(other_points):
        return 0.0
    # A distance map of the whole box is equivalent, but takes ten times as long for an organ the size of the lungs.
    tree = cKDTree(other_points, compact_nodes=False, balanced_tree=False)
    distances, _ = tree.query(points, distance_upper_bound=limit * (1 + _ROUNDING) + _ROUNDING)
    corners, area = surface
    return float(area[corners][distances <= limit].sum())


@functools.lru_cache(maxsize=64)
def _compute_areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Compute the surface area in mm² of each pattern of eight voxels around a corner, by marching cubes.

    A pattern and its complement share one surface, that of the one with fewer voxels.
    """
    from skimage.measure import marching_cubes, mesh_surface_area

    areas = np.zeros(_ALL + 1)
    for code in range(1, _ALL):
        voxels = np.array([code >> bit & 1 for bit in range(8)], dtype=np.float32).reshape(2, 2, 2)
        fewer = voxels if voxels.sum() <= 4 else 1 - voxels
        corners, faces, *_ = marching_cubes(fewer, 0.5, spacing=spacing, method="lorensen")
        areas[code] = mesh_surface_area(corners, faces)
    return areas
