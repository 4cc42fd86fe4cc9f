"""What can be measured of one target: in come its voxels and the image, out comes a row of statistics.

Everything is measured inside the box where the target can be.
"""

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
    """One target in one image; None where there is no value, as everywhere in a target that is not there.

    Attributes:
        case: nnU-Net's case identifier.
        context: The context it was predicted in.
        target: The target, or the user's own text.
        value: Its value in the combined label map.
        present: Whether it has a voxel.
        presence: Probability, 0 to 1, that it is in the image at all.
        volume_ml: Volume, 0 if it is not there.
        voxels: Their number, 0 if it is not there.
        intensity_mean: Of the first channel inside the mask, in the image's own unit (HU in CT).
        intensity_std: Standard deviation over all its voxels.
        intensity_median: The same unit.
        intensity_p05: 5th percentile.
        intensity_p95: 95th percentile.
        z_start: First index of its bounding box along the array's axis z, counted from 0; likewise y and x.
        z_stop: The index after its last one.
        extent_z_mm: Size of the bounding box, from outer edge to outer edge.
        centroid_right_mm: Middle of its voxels in the image's world, to the patient's right (NIfTI's x; the
            negative of DICOM's and ITK's).
        centroid_anterior_mm: To the patient's front (NIfTI's y; the negative of DICOM's).
        centroid_superior_mm: To the patient's head (z in both).
        components: Number of parts that touch nowhere, not even at corners.
        largest_share: Share of the voxels that is in the largest part.
        touches_border: Whether it reaches the image's edge, and so may be cut off.
        probability_mean: Mean probability inside the mask.
        training_low_ml: Smallest volume seen in training.
        training_high_ml: Largest one.
        volume_unusual: Whether the volume is outside of that.
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


def measure_target(
    answer: CaseAnswer, target: TargetAnswer, channel: NDArray[Any], volumes: Range | None = None
) -> TargetStatistics:
    """Measure one target of an answer.

    Args:
        answer: What was found in the image.
        target: One of its targets.
        channel: The image's first channel, (D, H, W).
        volumes: Smallest and largest volume seen in training, in ml.
    """
    low, high = volumes or (None, None)
    found: dict[str, Any] = {"training_low_ml": low, "training_high_ml": high, "presence": target.presence}
    voxels = int(target.mask.sum())
    if voxels:
        volume = voxels * math.prod(answer.geometry.spacing) / _MM3_IN_ML
        found |= {"voxels": voxels, "volume_ml": volume}
        found |= {} if volumes is None else {"volume_unusual": not volumes[0] <= volume <= volumes[1]}
        found |= _measure_place(target, answer.geometry)
        found |= _measure_parts(target.mask, voxels)
        found |= _measure_intensities(channel[target.box][target.mask])
        found |= {"probability_mean": _measure_probability(target.logits[target.mask])}
    plain = {name: _to_plain(value) for name, value in found.items()}
    return TargetStatistics(answer.case, answer.context, target.name, target.value, voxels > 0, **plain)


def count_voxels(mask: Mask) -> tuple[NDArray[np.int64], ...]:
    """Count a mask's voxels in every slice across each of its three axes."""
    return tuple(
        mask.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.int64) for axis in range(3)
    )


def find_centre(counts: Sequence[NDArray[np.int64]]) -> tuple[float, ...]:
    """Find the middle of a mask's voxels, as indices, from their number in every slice."""
    return tuple(float(np.average(np.arange(len(count)), weights=count)) for count in counts)


def _measure_place(target: TargetAnswer, geometry: Geometry) -> dict[str, Any]:
    counts = count_voxels(target.mask)
    found: dict[str, Any] = {"touches_border": False}
    for axis, (name, count) in enumerate(zip("zyx", counts, strict=True)):
        filled = np.flatnonzero(count) + target.box[axis].start
        start, stop = int(filled[0]), int(filled[-1]) + 1
        found |= {f"{name}_start": start, f"{name}_stop": stop}
        found[f"extent_{name}_mm"] = (stop - start) * geometry.spacing[axis]
        found["touches_border"] |= start == 0 or stop == geometry.shape[axis]
    affine = find_affine(geometry)
    if affine is not None:
        centre = [middle + part.start for middle, part in zip(find_centre(counts), target.box, strict=True)]
        right, anterior, superior, _ = affine @ [*centre, 1.0]
        found |= {
            "centroid_right_mm": right,
            "centroid_anterior_mm": anterior,
            "centroid_superior_mm": superior,
        }
    return found


def _measure_parts(mask: Mask, voxels: int) -> dict[str, Any]:
    from scipy.ndimage import label

    parts, number = label(mask, _ANY_NEIGHBOUR)
    return {"components": number, "largest_share": np.bincount(parts[mask]).max() / voxels}


def _measure_intensities(values: NDArray[Any]) -> dict[str, float]:
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


def _to_plain(value: Any) -> Any:
    """Give a NumPy number as Python's own, and what is not finite as no value."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
