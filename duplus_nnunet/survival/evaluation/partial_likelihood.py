"""Differentiates Cox's partial likelihood with one covariate, in O(n log n) and without loss of precision."""

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.survival.evaluation.incidence import weigh_at_risk
from duplus_nnunet.survival.records.outcome import Numbers, Outcome


class PartialLikelihood:
    """Partial likelihood of N patients with one covariate; ties by Breslow's method.

    With competing events, it is that of Fine and Gray, whose risk sets are weighted, in O(n^2). The weights are taken
    as known in the residuals: that the censoring distribution is estimated is not counted.

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
        self._at_risk = None if outcome.competing is None else weigh_at_risk(outcome, self.times)

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
        passed, moved = (self._sum_passed(self.had / total * factor) for factor in (np.ones(len(mean)), mean))
        residuals: Numbers = own - weights * (self.x * passed - moved)
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
        if self._at_risk is not None:
            return np.asarray(values @ self._at_risk)
        if self.outcome.entry is None:
            return np.cumsum(values[self._last_first])[self._followed - 1]
        at_risk: Numbers = values @ self.outcome.find_at_risk(self.times)
        return at_risk

    def _sum_passed(self, values: Numbers) -> Numbers:
        """Sum values of the event times at which each patient was at risk, (N)."""
        if self._at_risk is not None:
            return np.asarray(self._at_risk @ values)
        steps = np.concatenate([[0.0], np.cumsum(values)])
        passed = steps[self._find_steps(self.outcome.time)]
        return passed if self.outcome.entry is None else passed - steps[self._find_steps(self.outcome.entry)]

    def _find_steps(self, times: Numbers) -> NDArray[np.int64]:
        return np.searchsorted(self.times, times, side="right")
