"""Measures the net benefit of acting on predictions at a horizon: decision curves.

The net benefit at a threshold is the share of patients who are rightly treated, less the share who are treated in vain,
weighted by the odds of the threshold: who would treat at a risk of 10 % accepts 9 treatments in vain for one right one.

Source: Vickers and Elkin 2006 (doi 10.1177/0272989X06295361); Vickers et al. 2008 (doi 10.1186/1472-6947-8-53),
censored data and competing events.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.evaluation.calibration import HeldOutSurvival
from duplus_nnunet.survival.models.competing_hazard import estimate_at
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

THRESHOLDS = tuple(step / 100 for step in range(1, 100, 2))


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of one method at one horizon, mean over seeds; higher is better, treating none is 0.

    Attributes:
        method: Name of the method.
        horizon: In days.
        thresholds: Predicted risks from which on a patient is treated, ascending, (T).
        net_benefit: Net benefit of treating patients at or above each threshold, (T); NaN: those patients were not
            followed until the horizon.
        treat_all: Net benefit of treating all patients, (T).
    """

    method: str
    horizon: float
    thresholds: Numbers
    net_benefit: Numbers
    treat_all: Numbers


def measure_decision_curves(
    held_out: Mapping[str, Sequence[HeldOutSurvival]],
    horizons: Sequence[float],
    thresholds: Sequence[float] = THRESHOLDS,
) -> tuple[DecisionCurve, ...]:
    """Measure the decision curve of each method at each horizon.

    Args:
        held_out: Held-out patients of each seed, by method.
        horizons: In days.
        thresholds: Between 0 and 1, ascending, (T).
    """
    levels = np.array(thresholds, np.float64)
    curves = []
    for method, seeds in held_out.items():
        for index, horizon in enumerate(map(float, horizons)):
            pairs = [
                (
                    measure_net_benefit(seed.outcome, 1 - seed.survival[:, index], horizon, levels),
                    measure_net_benefit(seed.outcome, np.ones(len(seed.outcome)), horizon, levels),
                )
                for seed in seeds
            ]
            benefit, treat_all = (np.mean([pair[part] for pair in pairs], axis=0) for part in (0, 1))
            curves.append(DecisionCurve(method, horizon, levels, benefit, treat_all))
    return tuple(curves)


def measure_net_benefit(outcome: Outcome, risk: Numbers, horizon: float, thresholds: Numbers) -> Numbers:
    """Return the net benefit of treating patients whose predicted risk is at or above each threshold, (T).

    Args:
        outcome: Outcomes of N patients.
        risk: Predicted probability of the event until the horizon, (N).
        horizon: In days.
        thresholds: Between 0 and 1, (T).
    """
    benefits = []
    for threshold in thresholds:
        treated = np.flatnonzero(risk >= threshold)
        incidence = _find_incidence(outcome.take(treated), horizon) if len(treated) else 0.0
        odds = threshold / (1 - threshold)
        benefits.append(len(treated) / len(outcome) * (incidence - (1 - incidence) * odds))
    return np.array(benefits)


def _find_incidence(outcome: Outcome, horizon: float) -> float:
    """Return the cumulative incidence at a horizon; NaN if no patient was followed that long and not all had ended."""
    if outcome.time.max() < horizon and not outcome.ended[outcome.time == outcome.time.max()].all():
        return math.nan
    return float(estimate_at(outcome, np.array([horizon]))[0])
