"""Fits ICARE (individual coefficient approximation for risk estimation): covariates that differ in their sign alone.

Each covariate is standardised and gets the sign of its own association with the outcome, and the risk is their mean.
Of two strongly correlated covariates one is dropped. Models of bootstrap samples are averaged (bagging); the average is
linear in the covariates. A Cox model of this one risk gives the survival curves.

Source: Rebaud et al. 2023 (doi 10.1007/978-3-031-27420-6_13), the winner of the outcome task of HECKTOR 2022. Written
from its description: icare 0.1.0, the authors' package, does not run with scikit-learn 1.8 and later. Signs are
those of Harrell's concordance, one of the three measures of that package.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duplus_nnunet.survival.records.outcome import Numbers, require_sksurv

_BAGS = 100
# Of covariates that are correlated more closely than this, one is dropped.
_CLOSEST = 0.9
_RIDGE = 0.1
_BLOCK = 256
_SMALLEST = 1e-12


@dataclass
class Icare:
    """Bagged ICARE with the interface of scikit-survival's Cox regression.

    Args:
        seed: Seed of the bootstrap samples and of the choice between correlated covariates.
        bags: Number of bootstrap samples; 0: one model of the patients themselves.
        closest: Largest absolute correlation of two covariates of a model.

    Attributes:
        coef_: Log hazard ratio of each covariate, (P).
    """

    seed: int
    bags: int = _BAGS
    closest: float = _CLOSEST
    coef_: Numbers = field(default_factory=lambda: np.zeros(0))

    def fit(self, x: Numbers, y: Any) -> "Icare":
        """Fit covariates (N, P) and outcomes, scikit-survival's structured array (N)."""
        require_sksurv()
        from sksurv.linear_model import CoxPHSurvivalAnalysis

        rng = np.random.default_rng(self.seed)
        counts = np.ones((1, len(x)))
        if self.bags:
            counts = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), self.bags).astype(np.float64)
        signs = find_signs(x, y, counts)
        weights = [
            self._weigh(x, count, own, rng.permutation(x.shape[1])) for count, own in zip(counts, signs, strict=True)
        ]
        self._weights = np.mean(weights, axis=0)
        self._cox = CoxPHSurvivalAnalysis(alpha=_RIDGE).fit(self._score(x), y)
        self.coef_ = self._weights * self._cox.coef_[0]
        return self

    def _weigh(self, x: Numbers, count: Numbers, signs: Numbers, order: Any) -> Numbers:
        """Return the weights (P) of a model: the signs of standardised covariates, so that its risk has spread 1."""
        mean = count @ x / count.sum()
        spread = np.sqrt(count @ (x - mean) ** 2 / count.sum())
        used = drop_correlated(x - mean, count, order, self.closest) & (signs != 0) & (spread > _SMALLEST)
        weights = np.where(used, signs / np.maximum(spread, _SMALLEST), 0.0) / max(1, int(used.sum()))
        risk = (x - mean) @ weights
        scale = float(np.sqrt(count @ risk**2 / count.sum()))
        scaled: Numbers = weights / scale if scale > _SMALLEST else np.zeros_like(weights)
        return scaled

    def _score(self, x: Numbers) -> Numbers:
        return np.asarray(x @ self._weights, np.float64)[:, None]

    def predict(self, x: Numbers) -> Numbers:
        """Return log relative hazards, (N); higher is worse."""
        return np.asarray(self._cox.predict(self._score(x)), np.float64)


def find_signs(x: Numbers, y: Any, counts: Numbers) -> Numbers:
    """Return the sign of Harrell's concordance less 0.5 of each covariate in each sample, (B, P).

    Args:
        x: Covariates, (N, P).
        y: Outcomes, scikit-survival's structured array (N).
        counts: How often each patient is in each sample, (B, N).
    """
    excess = np.zeros((len(counts), x.shape[1]))
    cases = np.flatnonzero(y["event"])
    for start in range(0, len(cases), _BLOCK):
        rows = cases[start : start + _BLOCK]
        later = y["time"][None, :] > y["time"][rows, None]
        later |= (y["time"][None, :] == y["time"][rows, None]) & ~y["event"][None, :]
        for column in range(x.shape[1]):
            pairs = later * np.sign(x[rows, column][:, None] - x[None, :, column])
            excess[:, column] += ((counts[:, rows] @ pairs) * counts).sum(1)
    return np.sign(excess)


def drop_correlated(centred: Numbers, count: Numbers, order: Any, closest: float) -> Any:
    """Return which covariates are kept, bool (P): none that is closely correlated with one earlier in the order.

    Args:
        centred: Covariates less their means in the sample, (N, P).
        count: How often each patient is in the sample, (N).
        order: Indices of the covariates, (P).
        closest: Largest absolute correlation (Pearson).
    """
    covariance = (centred * count[:, None]).T @ centred
    spread = np.sqrt(np.maximum(np.diag(covariance), _SMALLEST))
    correlated = np.abs(covariance / spread[:, None] / spread[None, :]) > closest
    kept = np.zeros(len(order), bool)
    for column in order:
        kept[column] = not (correlated[column] & kept).any()
    return kept
