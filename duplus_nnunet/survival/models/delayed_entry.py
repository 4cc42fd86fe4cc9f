"""Fits Cox regression to patients with delayed entry (left truncation), which scikit-survival does not support.

A patient is at risk from the entry on. Ties by Breslow's method, with an optional ridge penalty. The fit is a damped
Newton method on a concave function, whose convergence is tested. It predicts as models of scikit-survival do.

Source: Cox 1972; Breslow 1974 (doi 10.2307/2529620); Andersen et al. 1993 (doi 10.1007/978-1-4612-4348-9), chapter VII,
left truncation.
"""

from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.records.outcome import Numbers, Outcome

_MOST_STEPS, _MOST_HALVINGS = 200, 30
# Largest derivative at the maximum, for each event.
_LARGEST_DERIVATIVE = 1e-8


@dataclass(frozen=True)
class DelayedEntryCox:
    """A fitted model.

    Attributes:
        coef_: Log hazard ratio of each covariate, (P).
    """

    coef_: Numbers

    def predict(self, x: Numbers) -> Numbers:
        """Return the linear predictor of N patients, (N); higher is worse."""
        return np.asarray(x @ self.coef_, np.float64)


@dataclass(frozen=True)
class Derivatives:
    """Breslow's log partial likelihood and its derivatives.

    Attributes:
        value: The log partial likelihood, a sum over events.
        score: Its gradient, (P).
        information: Its negative second derivatives, (P, P).
    """

    value: float
    score: Numbers
    information: Numbers


def fit_delayed_entry(x: Numbers, outcome: Outcome, ridge: float = 0.0) -> DelayedEntryCox:
    """Fit Cox regression.

    Args:
        x: Covariates, (N, P).
        outcome: Outcomes of the same patients, with or without entries; competing events count as censored.
        ridge: Half of it, times the sum of squared coefficients, is subtracted from the log partial likelihood.

    Raises:
        ArithmeticError: The fit did not converge.
    """
    centred = x - x.mean(0)
    return DelayedEntryCox(_maximise(centred, outcome, ridge))


def _maximise(x: Numbers, outcome: Outcome, ridge: float) -> Numbers:
    events = max(1, int(outcome.event.sum()))
    coefficients = np.zeros(x.shape[1])
    here = differentiate(coefficients, x, outcome)
    for _ in range(_MOST_STEPS):
        gradient = here.score - ridge * coefficients
        if np.abs(gradient).max(initial=0.0) <= _LARGEST_DERIVATIVE * events:
            return coefficients
        curvature = here.information + ridge * np.eye(len(coefficients))
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        value = here.value - ridge / 2 * float(coefficients @ coefficients)
        for _ in range(_MOST_HALVINGS):
            following = coefficients + step
            there = differentiate(following, x, outcome)
            if there.value - ridge / 2 * float(following @ following) >= value:
                break
            step = step / 2
        coefficients, here = following, there
    raise ArithmeticError(f"Cox regression with delayed entry did not converge in {_MOST_STEPS} steps")


def differentiate(coefficients: Numbers, x: Numbers, outcome: Outcome) -> Derivatives:
    """Differentiate the log partial likelihood of N patients; ties by Breslow's method.

    Args:
        coefficients: Log hazard ratios, (P).
        x: Covariates, (N, P).
        outcome: Outcomes; patients are at risk after their entry.
    """
    logs = x @ coefficients
    logs = logs - logs.max(initial=-np.inf)
    weights = np.exp(logs)
    value, score, information = 0.0, np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
    for time in np.unique(outcome.time[outcome.event]):
        at_risk = outcome.find_at_risk(np.array([time]))[:, 0]
        had = outcome.event & (outcome.time == time)
        count, total = int(had.sum()), float(weights[at_risk].sum())
        share = weights[at_risk] / total
        mean = share @ x[at_risk]
        centred = x[at_risk] - mean
        value += float(logs[had].sum()) - count * float(np.log(total))
        score += x[had].sum(0) - count * mean
        information += count * (centred.T * share) @ centred
    return Derivatives(value, score, information)
