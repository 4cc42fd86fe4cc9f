"""Scores one target of one case: overlap, surfaces, volume and lesions.

Rules for empty masks. Neither reference nor prediction contains the target: a correct rejection, which has no score
(NaN), but 0 false lesions. Only one of them does: Dice, NSD and lesion F1 are 0, HD95 and ASSD the diagonal of the
image, the worst that they can be; sensitivity is undefined without the target in the reference, precision without a
prediction.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.reporting.lesions import count_lesions
from duplus_nnunet.reporting.surfaces import Mask, find_box, measure_surfaces

_MM3_IN_ML = 1000


@dataclass(frozen=True)
class TargetScore:
    """Scores of one target in one case; NaN where undefined, as the rules for empty masks say.

    Attributes:
        dice: Dice, 0 to 1, higher is better.
        nsd: Normalised surface distance, 0 to 1, higher is better.
        present: Whether the reference contains the target.
        predicted: Whether the prediction contains the target.
        hd95_mm: 95th percentile of the Hausdorff distance in mm, lower is better.
        assd_mm: Average symmetric surface distance in mm, lower is better.
        sensitivity: Share of the reference's voxels that are predicted, 0 to 1, higher is better.
        precision: Share of the predicted voxels that are the reference's, 0 to 1, higher is better.
        reference_ml: Volume of the reference in ml.
        predicted_ml: Volume of the prediction in ml.
        volume_difference_ml: The latter less the former, in ml; best at 0.
        volume_difference_percent: That difference as a percentage of the reference's volume; best at 0.
        reference_lesions: Number of lesions of the reference; NaN if the target is no lesion, like all that follow.
        found_lesions: Number of those of them that are found.
        predicted_lesions: Number of components of the prediction.
        false_lesions: Number of those of them that cover no lesion; lower is better.
        lesion_sensitivity: Share of the lesions that are found, 0 to 1, higher is better.
        lesion_f1: Harmonic mean of that and the share of predicted components that are true, 0 to 1, higher is better.
    """

    dice: float
    nsd: float
    present: bool
    predicted: bool
    hd95_mm: float = math.nan
    assd_mm: float = math.nan
    sensitivity: float = math.nan
    precision: float = math.nan
    reference_ml: float = math.nan
    predicted_ml: float = math.nan
    volume_difference_ml: float = math.nan
    volume_difference_percent: float = math.nan
    reference_lesions: float = math.nan
    found_lesions: float = math.nan
    predicted_lesions: float = math.nan
    false_lesions: float = math.nan
    lesion_sensitivity: float = math.nan
    lesion_f1: float = math.nan


def score_masks(
    prediction: Mask, reference: Mask, spacing: Sequence[float], tolerance: float, is_lesion: bool = False
) -> TargetScore:
    """Score one target.

    Args:
        prediction: Predicted mask, (D, H, W).
        reference: Reference mask of the same shape.
        spacing: Voxel size along these axes, in mm.
        tolerance: Tolerance of the NSD, in mm.
        is_lesion: Whether the target is a lesion, whose connected components are counted.
    """
    box = find_box(prediction | reference)
    part = (slice(0),) * 3 if box is None else box
    predicted, true = prediction[part], reference[part]
    voxel = math.prod(spacing) / _MM3_IN_ML
    sizes = int(predicted.sum()), int(true.sum())
    lesions = _score_lesions(predicted, true) if is_lesion else {}
    volumes = {"reference_ml": sizes[1] * voxel, "predicted_ml": sizes[0] * voxel}
    if box is None:
        return TargetScore(math.nan, math.nan, present=False, predicted=False, **volumes, **lesions)
    overlap = int((predicted & true).sum())
    diagonal = float(np.linalg.norm([size * step for size, step in zip(reference.shape, spacing, strict=True)]))
    nsd, hd95, assd = _score_surfaces(predicted, true, spacing, tolerance) if all(sizes) else (0.0, diagonal, diagonal)
    difference = sizes[0] - sizes[1]
    return TargetScore(
        dice=2 * overlap / sum(sizes),
        nsd=nsd,
        present=sizes[1] > 0,
        predicted=sizes[0] > 0,
        hd95_mm=hd95,
        assd_mm=assd,
        sensitivity=_divide(overlap, sizes[1]),
        precision=_divide(overlap, sizes[0]),
        volume_difference_ml=difference * voxel,
        volume_difference_percent=100 * _divide(difference, sizes[1]),
        **volumes,
        **lesions,
    )


def _score_surfaces(
    predicted: Mask, true: Mask, spacing: Sequence[float], tolerance: float
) -> tuple[float, float, float]:
    distances = measure_surfaces(predicted, true, spacing)
    return distances.compute_nsd(tolerance), distances.compute_hd95(), distances.compute_assd()


def _score_lesions(predicted: Mask, true: Mask) -> dict[str, float]:
    lesions = count_lesions(predicted, true)
    return {
        "reference_lesions": lesions.reference,
        "found_lesions": lesions.found,
        "predicted_lesions": lesions.predicted,
        "false_lesions": lesions.false,
        "lesion_sensitivity": lesions.sensitivity,
        "lesion_f1": lesions.f1,
    }


def _divide(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
