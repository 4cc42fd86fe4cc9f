"""Are survival probabilities right? In come those of held-out patients at a horizon, out comes what was observed.

Patients are few, so nothing is smoothed: a mean over all patients, a slope, and groups of patients beside Kaplan-Meier.

Source: McLernon et al. 2023 (doi 10.7326/M22-0844), fixed-time calibration of survival models; Kaplan and Meier 1958.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.evaluation.intervals import Value, describe
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, require_sksurv

_GROUPS, _PATIENTS_A_GROUP = 5, 15
# Probabilities nearer to 0 and 1 count as these, or one patient foretold to be safe would make the whole slope.
_NEAREST = 0.001
_STEPS, _LONGEST_STEP, _STEEPEST = 25, 2.0, 20.0
_TAIL = 0.025


@dataclass(frozen=True)
class SurvivalCalibration:
    """Calibration of one method at one horizon.

    Attributes:
        horizon: In days.
        excess: Observed survival less mean predicted survival; above 0: patients do better than foretold.
        slope: 1 is right; below 1: predictions are too extreme, above 1: too much alike. NaN if all are the same.
    """

    horizon: float
    excess: Value
    slope: Value


@dataclass(frozen=True)
class Group:
    """Patients of similar predicted survival, at one horizon.

    Attributes:
        patients: How many.
        predicted: Mean predicted survival.
        observed: Survival by Kaplan-Meier; None if nobody was followed that long.
        interval: Its 95 % interval; None without it.
    """

    patients: int
    predicted: float
    observed: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class HeldOutSurvival:
    """What was foretold of N held-out patients.

    Attributes:
        outcome: What became of them.
        survival: Probability to be free of the event at each horizon, (N, H).
        fold: Number of the fold of each, (N).
    """

    outcome: Outcome
    survival: Numbers
    fold: Numbers


def measure_excess(found: HeldOutSurvival, place: int, horizon: float, counts: Numbers) -> Numbers:
    """Return observed less mean predicted survival in each draw, counts (B, N)."""
    drawn = counts.sum(1)
    predicted = np.divide(counts @ found.survival[:, place], drawn, out=np.full(len(counts), np.nan), where=drawn > 0)
    excess: Numbers = observed_survival(found.outcome, horizon, counts) - predicted
    return excess


def observed_survival(outcome: Outcome, horizon: float, counts: Numbers) -> Numbers:
    """Return Kaplan-Meier's survival at a horizon in each draw, counts (B, N)."""
    times = np.unique(outcome.time[outcome.event & (outcome.time <= horizon)])
    at_risk = counts @ outcome.find_at_risk(times).astype(np.float64)
    had = counts @ (outcome.event[:, None] & (outcome.time[:, None] == times[None, :])).astype(np.float64)
    share = np.divide(had, at_risk, out=np.zeros_like(had), where=at_risk > 0)
    survival: Numbers = np.prod(1 - share, axis=1)
    return survival


def measure_slope(found: HeldOutSurvival, place: int, horizon: float, counts: Numbers) -> Numbers:
    """Return the slope of calibration in each draw, counts (B, N); NaN where predictions do not differ.

    It is the coefficient of log(-log S) in a Cox model of follow-up until the horizon. Folds are strata, so that models
    of different folds are not compared with each other; where it has no limit, it ends at 20.
    """
    event = found.outcome.event & (found.outcome.time <= horizon)
    outcome = Outcome(event, np.minimum(found.outcome.time, horizon), found.outcome.entry)
    x = np.log(-np.log(np.clip(found.survival[:, place], _NEAREST, 1 - _NEAREST)))
    strata = [np.flatnonzero(found.fold == number) for number in np.unique(found.fold)]
    parts = [(x[rows] - x[rows].mean(), outcome.take(rows), counts[:, rows]) for rows in strata]
    slope = np.ones(len(counts))
    settled = np.zeros(len(counts), bool)
    for _ in range(_STEPS):
        sums = [_differentiate(slope, *part) for part in parts]
        gradient, information = (np.sum([one[place] for one in sums], axis=0) for place in (0, 1))
        settled = information > 1e-9
        step = np.divide(gradient, information, out=np.zeros_like(gradient), where=settled)
        slope = np.clip(slope + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP), -_STEEPEST, _STEEPEST)
        if np.abs(step).max() < 1e-6:
            break
    # Where the information vanished on the way to the limit, the slope has none; where it never was any, there is none.
    flat = np.sum([_differentiate(np.ones(len(counts)), *part)[1] for part in parts], axis=0) <= 1e-9
    return np.where(flat, np.nan, np.where(settled, slope, np.sign(slope) * _STEEPEST))


def _differentiate(slope: Numbers, x: Numbers, outcome: Outcome, counts: Numbers) -> tuple[Numbers, Numbers]:
    """Differentiate Breslow's partial likelihood of one fold, in each draw: gradient and information, (B)."""
    rows = np.flatnonzero(outcome.event)
    at_risk = outcome.find_at_risk(outcome.time[rows]).astype(np.float64)
    weights = counts * np.exp(slope[:, None] * x[None, :])
    below, first, second = (weights * factor @ at_risk for factor in (1.0, x, x**2))
    known = below > 0
    mean = np.divide(first, below, out=np.zeros_like(first), where=known)
    square = np.divide(second, below, out=np.zeros_like(second), where=known)
    events = counts[:, rows]
    return (events * (x[rows] - mean)).sum(1), (events * (square - mean**2)).sum(1)


def calibrate(
    found: Sequence[HeldOutSurvival], horizons: Numbers, counts: Sequence[Numbers]
) -> tuple[SurvivalCalibration, ...]:
    """Measure the calibration of one method, as a mean over seeds.

    Args:
        found: One a seed.
        horizons: In days.
        counts: How often each of these patients was drawn, (1 + B, N) a seed; first everybody once.
    """
    measured = []
    for place, horizon in enumerate(map(float, horizons)):
        values = (
            describe(
                np.mean([measure(one, place, horizon, drawn) for one, drawn in zip(found, counts, strict=True)], 0),
                len(found[0].outcome),
            )
            for measure in (measure_excess, measure_slope)
        )
        measured.append(SurvivalCalibration(horizon, *values))
    return tuple(measured)


def group(found: HeldOutSurvival, place: int, horizon: float) -> tuple[Group, ...]:
    """Group patients by predicted survival at a horizon, lowest first, into groups as large as each other."""
    predicted = found.survival[:, place]
    count = int(np.clip(len(predicted) // _PATIENTS_A_GROUP, 2, _GROUPS))
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, count + 1)[1:-1]))
    numbers = np.searchsorted(edges, predicted, side="left")
    groups = []
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        observed, interval = observe_with_interval(found.outcome.take(rows), horizon)
        groups.append(Group(len(rows), float(predicted[rows].mean()), observed, interval))
    return tuple(groups)


def observe_with_interval(outcome: Outcome, horizon: float) -> tuple[float | None, tuple[float, float] | None]:
    """Return Kaplan-Meier's survival at a horizon with its 95 % interval (log-log).

    If all or none had the event, the interval is the exact one of as many patients as were followed that long or had
    the event. Nothing is returned if nobody was followed that long, unless the last one had the event.
    """
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
