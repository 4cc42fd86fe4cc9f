"""Tests paired differences, and corrects for the number of tests."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")


def compute_p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the Wilcoxon signed-rank test that differences lie symmetrically around 0.

    Differences of 0 are left out, as Wilcoxon did. The p-value is exact for up to 50 differences without ties.

    Args:
        differences: One for each patient, in any unit.

    Returns:
        0 to 1; 1 if all differences are 0, NaN if there is none.
    """
    from scipy.stats import wilcoxon

    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return math.nan
    # Differences of scores that are equal on paper differ in the last bits, which would break ties and zeros.
    values = np.round(values, 12)
    return 1.0 if not values.any() else float(wilcoxon(values).pvalue)


def correct_holm(values: Mapping[Key, float]) -> dict[Key, float]:
    """Correct p-values for their number by Holm's step-down method, which controls the family-wise error rate.

    Args:
        values: P-values; NaN is kept and not counted.

    Returns:
        Corrected p-values, 0 to 1, by the same keys.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.

    Example:
        >>> correct_holm({"liver": 0.01, "spleen": 0.03, "aorta": 0.04})
        {'liver': 0.03, 'spleen': 0.06, 'aorta': 0.06}
    """
    known = sorted((value, index, key) for index, (key, value) in enumerate(values.items()) if not math.isnan(value))
    corrected, largest = dict(values), 0.0
    for place, (value, _, key) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - place)))
        corrected[key] = largest
    return corrected
