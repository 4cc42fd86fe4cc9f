"""Measures the calibration of predicted survival in held-out patients at fixed horizons.

With few patients nothing is smoothed: mean calibration, calibration slope, and groups of patients compared with
Kaplan-Meier.

Source: McLernon et al. 2023 (doi 10.7326/M22-0844), fixed-time calibration of survival models; Kaplan and Meier 1958.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.survival.evaluation.incidence import observe_incidence, observe_with_limits
from duplus_nnunet.survival.evaluation.intervals import Estimate, Value, average_estimates
from duplus_nnunet.survival.evaluation.partial_likelihood import PartialLikelihood
from duplus_nnunet.survival.models.recalibration import NEAREST
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, require_sksurv

_GROUPS, _PATIENTS_A_GROUP = 5, 15
_FLAT, _PRECISION = 1e-9, 1e-10
# Bound of the slope, at which the estimate of one that diverges stays.
STEEPEST = 20.0
_TAIL = 0.025


@dataclass(frozen=True)
class SurvivalCalibration:
    """Calibration of one method at one horizon.

    Attributes:
        horizon: In days.
        excess: Observed minus mean predicted survival; above 0: patients do better than predicted.
        slope: Ideal: 1; below 1: predictions are too extreme, above 1: not extreme enough. NaN if all are the same. A
            value of 20 or -20 is a bound, not an estimate, and has no interval: it diverges in one seed or more.
    """

    horizon: float
    excess: Value
    slope: Value


@dataclass(frozen=True)
class Group:
    """Patients with similar predicted survival at one horizon.

    Attributes:
        patients: Number of patients.
        predicted: Mean predicted survival.
        observed: Survival by Kaplan-Meier; None if no patient was followed that long.
        interval: Its 95 % confidence interval; None if there is none.
    """

    patients: int
    predicted: float
    observed: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class HeldOutSurvival:
    """Outcomes and predicted survival of N held-out patients.

    Attributes:
        outcome: Observed outcomes.
        survival: Predicted event-free probability at each horizon, (N, H).
        fold: Number of the fold in which each patient was held out, (N).
        order: Order of each patient among all of the study's held-out patients, from 0, (N); the same for all seeds.
    """

    outcome: Outcome
    survival: Numbers
    fold: Numbers
    order: NDArray[np.int64]


def measure_excess(held_out: HeldOutSurvival, index: int, horizon: float) -> tuple[float, Numbers]:
    """Return observed minus mean predicted survival; above 0: patients do better than predicted.

    Args:
        held_out: N held-out patients.
        index: Index of the horizon in the predicted survival.
        horizon: In days.

    Returns:
        The difference, and the influence of each patient on it, (N).
    """
    predicted = held_out.survival[:, index]
    observed, influence = observe_survival(held_out.outcome, horizon)
    return observed - float(predicted.mean()), influence - (predicted - predicted.mean()) / len(predicted)


def observe_survival(outcome: Outcome, horizon: float) -> tuple[float, Numbers]:
    """Return Kaplan-Meier survival at a horizon (days), and the influence of each of N patients on it, (N).

    With competing events: the probability of being free of the event, 1 - cumulative incidence.
    """
    if outcome.competing is not None:
        incidence, moved = observe_incidence(outcome, horizon)
        return 1 - incidence, -moved
    times, had = np.unique(outcome.time[outcome.event & (outcome.time <= horizon)], return_counts=True)
    at_risk = _count_at_risk(outcome, times)
    survival = float(np.prod(1 - had / at_risk))
    if survival == 0:
        return survival, np.zeros(len(outcome))
    own = np.zeros(len(outcome))
    rows = np.flatnonzero(outcome.event & (outcome.time <= horizon))
    place = np.searchsorted(times, outcome.time[rows])
    own[rows] = 1 / (at_risk - had)[place]
    hazards = np.concatenate([[0.0], np.cumsum(had / (at_risk * (at_risk - had)))])
    passed = hazards[np.searchsorted(times, outcome.time, side="right")]
    if outcome.entry is not None:
        passed = passed - hazards[np.searchsorted(times, outcome.entry, side="right")]
    return survival, survival * (passed - own)


def _count_at_risk(outcome: Outcome, times: Numbers) -> Numbers:
    """Return the size of the risk set just before each time (days), as floats."""
    followed = len(outcome) - np.searchsorted(np.sort(outcome.time), times, side="left")
    if outcome.entry is None:
        return followed.astype(np.float64)
    late = len(outcome) - np.searchsorted(np.sort(outcome.entry), times, side="left")
    return (followed - late).astype(np.float64)


def measure_slope(held_out: HeldOutSurvival, index: int, horizon: float) -> tuple[float, Numbers]:
    """Return the calibration slope, and the influence of each patient on it, (N).

    The slope is the coefficient of log(-log S) in a Cox model of the follow-up until the horizon, stratified by fold so
    that predictions of different models are not compared; with competing events, in a Fine-Gray model. Ties by
    Breslow's method. It is the root of the score, which never increases, between -20 and 20. A slope outside of these
    bounds is at the bound: it diverges where predictions order the patients perfectly. It is NaN where predictions do
    not differ between patients at risk.

    Args:
        held_out: N held-out patients.
        index: Index of the horizon in the predicted survival.
        horizon: In days.

    Source of the influence: Lin and Wei 1989 (doi 10.1080/01621459.1989.10478874), score residuals.
    """
    from scipy.optimize import brentq

    outcome = _end_at(held_out.outcome, horizon)
    x = np.log(-np.log(np.clip(held_out.survival[:, index], NEAREST, 1 - NEAREST)))
    rows = [np.flatnonzero(held_out.fold == number) for number in np.unique(held_out.fold)]
    strata = [PartialLikelihood(x[own], outcome.take(own)) for own in rows]
    influence = np.zeros(len(x))
    if sum(stratum.differentiate(0.0)[1] for stratum in strata) <= _FLAT:
        return math.nan, influence

    def score(slope: float) -> float:
        return sum(stratum.differentiate(slope)[0] for stratum in strata)

    for bound in (STEEPEST, -STEEPEST):
        if score(bound) * bound >= 0:
            return bound, influence
    slope = float(brentq(score, -STEEPEST, STEEPEST, xtol=_PRECISION))
    information = sum(stratum.differentiate(slope)[1] for stratum in strata)
    for own, stratum in zip(rows, strata, strict=True):
        influence[own] = stratum.find_residuals(slope) / information
    return slope, influence


def _end_at(outcome: Outcome, horizon: float) -> Outcome:
    """Return outcomes whose follow-up ends at a horizon (days)."""
    early = outcome.time <= horizon
    competing = None if outcome.competing is None else outcome.competing & early
    return Outcome(outcome.event & early, np.minimum(outcome.time, horizon), outcome.entry, competing)


def calibrate(
    held_out: Sequence[HeldOutSurvival], horizons: Sequence[float], ratio: float
) -> tuple[SurvivalCalibration, ...]:
    """Measure the calibration of one method, averaged over seeds.

    Args:
        held_out: Held-out patients of each seed.
        horizons: In days.
        ratio: Number of held-out patients of a fold for each of its training patients.
    """
    measured = []
    for index, horizon in enumerate(horizons):
        excess, slope = (
            [_estimate(seed, *measure(seed, index, horizon), ratio) for seed in held_out]
            for measure in (measure_excess, measure_slope)
        )
        value = average_slopes([seed.value for seed in slope])
        interval = None if abs(value) >= STEEPEST else average_estimates(slope).summarise().interval
        measured.append(SurvivalCalibration(horizon, average_estimates(excess).summarise(), Value(value, interval)))
    return tuple(measured)


def _estimate(held_out: HeldOutSurvival, value: float, influence: Numbers, ratio: float) -> Estimate:
    """Return an estimate of one seed; the influence of a fold is that of its patients, times the number of folds."""
    numbers = np.unique(held_out.fold)
    folds = np.array([influence[held_out.fold == number].sum() * len(numbers) for number in numbers])
    own = np.zeros(len(influence))
    own[held_out.order] = influence
    return Estimate(value, own, (folds,), ratio)


def average_slopes(slopes: Sequence[float]) -> float:
    """Average slopes over seeds; one that is at its bound keeps the mean there, and bounds of both signs give NaN."""
    low, high = (any(sign * slope >= STEEPEST for slope in slopes) for sign in (-1, 1))
    if low and high:
        return math.nan
    return STEEPEST if high else -STEEPEST if low else float(np.mean(slopes))


def group(held_out: HeldOutSurvival, index: int, horizon: float) -> tuple[Group, ...]:
    """Group patients by predicted survival at a horizon, lowest first, into groups of equal size."""
    predicted = held_out.survival[:, index]
    count = int(np.clip(len(predicted) // _PATIENTS_A_GROUP, 2, _GROUPS))
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, count + 1)[1:-1]))
    numbers = np.searchsorted(edges, predicted, side="left")
    groups = []
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        observed, interval = observe_with_interval(held_out.outcome.take(rows), horizon)
        groups.append(Group(len(rows), float(predicted[rows].mean()), observed, interval))
    return tuple(groups)


def observe_with_interval(outcome: Outcome, horizon: float) -> tuple[float | None, tuple[float, float] | None]:
    """Return Kaplan-Meier survival at a horizon (days) with its 95 % confidence interval (log-log).

    With competing events: the probability of being free of the event, 1 - cumulative incidence.

    If all or none had the event, the interval is the exact one for as many patients as had the event or were followed
    that long. Both are None if no patient was followed that long, unless the last one followed had the event.
    """
    if outcome.competing is not None:
        return observe_with_limits(outcome, horizon)
    require_sksurv()
    from sksurv.nonparametric import kaplan_meier_estimator

    times, survival, bounds = kaplan_meier_estimator(outcome.event, outcome.time, outcome.entry, conf_type="log-log")
    last = int(np.searchsorted(times, horizon, side="right")) - 1
    value = float(survival[last]) if last >= 0 else 1.0
    followed = int(outcome.find_at_risk(np.array([horizon])).sum())
    if followed == 0 and value > 0:
        return None, None
    if 0 < value < 1:
        return value, (float(bounds[0][last]), float(bounds[1][last]))
    edge = math.pow(_TAIL, 1 / max(1, followed if value == 1 else int(outcome.event.sum())))
    return value, (edge, 1.0) if value == 1 else (0.0, 1 - edge)
