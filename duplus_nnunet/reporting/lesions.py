"""Counts the lesions that a prediction finds, misses and makes up.

A lesion is a connected component (26-connectivity) of the mask of a target. A lesion of the reference is found if the
prediction covers at least one of its voxels; a component of the prediction is false if it covers no voxel of the
reference. Two lesions under one component of the prediction are both found, and two components over one lesion are
both true.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_ANY_NEIGHBOUR = np.ones((3, 3, 3), np.uint8)


@dataclass(frozen=True)
class Lesions:
    """Numbers of lesions of one target in one case.

    Attributes:
        reference: Lesions of the reference.
        found: Those of them that the prediction covers at least in part.
        predicted: Components of the prediction.
        false: Those of them that cover no voxel of the reference.
    """

    reference: int
    found: int
    predicted: int
    false: int

    @property
    def sensitivity(self) -> float:
        """Share of the lesions that were found, 0 to 1, higher is better; NaN without a lesion."""
        return self.found / self.reference if self.reference else math.nan

    @property
    def precision(self) -> float:
        """Share of the predicted components that are true, 0 to 1, higher is better; NaN without a prediction."""
        return 1 - self.false / self.predicted if self.predicted else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and precision, 0 to 1, higher is better.

        0 if only one of reference and prediction has a lesion, NaN if neither does.
        """
        if not self.reference and not self.predicted:
            return math.nan
        if not self.found:
            return 0.0
        return 2 * self.sensitivity * self.precision / (self.sensitivity + self.precision)


def count_lesions(prediction: Mask, reference: Mask) -> Lesions:
    """Count lesions in two masks of the same shape, (D, H, W).

    Example:
        >>> reference, prediction = np.zeros((2, 1, 1, 9), bool)
        >>> reference[..., [1, 4, 5]] = prediction[..., [5, 8]] = True
        >>> count_lesions(prediction, reference)
        Lesions(reference=2, found=1, predicted=2, false=1)
    """
    from scipy.ndimage import label

    theirs, reference_number = label(reference, _ANY_NEIGHBOUR)
    ours, predicted_number = label(prediction, _ANY_NEIGHBOUR)
    both = prediction & reference
    found, true = len(np.unique(theirs[both])), len(np.unique(ours[both]))
    return Lesions(int(reference_number), found, int(predicted_number), int(predicted_number) - true)
