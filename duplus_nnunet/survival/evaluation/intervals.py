"""Computes confidence intervals of scores and of paired differences between methods by patient bootstrap.

The same patients are drawn for all methods and seeds, so that differences are paired.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.reporting.bootstrap import DRAWS, SEED, find_interval
from duplus_nnunet.survival.records.outcome import Numbers

# Direction of each score: whether higher is better. The AUC pools the pairs of all horizons (see metrics.py).
SCORES = {"Harrell's C": True, "Uno's C": True, "pooled AUC": True, "integrated Brier": False, "Brier skill": True}
NULL = "Kaplan-Meier"
_BRIER, _SKILL = "integrated Brier", "Brier skill"

Drawn = Mapping[str, Mapping[str, Numbers]]
Values = dict[str, dict[str, "Value"]]


@dataclass(frozen=True)
class Value:
    """A score, or a difference of scores.

    Attributes:
        value: Mean over seeds; NaN if it is not defined.
        interval: 95 % confidence interval by patient bootstrap, or None.
    """

    value: float
    interval: tuple[float, float] | None


def draw_counts(patients: int) -> Numbers:
    """Return how often each of N patients is in each of B bootstrap samples, (1 + B, N); the first row is all ones."""
    drawn = np.random.default_rng(SEED).multinomial(patients, np.full(patients, 1 / patients), size=DRAWS)
    return np.concatenate([np.ones((1, patients)), drawn.astype(np.float64)])


def average_seeds(rows: Mapping[str, Mapping[str, Sequence[Numbers]]]) -> dict[str, dict[str, Numbers]]:
    """Average scores over seeds in each bootstrap sample; add the Brier skill if Kaplan-Meier is among the methods."""
    means = {name: {score: np.mean(seeds, axis=0) for score, seeds in scores.items()} for name, scores in rows.items()}
    if NULL in means:
        kaplan_meier = means[NULL][_BRIER]
        for scores in means.values():
            scores[_SKILL] = 1 - scores[_BRIER] / np.where(kaplan_meier > 0, kaplan_meier, np.nan)
    return means


def summarise_samples(values: Numbers, patients: int) -> Value:
    """Return the value in all patients, `values[0]`, with its interval from the bootstrap samples, `values[1:]`."""
    value = float(values[0])
    return Value(value, None if math.isnan(value) else find_interval(values[1:], patients))


def conclude(means: Drawn, first: str, patients: int) -> tuple[Values, Values]:
    """Return scores, and differences of the first method minus each other method, with their intervals."""
    scores = {
        name: {score: summarise_samples(values, patients) for score, values in drawn.items()}
        for name, drawn in means.items()
    }
    differences = {
        name: {score: summarise_samples(means[first][score] - values, patients) for score, values in drawn.items()}
        for name, drawn in means.items()
        if name != first
    }
    return scores, differences
