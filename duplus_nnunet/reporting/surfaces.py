"""How well two surfaces agree: in come two masks on one grid, out comes the normalised surface distance.

Own code, since the program that the field uses (surface-distance, DeepMind) has not been released for NumPy 2; its
numbers are met.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_ALL = 0b11111111
# A spacing read from a header has seven digits: a surface one voxel away is still within a tolerance of one voxel.
_ROUNDING = 1e-6


def measure_nsd(prediction: Mask, reference: Mask, spacing: Sequence[float], tolerance: float) -> float:
    """Normalised surface distance (surface Dice): the share of both surfaces that lies close to the other one.

    Surfaces run between voxels, through the corners where voxels of both kinds meet; each corner counts with the area
    of the surface through it.

    Args:
        prediction: Predicted mask, (D, H, W).
        reference: True mask, of the same shape.
        spacing: Size of a voxel along these axes, in mm.
        tolerance: Distance up to which surfaces count as agreeing, in mm.

    Returns:
        0 to 1, higher is better; 0 if one mask is empty, NaN if both are.

    Source: Nikolov et al. 2021 (doi 10.2196/26151).
    """
    box = find_box(prediction | reference)
    if box is None:
        return float("nan")
    ours, theirs = (_find_surface(mask[box], spacing) for mask in (prediction, reference))
    close = _sum_close(ours, theirs, spacing, tolerance) + _sum_close(theirs, ours, spacing, tolerance)
    return float(close / (ours[1].sum() + theirs[1].sum()))


def find_box(mask: Mask) -> tuple[slice, ...] | None:
    """Find the smallest box around a mask; None if it is empty."""
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(filled):
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _find_surface(mask: Mask, spacing: Sequence[float]) -> tuple[Mask, NDArray[np.float64]]:
    """Find the corners of voxels that the surface passes, and its area at each in mm²; one more along each axis."""
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros(tuple(size - 1 for size in padded.shape), np.uint8)
    for bit, offset in enumerate(np.ndindex(2, 2, 2)):
        part = tuple(slice(start, start + size) for start, size in zip(offset, codes.shape, strict=True))
        codes |= padded[part] << bit
    return (codes != 0) & (codes != _ALL), _measure_areas(tuple(map(float, spacing)))[codes]


def _sum_close(one: tuple[Any, Any], other: tuple[Any, Any], spacing: Sequence[float], tolerance: float) -> float:
    """Sum the area of one surface, in mm², that is within the tolerance of the other one."""
    from scipy.spatial import cKDTree

    limit = tolerance * (1 + _ROUNDING)
    here, there = (np.argwhere(corners) * np.asarray(spacing) for corners, _ in (one, other))
    if not len(here) or not len(there):
        return 0.0
    # A distance map of the whole box says the same and takes ten times as long for an organ the size of the lungs.
    tree = cKDTree(there, compact_nodes=False, balanced_tree=False)
    distances, _ = tree.query(here, distance_upper_bound=limit * (1 + _ROUNDING) + _ROUNDING)
    corners, area = one
    return float(area[corners][distances <= limit].sum())


@functools.lru_cache(maxsize=64)
def _measure_areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Measure the surface through each pattern of eight voxels around a corner, in mm², by marching cubes.

    A pattern and its complement have one surface between them, that of the one with fewer voxels.
    """
    from skimage.measure import marching_cubes, mesh_surface_area

    areas = np.zeros(_ALL + 1)
    for code in range(1, _ALL):
        voxels = np.array([code >> bit & 1 for bit in range(8)], dtype=np.float32).reshape(2, 2, 2)
        fewer = voxels if voxels.sum() <= 4 else 1 - voxels
        corners, faces, *_ = marching_cubes(fewer, 0.5, spacing=spacing, method="lorensen")
        areas[code] = mesh_surface_area(corners, faces)
    return areas
