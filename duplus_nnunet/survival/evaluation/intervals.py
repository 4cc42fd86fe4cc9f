"""Scores with intervals: in come scores in every draw of patients, out come values, and differences between methods.

A patient that is drawn enters all methods and seeds at once, so that differences are paired.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.reporting.bootstrap import DRAWS, SEED, find_interval
from duplus_nnunet.survival.records.outcome import Numbers

# Direction of each score: whether higher is better. The AUC is of the pairs of all horizons together (see scores.py).
SCORES = {"Harrell's C": True, "Uno's C": True, "pooled AUC": True, "integrated Brier": False, "Brier skill": True}
NULL = "Kaplan-Meier"
_BRIER, _SKILL = "integrated Brier", "Brier skill"

Drawn = Mapping[str, Mapping[str, Numbers]]
Values = dict[str, dict[str, "Value"]]


@dataclass(frozen=True)
class Value:
    """A score, or a difference of scores.

    Attributes:
        value: Mean over seeds; NaN if there was nothing to compare.
        interval: 95 % interval by patient bootstrap, or None.
    """

    value: float
    interval: tuple[float, float] | None


def draw_counts(patients: int) -> Numbers:
    """Count patients that are drawn with replacement, (1 + B, N); first everybody once."""
    drawn = np.random.default_rng(SEED).multinomial(patients, np.full(patients, 1 / patients), size=DRAWS)
    return np.concatenate([np.ones((1, patients)), drawn.astype(np.float64)])


def average_seeds(rows: Mapping[str, Mapping[str, Sequence[Numbers]]]) -> dict[str, dict[str, Numbers]]:
    """Average over seeds in each draw; beside Kaplan-Meier's Brier score, that of others has a skill."""
    means = {name: {score: np.mean(seeds, axis=0) for score, seeds in found.items()} for name, found in rows.items()}
    if NULL in means:
        null = means[NULL][_BRIER]
        for found in means.values():
            found[_SKILL] = 1 - found[_BRIER] / np.where(null > 0, null, np.nan)
    return means


def describe(values: Numbers, patients: int) -> Value:
    """Describe what was found in each draw, first in everybody."""
    value = float(values[0])
    return Value(value, None if math.isnan(value) else find_interval(values[1:], patients))


def conclude(means: Drawn, first: str, patients: int) -> tuple[Values, Values]:
    """Find intervals of scores, and of the first method's scores less each other one's."""
    scores = {
        name: {score: describe(values, patients) for score, values in found.items()} for name, found in means.items()
    }
    differences = {
        name: {score: describe(means[first][score] - values, patients) for score, values in found.items()}
        for name, found in means.items()
        if name != first
    }
    return scores, differences
