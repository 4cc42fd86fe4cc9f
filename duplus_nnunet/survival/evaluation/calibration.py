"""Measures the calibration of predicted survival in held-out patients at fixed horizons.

With few patients nothing is smoothed: mean calibration, calibration slope, and groups of patients compared with
Kaplan-Meier.

Source: McLernon et al. 2023 (doi 10.7326/M22-0844), fixed-time calibration of survival models; Kaplan and Meier 1958.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.evaluation.incidence import observe_incidence, observe_with_limits, weigh_at_risk
from duplus_nnunet.survival.evaluation.intervals import Value, summarise_samples
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, require_sksurv

_GROUPS, _PATIENTS_A_GROUP = 5, 15
# Probabilities are clipped to this distance from 0 and 1; one certain prediction would dominate the slope otherwise.
_NEAREST = 0.001
_STEPS, _LONGEST_STEP = 25, 2.0
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
            value, or an end of the interval, of 20 or -20 is a bound, not an estimate: it diverges in one seed or more.
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
    """

    outcome: Outcome
    survival: Numbers
    fold: Numbers


def measure_excess(held_out: HeldOutSurvival, index: int, horizon: float, counts: Numbers) -> Numbers:
    """Return observed minus mean predicted survival in each bootstrap sample.

    Args:
        held_out: N held-out patients.
        index: Index of the horizon in the predicted survival.
        horizon: In days.
        counts: How often each patient is in each sample, (B, N).

    Returns:
        The differences, (B); above 0: patients do better than predicted.
    """
    drawn = counts.sum(1)
    predicted = np.divide(
        counts @ held_out.survival[:, index], drawn, out=np.full(len(counts), np.nan), where=drawn > 0
    )
    excess: Numbers = observed_survival(held_out.outcome, horizon, counts) - predicted
    return excess


def observed_survival(outcome: Outcome, horizon: float, counts: Numbers) -> Numbers:
    """Return Kaplan-Meier survival at a horizon (days) in each bootstrap sample, of counts (B, N).

    With competing events: 1 - cumulative incidence, in a bootstrap sample by the influence of its patients.
    """
    if outcome.competing is not None:
        incidence, influence = observe_incidence(outcome, horizon)
        return np.clip(1 - incidence - (counts - 1) @ influence, 0, 1)
    times = np.unique(outcome.time[outcome.event & (outcome.time <= horizon)])
    at_risk = counts @ outcome.find_at_risk(times).astype(np.float64)
    had = counts @ (outcome.event[:, None] & (outcome.time[:, None] == times[None, :])).astype(np.float64)
    share = np.divide(had, at_risk, out=np.zeros_like(had), where=at_risk > 0)
    survival: Numbers = np.prod(1 - share, axis=1)
    return survival


def measure_slope(held_out: HeldOutSurvival, index: int, horizon: float, counts: Numbers) -> Numbers:
    """Return the calibration slope in each bootstrap sample, (B); NaN where predictions do not differ.

    The slope is the coefficient of log(-log S) in a Cox model of the follow-up until the horizon, stratified by fold so
    that predictions of different models are not compared; with competing events, in a Fine-Gray model. A slope that
    diverges stays at its bound, 20 or -20.

    Args:
        held_out: N held-out patients.
        index: Index of the horizon in the predicted survival.
        horizon: In days.
        counts: How often each patient is in each sample, (B, N).
    """
    outcome = _end_at(held_out.outcome, horizon)
    x = np.log(-np.log(np.clip(held_out.survival[:, index], _NEAREST, 1 - _NEAREST)))
    strata = [np.flatnonzero(held_out.fold == number) for number in np.unique(held_out.fold)]
    parts = [(x[rows] - x[rows].mean(), outcome.take(rows), counts[:, rows]) for rows in strata]
    slope = np.ones(len(counts))
    settled = np.zeros(len(counts), bool)
    for _ in range(_STEPS):
        sums = [_differentiate(slope, *part) for part in parts]
        gradient, information = (np.sum([pair[order] for pair in sums], axis=0) for order in (0, 1))
        settled = information > 1e-9
        step = np.divide(gradient, information, out=np.zeros_like(gradient), where=settled)
        slope = np.clip(slope + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP), -STEEPEST, STEEPEST)
        if np.abs(step).max() < 1e-6:
            break
    # Information that vanishes during the iterations: the slope diverges. No information at slope 1: it is not defined.
    flat = np.sum([_differentiate(np.ones(len(counts)), *part)[1] for part in parts], axis=0) <= 1e-9
    return np.where(flat, np.nan, np.where(settled, slope, np.sign(slope) * STEEPEST))


def _end_at(outcome: Outcome, horizon: float) -> Outcome:
    """Return outcomes whose follow-up ends at a horizon (days)."""
    early = outcome.time <= horizon
    competing = None if outcome.competing is None else outcome.competing & early
    return Outcome(outcome.event & early, np.minimum(outcome.time, horizon), outcome.entry, competing)


def _differentiate(slope: Numbers, x: Numbers, outcome: Outcome, counts: Numbers) -> tuple[Numbers, Numbers]:
    """Return gradient and information (B) of Breslow's partial log-likelihood of one fold in each bootstrap sample."""
    rows = np.flatnonzero(outcome.event)
    at_risk = weigh_at_risk(outcome, outcome.time[rows])
    weights = counts * np.exp(slope[:, None] * x[None, :])
    total, first, second = (weights * factor @ at_risk for factor in (1.0, x, x**2))
    known = total > 0
    mean = np.divide(first, total, out=np.zeros_like(first), where=known)
    square = np.divide(second, total, out=np.zeros_like(second), where=known)
    events = counts[:, rows]
    return (events * (x[rows] - mean)).sum(1), (events * (square - mean**2)).sum(1)


def calibrate(
    held_out: Sequence[HeldOutSurvival], horizons: Numbers, counts: Sequence[Numbers]
) -> tuple[SurvivalCalibration, ...]:
    """Measure the calibration of one method, averaged over seeds.

    Args:
        held_out: Held-out patients of each seed.
        horizons: In days.
        counts: How often each patient is in each bootstrap sample, (1 + B, N) for each seed; the first row is all ones.
    """
    measured = []
    for index, horizon in enumerate(map(float, horizons)):
        values = []
        for measure, average in ((measure_excess, np.mean), (measure_slope, _average_slopes)):
            seeds = [measure(seed, index, horizon, drawn) for seed, drawn in zip(held_out, counts, strict=True)]
            values.append(summarise_samples(average(seeds, 0), len(held_out[0].outcome)))
        measured.append(SurvivalCalibration(horizon, *values))
    return tuple(measured)


def _average_slopes(slopes: Sequence[Numbers], axis: int) -> Numbers:
    """Average slopes over seeds; one that is at its bound keeps the mean there, and bounds of both signs give NaN."""
    stacked = np.stack(slopes)
    bounds = np.where(np.abs(stacked) >= STEEPEST, np.sign(stacked), 0.0)
    low, high = (bounds < 0).any(axis), (bounds > 0).any(axis)
    mean = np.where(high, STEEPEST, np.where(low, -STEEPEST, stacked.mean(axis)))
    return np.where(low & high, np.nan, mean)


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
