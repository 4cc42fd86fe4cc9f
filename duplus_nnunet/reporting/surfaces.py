"""Computes the distances between the surfaces of two masks: NSD, HD95 and ASSD.

A reimplementation of DeepMind's surface-distance, which has no release for NumPy 2; the results are the same.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]

_ALL = 0b11111111
# Relative. Spacings in headers have seven digits; a surface one voxel away must be within a tolerance of one voxel.
_ROUNDING = 1e-6
_PERCENTILE = 0.95


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between the surfaces of two masks.

    Surfaces run between voxels, through the corners where foreground and background meet; each corner is weighted by
    the area of the surface through it.

    Attributes:
        to_reference: Distance of each of the N corners of the predicted surface to the reference's, in mm, (N,).
        predicted_area: Area at these corners, in mm², (N,).
        to_prediction: Distance of each of the M corners of the reference's surface to the predicted one, in mm, (M,).
        reference_area: Area at these corners, in mm², (M,).
    """

    to_reference: Values
    predicted_area: Values
    to_prediction: Values
    reference_area: Values

    def compute_nsd(self, tolerance: float) -> float:
        """Return the normalised surface distance (surface Dice), 0 to 1, higher is better.

        It is the share of both surfaces that lies within the tolerance, in mm, of the other one.

        Source: Nikolov et al. 2021 (doi 10.2196/26151).
        """
        limit = tolerance * (1 + _ROUNDING)
        close = self.predicted_area[self.to_reference <= limit].sum()
        close += self.reference_area[self.to_prediction <= limit].sum()
        return float(close / self._area)

    def compute_hd95(self) -> float:
        """Return the 95th percentile of the Hausdorff distance in mm, lower is better.

        It is the larger one of two distances, each of which 95 % of one surface, by area, does not exceed.
        """
        return max(
            _find_percentile(self.to_reference, self.predicted_area),
            _find_percentile(self.to_prediction, self.reference_area),
        )

    def compute_assd(self) -> float:
        """Return the average symmetric surface distance in mm, lower is better: the mean over both surfaces."""
        total = self.to_reference @ self.predicted_area + self.to_prediction @ self.reference_area
        return float(total / self._area)

    @property
    def _area(self) -> float:
        return float(self.predicted_area.sum() + self.reference_area.sum())


def measure_surfaces(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks that are not empty.

    Args:
        prediction: Predicted mask, (D, H, W).
        reference: Reference mask of the same shape.
        spacing: Voxel size along these axes, in mm.
    """
    box = find_box(prediction | reference)
    ours, theirs = (_find_surface(mask[box], spacing) for mask in (prediction, reference))
    points = [np.argwhere(corners) * np.asarray(spacing) for corners, _ in (ours, theirs)]
    areas = [area[corners] for corners, area in (ours, theirs)]
    return SurfaceDistances(_find_distances(*points), areas[0], _find_distances(*points[::-1]), areas[1])


def compute_nsd(prediction: Mask, reference: Mask, spacing: Sequence[float], tolerance: float) -> float:
    """Compute the normalised surface distance (surface Dice): the share of both surfaces close to the other one.

    Args:
        prediction: Predicted mask, (D, H, W).
        reference: Reference mask of the same shape.
        spacing: Voxel size along these axes, in mm.
        tolerance: Distance up to which surfaces agree, in mm.

    Returns:
        0 to 1, higher is better; 0 if one mask is empty, NaN if both are.

    Example:
        >>> reference = np.zeros((6, 6, 6), bool)
        >>> reference[1:4, 1:4, 1:4] = True
        >>> compute_nsd(np.roll(reference, 1, axis=0), reference, spacing=(1, 1, 1), tolerance=1)
        1.0
    """
    filled = bool(prediction.any()), bool(reference.any())
    if all(filled):
        return measure_surfaces(prediction, reference, spacing).compute_nsd(tolerance)
    return 0.0 if any(filled) else float("nan")


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


def _find_distances(points: Values, others: Values) -> Values:
    """Find the distance of each point to the nearest one of others, in mm."""
    from scipy.spatial import cKDTree

    # A distance map of the whole box is equivalent, but takes ten times as long for an organ the size of the lungs.
    distances, _ = cKDTree(others, compact_nodes=False, balanced_tree=False).query(points)
    found: Values = distances
    return found


def _find_percentile(distances: Values, areas: Values) -> float:
    """Find the smallest distance that 95 % of a surface, by area, does not exceed."""
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / areas.sum()
    return float(distances[order][min(int(np.searchsorted(share, _PERCENTILE)), len(order) - 1)])


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
