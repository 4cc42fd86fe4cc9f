"""Differentiates Cox's partial likelihood with one covariate, in O(n log n) and without loss of precision.

With competing events it is the weighted partial likelihood of Fine and Gray, in O(n times).
"""

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.survival.evaluation.incidence import weigh_at_risk
from duplus_nnunet.survival.records.outcome import Numbers, Outcome


class PartialLikelihood:
    """Partial likelihood of N patients with one covariate; ties by Breslow's method.

    Args:
        x: Covariate, (N).
        outcome: Outcomes of the same patients.

    Source: Cox 1972; Breslow 1974 (doi 10.2307/2529620); Fine and Gray 1999 (doi 10.1080/01621459.1999.10474144).
    """

    def __init__(self, x: Numbers, outcome: Outcome) -> None:
        self.x = x - x.mean()
        self.outcome = outcome
        self.times, self.had = np.unique(outcome.time[outcome.event], return_counts=True)
        self._last_first = np.argsort(-outcome.time, kind="stable")
        self._followed = np.searchsorted(-outcome.time[self._last_first], -self.times, side="right")
        self._events = self.x[outcome.event].sum()
        # With competing events: who counts how much in each risk set, (N, times).
        self._shares = None if outcome.competing is None else weigh_at_risk(outcome, self.times)

    def differentiate(self, slope: float) -> tuple[float, float]:
        """Return the score and the information at a slope."""
        if not len(self.times):
            return 0.0, 0.0
        _, total, mean = self._average(slope)
        weights = self._weigh(slope)
        square = self._sum_at_risk(weights * self.x**2) / total
        return float(self._events - self.had @ mean), float(self.had @ np.maximum(square - mean**2, 0.0))

    def find_residuals(self, slope: float) -> Numbers:
        """Return the score residual of each patient at a slope, (N); at the estimate, their sum is 0."""
        if not len(self.times):
            return np.zeros(len(self.x))
        weights, total, mean = self._average(slope)
        own = np.zeros(len(self.x))
        place = np.searchsorted(self.times, self.outcome.time[self.outcome.event])
        own[self.outcome.event] = self.x[self.outcome.event] - mean[place]
        if self._shares is not None:
            steps = self.had / total
            residuals: Numbers = own - weights * (self.x * (self._shares @ steps) - self._shares @ (steps * mean))
            return residuals
        hazards, moments = (
            np.concatenate([[0.0], np.cumsum(self.had / total * factor)]) for factor in (np.ones(len(mean)), mean)
        )
        until = self._find_steps(self.outcome.time)
        passed, moved = hazards[until], moments[until]
        if self.outcome.entry is not None:
            since = self._find_steps(self.outcome.entry)
            passed, moved = passed - hazards[since], moved - moments[since]
        residuals = own - weights * (self.x * passed - moved)
        return residuals

    def _weigh(self, slope: float) -> Numbers:
        logs = slope * self.x
        weights: Numbers = np.exp(logs - logs.max())
        return weights

    def _average(self, slope: float) -> tuple[Numbers, Numbers, Numbers]:
        """Return the relative hazard of each patient, and their sum and mean covariate in each risk set."""
        weights = self._weigh(slope)
        total = self._sum_at_risk(weights)
        return weights, total, self._sum_at_risk(weights * self.x) / total

    def _sum_at_risk(self, values: Numbers) -> Numbers:
        """Sum values over the risk set of each event time."""
        if self._shares is not None:
            weighted: Numbers = values @ self._shares
            return weighted
        if self.outcome.entry is None:
            return np.cumsum(values[self._last_first])[self._followed - 1]
        at_risk: Numbers = values @ self.outcome.find_at_risk(self.times)
        return at_risk

    def _find_steps(self, times: Numbers) -> NDArray[np.int64]:
        return np.searchsorted(self.times, times, side="right")
