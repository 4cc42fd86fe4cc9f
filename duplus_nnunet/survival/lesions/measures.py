"""Measures the lesions of a mask: number, volumes, distances between them, and their uptake in PET.

A lesion is a connected component (26-connectivity) of the mask of a target.

Source of the definitions: Cottereau et al. 2020 (doi 10.2967/jnumed.119.229880), distance between lesions; Boellaard et
al. 2015 (doi 10.1007/s00259-014-2961-x), MTV and TLG; Zwanenburg et al. 2020 (doi 10.1148/radiol.2020191145), global
intensity peak, which is the SUVpeak here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

_MM3_IN_ML = 1000.0
_ANY_NEIGHBOUR = np.ones((3, 3, 3), np.uint8)
# Radius of a sphere of 1 ml, in mm.
PEAK_RADIUS = 10 * (3 / (4 * math.pi)) ** (1 / 3)
# No tissue takes up so much; a PET above it is in Bq/ml.
_HIGHEST_SUV = 500.0


@dataclass(frozen=True)
class LesionShapes:
    """Number, volumes and positions of the lesions of a target.

    Attributes:
        volumes: Volume of each lesion in ml, largest first, (L).
        centroids: Centroid of each lesion in mm along the axes of the array, in the same order, (L, 3).
    """

    volumes: NDArray[np.float64]
    centroids: Points

    @property
    def spread(self) -> float:
        """Largest distance between the centroids of two lesions in mm; 0 with a single lesion, NaN without one."""
        return find_largest_distance(self.centroids, self.centroids)

    def measure_distance_from(self, other: "LesionShapes") -> float:
        """Return the largest distance in mm of a lesion from the largest lesion of another target; NaN without both."""
        return find_largest_distance(self.centroids, other.centroids[:1])


@dataclass(frozen=True)
class Uptake:
    """Uptake of a target in a PET image in SUV; all NaN without a voxel.

    Attributes:
        maximum: SUVmax: highest value in the mask, g/ml.
        mean: SUVmean: mean in the metabolic volume, g/ml.
        peak: SUVpeak: highest mean in a sphere of 1 ml around a voxel of the mask, g/ml; the sphere may cross the
            border of the mask.
        volume: MTV: volume of the voxels of the mask at or above the threshold, ml.
        glycolysis: TLG: `mean` times `volume`, g.
    """

    maximum: float
    mean: float
    peak: float
    volume: float
    glycolysis: float


@dataclass(frozen=True)
class Threshold:
    """Lowest uptake in the metabolic volume.

    Attributes:
        value: SUV in g/ml, or a share of the target's SUVmax from 0 to 1.
        relative: Whether it is a share.
    """

    value: float = 0.0
    relative: bool = False


def parse_threshold(text: str) -> Threshold:
    """Read a threshold: an SUV such as 4, or a percentage of SUVmax such as 41%.

    Raises:
        DataError: It is neither, negative, or above 100 %.

    Example:
        >>> parse_threshold("4"), parse_threshold("41%")
        (Threshold(value=4.0, relative=False), Threshold(value=0.41, relative=True))
    """
    relative = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if relative else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf or (relative and value > 1):
        raise DataError(
            f"The threshold is {text!r}; expected an SUV of 0 or more, such as 4, or a percentage of SUVmax, "
            "such as 41%."
        )
    return Threshold(value, relative)


def measure_shapes(mask: Mask, spacing: Sequence[float]) -> LesionShapes:
    """Measure the lesions of a mask.

    Args:
        mask: Mask of a target, (D, H, W).
        spacing: Voxel size in mm, in the order of the axes.
    """
    from scipy.ndimage import center_of_mass, label

    labelled, count = label(mask, _ANY_NEIGHBOUR)
    if count == 0:
        return LesionShapes(np.zeros(0), np.zeros((0, 3)))
    volumes = np.bincount(labelled.ravel())[1:].astype(np.float64) * (math.prod(spacing) / _MM3_IN_ML)
    centroids = np.array(center_of_mass(mask, labelled, range(1, count + 1))) * np.array(spacing, np.float64)
    order = np.argsort(-volumes, kind="stable")
    return LesionShapes(volumes[order], centroids[order])


def find_largest_distance(points: Points, others: Points) -> float:
    """Return the largest distance between a point and one of the others; NaN if there are none."""
    if not len(points) or not len(others):
        return math.nan
    return float(np.sqrt(((points[:, None, :] - others[None, :, :]) ** 2).sum(-1).max()))


def measure_uptake(
    mask: Mask, pet: NDArray[Any], spacing: Sequence[float], threshold: Threshold | None = None
) -> Uptake:
    """Measure the uptake of a target.

    Args:
        mask: Mask of the target, (D, H, W).
        pet: PET image in SUV, g/ml, of the same shape.
        spacing: Voxel size in mm, in the order of the axes.
        threshold: Lowest uptake in the metabolic volume; None: the whole mask.

    Raises:
        DataError: The values in the mask are not finite, or too high for SUV.
    """
    if not mask.any():
        return Uptake(math.nan, math.nan, math.nan, math.nan, math.nan)
    values = pet[mask].astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError("The PET has NaN or infinite values in a lesion. Correct the image.")
    maximum = float(values.max())
    if maximum > _HIGHEST_SUV:
        raise DataError(
            f"The highest PET value in a lesion is {maximum:.0f}, too high for SUV; it is probably in Bq/ml. Convert "
            "the PET to SUV first, for example by `duplus dicom to-nifti`."
        )
    lowest = Threshold() if threshold is None else threshold
    inside = values[values >= (lowest.value * maximum if lowest.relative else lowest.value)]
    if threshold is None:
        inside = values
    volume = len(inside) * math.prod(spacing) / _MM3_IN_ML
    mean = float(inside.mean()) if len(inside) else math.nan
    glycolysis = mean * volume if len(inside) else 0.0
    return Uptake(maximum, mean, find_peak(mask, pet, spacing), volume, glycolysis)


def find_peak(mask: Mask, pet: NDArray[Any], spacing: Sequence[float]) -> float:
    """Return the highest mean of a PET image in a sphere of 1 ml around a voxel of a mask.

    A voxel belongs to the sphere if its centre does; voxels beyond the image do not count.
    """
    from scipy.signal import oaconvolve

    reach = [int(PEAK_RADIUS / size) for size in spacing]
    filled = np.argwhere(mask)
    starts, stops = filled.min(0), filled.max(0) + 1
    box = tuple(
        slice(max(0, start - margin), stop + margin) for start, stop, margin in zip(starts, stops, reach, strict=True)
    )
    axes = [np.arange(-margin, margin + 1) * size for margin, size in zip(reach, spacing, strict=True)]
    offsets = np.meshgrid(*axes, indexing="ij")
    sphere = (sum(offset**2 for offset in offsets) <= PEAK_RADIUS**2 * (1 + 1e-9)).astype(np.float64)
    part = np.asarray(pet[box], np.float64)
    sums, counts = (oaconvolve(values, sphere, mode="full") for values in (part, np.ones(part.shape)))
    centre = tuple(slice(margin, margin + length) for margin, length in zip(reach, part.shape, strict=True))
    means = sums[centre] / np.maximum(np.rint(counts[centre]), 1)
    return float(means[mask[box]].max())
