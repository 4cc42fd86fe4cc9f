"""Computes confidence intervals of cross-validated scores and of paired differences between methods.

Two things vary: which patients are evaluated, and which ones the models are trained on. A bootstrap of the evaluated
patients reflects the first alone, and is too narrow where models have few events for each parameter. The standard error
is therefore the larger one of two: that of the evaluated patients (infinitesimal jackknife), and that of the corrected
resampled t test, from the differences between folds. benchmarks/interval_coverage.py measures their coverage.

Source: Nadeau and Bengio 2003 (doi 10.1023/A:1024068626366), corrected resampled t test; Jaeckel 1972, infinitesimal
jackknife.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from duplus_nnunet.reporting.bootstrap import LEVEL
from duplus_nnunet.survival.evaluation.metrics import Sums, pool
from duplus_nnunet.survival.records.outcome import Numbers

# Direction of each score: whether higher is better. The AUC pools the pairs of all horizons (see metrics.py).
SCORES = {"Harrell's C": True, "Uno's C": True, "pooled AUC": True, "integrated Brier": False, "Brier skill": True}
NULL = "Kaplan-Meier"
# Scored patients with the event from which coverage and type-I error were shown; fewer support no comparison.
LEAST_EVENTS = 30
_LEAST_PATIENTS = 2
METHOD = "corrected resampled t test (Nadeau and Bengio 2003), not narrower than by the sampling of evaluated patients"
METHOD_OF_CENTRES = "sampling of evaluated patients; the models are taken as they are"
_BRIER, _SKILL = "integrated Brier", "Brier skill"
# Concordance and AUC lie between 0 and 1: their intervals are computed on the logit scale.
_SHARES = ("C", "AUC")

Estimates = Mapping[str, Mapping[str, "Estimate"]]
Values = dict[str, dict[str, "Value"]]


@dataclass(frozen=True)
class Value:
    """A score, or a difference of scores.

    Attributes:
        value: Mean over seeds; NaN if it is not defined.
        interval: 95 % confidence interval, or None.
    """

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Estimate:
    """A score with what its standard error is computed from; sums and multiples of estimates are estimates.

    Attributes:
        value: The score; NaN if it is not defined.
        influence: Influence of each patient of the study on it: its change for a small additional weight, (N).
        folds: Influence of each fold, (K) for each seed: the difference of the fold's own score from the score.
        ratio: Number of test patients of a fold for each training patient; 0: models are taken as they are, and only
            the sampling of evaluated patients counts.
    """

    value: float
    influence: Numbers
    folds: tuple[Numbers, ...]
    ratio: float = 0.0

    def combine(self, factor: float, other: "Estimate", other_factor: float, value: float) -> "Estimate":
        """Return an estimate with a value, whose influences are the weighted sums of those of two estimates."""
        folds = zip(self.folds, other.folds, strict=True)
        return Estimate(
            value,
            factor * self.influence + other_factor * other.influence,
            tuple(factor * own + other_factor * others for own, others in folds),
            self.ratio,
        )

    def subtract(self, other: "Estimate") -> "Estimate":
        """Return the paired difference from another estimate, of the same patients and folds."""
        return self.combine(1.0, other, -1.0, self.value - other.value)

    def standard_error(self) -> tuple[float, float]:
        """Return the standard error and the degrees of freedom of its t distribution, which may be infinite."""
        patients = len(self.influence)
        variance = float(np.square(self.influence).sum()) * patients / max(1, patients - 1)
        number = sum(map(len, self.folds))
        freedom = number - len(self.folds)
        if not self.ratio or freedom < 1:
            return math.sqrt(variance), math.inf
        spread = sum(float(np.square(folds - folds.mean()).sum()) for folds in self.folds) / freedom
        return math.sqrt(max(variance, (1 / number + self.ratio) * spread)), float(freedom)

    def summarise(self, is_share: bool = False, least: float = -math.inf) -> Value:
        """Return the value with its 95 % confidence interval.

        Args:
            is_share: Whether the value lies between 0 and 1; the interval is then computed on the logit scale.
            least: Least possible value.
        """
        from scipy.stats import t

        error, freedom = self.standard_error()
        if not math.isfinite(self.value) or len(self.influence) < _LEAST_PATIENTS:
            return Value(self.value, None)
        half = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
        if not is_share:
            return Value(self.value, (max(least, self.value - half), self.value + half))
        if half == 0:
            return Value(self.value, (self.value, self.value))  # equal predictions: chance, whoever is evaluated
        if not 0 < self.value < 1:
            return Value(self.value, None)  # all pairs are concordant, or none: there is no spread to measure
        middle, half = math.log(self.value / (1 - self.value)), half / (self.value * (1 - self.value))
        return Value(self.value, (_expit(middle - half), _expit(middle + half)))


def _expit(logit: float) -> float:
    return 0.5 * (1 + math.tanh(logit / 2))


def estimate_score(folds: Sequence[Sums], rows: Sequence[Sequence[int]], patients: int, ratio: float) -> Estimate:
    """Return a score over all folds of one seed.

    Args:
        folds: Sums of each fold.
        rows: Row of each patient of the folds, among all patients of the study.
        patients: Number of patients of the study.
        ratio: Number of test patients of a fold for each training patient; 0: models are taken as they are.
    """
    value = pool(folds)
    influence, deviations = np.zeros(patients), np.zeros(len(folds))
    bottom = sum(float(fold.bottom.sum()) for fold in folds)
    if math.isnan(value):
        return Estimate(value, influence, (deviations,), ratio)
    for number, (fold, own) in enumerate(zip(folds, rows, strict=True)):
        shares = (fold.top - value * fold.bottom) / bottom
        influence[list(own)] = shares * (2 if fold.of_pairs else 1)
        deviations[number] = shares.sum() * len(folds)
    return Estimate(value, influence, (deviations,), ratio)


def average_estimates(seeds: Sequence[Estimate]) -> Estimate:
    """Average the estimates of all seeds."""
    return replace(
        seeds[0],
        value=float(np.mean([seed.value for seed in seeds])),
        influence=np.mean([seed.influence for seed in seeds], axis=0),
        folds=tuple(folds for seed in seeds for folds in seed.folds),
    )


def average_seeds(rows: Mapping[str, Mapping[str, Sequence[Estimate]]]) -> dict[str, dict[str, Estimate]]:
    """Average scores over seeds; add the Brier skill if Kaplan-Meier is among the methods."""
    means = {
        name: {score: average_estimates(seeds) for score, seeds in scores.items()} for name, scores in rows.items()
    }
    null = means[NULL][_BRIER] if NULL in means else None
    if null is not None:
        for scores in means.values():
            scores[_SKILL] = _estimate_skill(scores[_BRIER], null)
    return means


def _estimate_skill(brier: Estimate, null: Estimate) -> Estimate:
    if not null.value > 0:
        return replace(brier, value=math.nan)
    ratio = brier.value / null.value
    return brier.combine(-1 / null.value, null, ratio / null.value, 1 - ratio)


def summarise_scores(scores: Mapping[str, Estimate]) -> dict[str, Value]:
    """Return the value and interval of each score of a method."""
    return {
        score: estimate.summarise(is_share(score), 0.0 if score == _BRIER else -math.inf)
        for score, estimate in scores.items()
    }


def is_share(score: str) -> bool:
    """Whether a score lies between 0 and 1, with 0.5 for chance: concordance and AUC."""
    return any(word in _SHARES for word in score.split())


def conclude(means: Estimates, first: str) -> tuple[Values, Values]:
    """Return scores, and differences of the first method minus each other method, with their intervals."""
    scores = {name: summarise_scores(estimates) for name, estimates in means.items()}
    differences = {
        name: {score: means[first][score].subtract(estimate).summarise() for score, estimate in estimates.items()}
        for name, estimates in means.items()
        if name != first
    }
    return scores, differences
