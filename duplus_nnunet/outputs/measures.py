"""Measures volume, position, shape and intensities of a predicted target."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.outputs.answer import CaseAnswer, Geometry, TargetAnswer
from duplus_nnunet.outputs.world import find_affine

Mask = NDArray[np.bool_]
Range = tuple[float, float]

_MM3_IN_ML = 1000
_ANY_NEIGHBOUR = np.ones((3, 3, 3), np.uint8)


@dataclass(frozen=True)
class TargetStatistics:
    """Statistics of one target in one image; None where undefined, as for most values of an absent target.

    Attributes:
        case: nnU-Net's case identifier.
        context: Name of the context that was used.
        target: Name of the target, or the user's own text.
        value: Its value in the combined label map.
        present: Whether the mask has any voxel.
        presence: Probability, 0 to 1, that the image contains the target.
        volume_ml: Volume in ml, 0 if absent.
        voxels: Number of voxels, 0 if absent.
        intensity_mean: Mean of the first channel inside the mask, in the image's own unit (HU in CT).
        intensity_std: Population standard deviation, in the same unit.
        intensity_median: Median, in the same unit.
        intensity_p05: 5th percentile, in the same unit.
        intensity_p95: 95th percentile, in the same unit.
        z_start: First index of the bounding box along the array's axis z, counted from 0.
        z_stop: Its last index plus 1.
        y_start: First index along y.
        y_stop: Last index along y, plus 1.
        x_start: First index along x.
        x_stop: Last index along x, plus 1.
        extent_z_mm: Size of the bounding box along z in mm, from outer edge to outer edge.
        extent_y_mm: Size along y.
        extent_x_mm: Size along x.
        centroid_right_mm: Centroid in world coordinates in mm, to the patient's right (NIfTI's x; the negative of
            DICOM's and ITK's).
        centroid_anterior_mm: Likewise, to the patient's front (NIfTI's y; the negative of DICOM's).
        centroid_superior_mm: Likewise, to the patient's head (z in both).
        components: Number of connected components (26-connectivity).
        largest_share: Share of the voxels in the largest component, 0 to 1.
        touches_border: Whether the mask touches the edge of the image and may be cut off.
        probability_mean: Mean probability inside the mask.
        training_low_ml: Smallest volume in the training data, in ml.
        training_high_ml: Largest volume in the training data, in ml.
        volume_unusual: Whether the volume is outside the range of the training data.
        seen_in_training: Whether the model was trained on the target; if not, it is the user's own text.
        rivals: Targets that the voxels were settled among: `all` of the context, or those `asked` for. None if targets
            do not exclude one another.
    """

    case: str
    context: str
    target: str
    value: int
    present: bool
    presence: float | None = None
    volume_ml: float = 0.0
    voxels: int = 0
    intensity_mean: float | None = None
    intensity_std: float | None = None
    intensity_median: float | None = None
    intensity_p05: float | None = None
    intensity_p95: float | None = None
    z_start: int | None = None
    z_stop: int | None = None
    y_start: int | None = None
    y_stop: int | None = None
    x_start: int | None = None
    x_stop: int | None = None
    extent_z_mm: float | None = None
    extent_y_mm: float | None = None
    extent_x_mm: float | None = None
    centroid_right_mm: float | None = None
    centroid_anterior_mm: float | None = None
    centroid_superior_mm: float | None = None
    components: int | None = None
    largest_share: float | None = None
    touches_border: bool | None = None
    probability_mean: float | None = None
    training_low_ml: float | None = None
    training_high_ml: float | None = None
    volume_unusual: bool | None = None
    seen_in_training: bool = True
    rivals: str | None = None


def measure_target(
    answer: CaseAnswer, target: TargetAnswer, channel: NDArray[Any], volumes: Range | None = None
) -> TargetStatistics:
    """Measure one target of a prediction.

    Args:
        answer: Prediction of the image.
        target: One of its targets.
        channel: First channel of the image, (D, H, W).
        volumes: Smallest and largest volume in the training data, in ml.
    """
    low, high = volumes or (None, None)
    values: dict[str, Any] = {"training_low_ml": low, "training_high_ml": high, "presence": target.presence}
    values |= {"seen_in_training": target.seen, "rivals": answer.rivals}
    voxels = int(target.mask.sum())
    if voxels:
        volume = voxels * math.prod(answer.geometry.spacing) / _MM3_IN_ML
        values |= {"voxels": voxels, "volume_ml": volume}
        values |= {} if volumes is None else {"volume_unusual": not volumes[0] <= volume <= volumes[1]}
        values |= _measure_position(target, answer.geometry)
        values |= measure_components(target.mask, voxels)
        values |= measure_intensities(channel[target.box][target.mask])
        values |= {"probability_mean": _measure_probability(target.logits[target.mask])}
    plain = {name: to_plain(value) for name, value in values.items()}
    return TargetStatistics(answer.case, answer.context, target.name, target.value, voxels > 0, **plain)


def count_voxels(mask: Mask) -> tuple[NDArray[np.int64], ...]:
    """Count the voxels of a mask in every slice perpendicular to each of its three axes."""
    return tuple(
        mask.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.int64) for axis in range(3)
    )


def compute_centroid(counts: Sequence[NDArray[np.int64]]) -> tuple[float, ...]:
    """Compute the centroid of a mask, as indices, from its voxel counts per slice."""
    return tuple(float(np.average(np.arange(len(count)), weights=count)) for count in counts)


def _measure_position(target: TargetAnswer, geometry: Geometry) -> dict[str, Any]:
    counts = count_voxels(target.mask)
    position: dict[str, Any] = {"touches_border": False}
    for axis, (name, count) in enumerate(zip("zyx", counts, strict=True)):
        filled = np.flatnonzero(count) + target.box[axis].start
        start, stop = int(filled[0]), int(filled[-1]) + 1
        position |= {f"{name}_start": start, f"{name}_stop": stop}
        position[f"extent_{name}_mm"] = (stop - start) * geometry.spacing[axis]
        position["touches_border"] |= start == 0 or stop == geometry.shape[axis]
    affine = find_affine(geometry)
    if affine is not None:
        centroid = [index + side.start for index, side in zip(compute_centroid(counts), target.box, strict=True)]
        right, anterior, superior, _ = affine @ [*centroid, 1.0]
        position |= {
            "centroid_right_mm": right,
            "centroid_anterior_mm": anterior,
            "centroid_superior_mm": superior,
        }
    return position


def measure_components(mask: Mask, voxels: int) -> dict[str, Any]:
    """Count the connected components (26-connectivity) of a mask, and the share of its voxels in the largest one.

    Args:
        mask: Mask with at least one voxel, (D, H, W).
        voxels: Number of its voxels.
    """
    from scipy.ndimage import label

    components, number = label(mask, _ANY_NEIGHBOUR)
    return {"components": number, "largest_share": np.bincount(components[mask]).max() / voxels}


def measure_intensities(values: NDArray[Any]) -> dict[str, float]:
    """Measure mean, population standard deviation, median, and 5th and 95th percentile of the intensities in a mask.

    Args:
        values: At least one intensity, (V).
    """
    low, median, high = np.percentile(values, (5, 50, 95))
    return {
        "intensity_mean": values.mean(dtype=np.float64),
        "intensity_std": values.std(dtype=np.float64),
        "intensity_median": median,
        "intensity_p05": low,
        "intensity_p95": high,
    }


def _measure_probability(logits: NDArray[np.float16]) -> float:
    from scipy.special import expit

    return float(expit(logits.astype(np.float32)).mean(dtype=np.float64))


def to_plain(value: Any) -> Any:
    """Convert a NumPy scalar to a Python number; non-finite values become None."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
