"""Fits a smooth calibration curve at a horizon: observed risk as a function of predicted risk.

A Cox model of the follow-up until the horizon has a restricted cubic spline of log(-log predicted survival) with three
knots as its covariates. Its predicted risk is the observed risk of patients with that prediction.

Source: Austin, Harrell and van Klaveren 2020 (doi 10.1002/sim.8570); Harrell 2015, Regression Modeling Strategies.
"""

from dataclasses import dataclass

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.hazard_ratios import fit_cox
from duplus_nnunet.survival.models.breslow import fit_log_baseline
from duplus_nnunet.survival.models.recalibration import NEAREST
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

_KNOTS = (0.1, 0.5, 0.9)
# Ten events for each of the two terms. Source: Peduzzi et al. 1995 (doi 10.1016/0895-4356(95)00048-8).
LEAST_EVENTS = 20


@dataclass(frozen=True)
class CalibrationCurve:
    """Observed and predicted survival at one horizon.

    Attributes:
        predicted: Predicted survival of the patients, ascending, (N).
        observed: Smoothed observed survival of patients with that prediction, (N).
        index: Mean absolute difference of both over patients (integrated calibration index); 0 is perfect.
        median: Median absolute difference (E50).
        worst_tenth: 90th percentile of the absolute difference (E90).
    """

    predicted: Numbers
    observed: Numbers
    index: float
    median: float
    worst_tenth: float


def fit_calibration_curve(outcome: Outcome, predicted: Numbers, horizon: float) -> CalibrationCurve | None:
    """Fit a curve.

    It is None with fewer than 20 events by the horizon, competing events, delayed entry, or equal predictions.

    Args:
        outcome: Outcomes of N patients.
        predicted: Predicted survival at the horizon, (N).
        horizon: In days.
    """
    until = Outcome(outcome.event & (outcome.time <= horizon), np.minimum(outcome.time, horizon))
    if outcome.competing is not None or outcome.entry is not None or int(until.event.sum()) < LEAST_EVENTS:
        return None
    basis = _make_spline(np.log(-np.log(np.clip(predicted, NEAREST, 1 - NEAREST))))
    try:
        coefficients, _ = fit_cox(basis, until)
    except DataError:  # predictions hardly differ, or the model does not converge
        return None
    logs = basis @ coefficients
    with np.errstate(over="ignore"):
        observed = np.exp(-np.exp(fit_log_baseline(logs, until)[1][-1] + logs))
    order, gaps = np.argsort(predicted), np.abs(observed - predicted)
    summary = (float(gaps.mean()), float(np.median(gaps)), float(np.quantile(gaps, _KNOTS[-1])))
    return CalibrationCurve(predicted[order], observed[order], *summary)


def _make_spline(x: Numbers) -> Numbers:
    """Return the terms of a restricted cubic spline with three knots, linear beyond them, (N, 2)."""
    low, middle, high = np.quantile(x, _KNOTS)
    if not low < middle < high:
        return x[:, None]

    def cube(values: Numbers) -> Numbers:
        return np.asarray(np.maximum(values, 0.0) ** 3)

    bent = cube(x - low) - cube(x - middle) * (high - low) / (high - middle)
    bent += cube(x - high) * (middle - low) / (high - middle)
    return np.stack([x, bent / (high - low) ** 2], axis=1)
