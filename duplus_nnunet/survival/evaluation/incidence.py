"""Estimates the cumulative incidence of an event beside competing events (Aalen-Johansen).

1 - Kaplan-Meier, with competing events as censored, is the incidence in a world without them, and too high in this one.
Without competing events, both are the same.

Source: Aalen and Johansen 1978, Scandinavian Journal of Statistics 5(3); Gray 1988 (doi 10.1214/aos/1176350951);
Geskus 2011 (doi 10.1111/j.1541-0420.2010.01420.x), weighted risk sets.
"""

import math
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.evaluation.censoring import estimate_censoring
from duplus_nnunet.survival.models.competing_hazard import Jumps, find_jumps
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

_NORMAL = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
_TAIL = 0.025


@dataclass(frozen=True)
class Incidence:
    """Cumulative incidence of the event.

    Attributes:
        times: Distinct times of events and competing events in days, ascending, (T).
        values: Cumulative incidence from each of them on, 0 to 1, (T).
        low: Lower limit of its 95 % confidence interval (log-log), (T).
        high: Upper limit, (T).
    """

    times: Numbers
    values: Numbers
    low: Numbers
    high: Numbers

    def at(self, times: Numbers) -> Numbers:
        """Return the cumulative incidence at each time (days), of the same shape."""
        steps = np.concatenate([[0.0], self.values])
        return steps[np.searchsorted(self.times, times, side="right")]


def estimate_incidence(outcome: Outcome) -> Incidence:
    """Estimate the cumulative incidence of N patients, with pointwise confidence intervals.

    Patients who came under observation late (delayed entry) are at risk from then on. The variance is the sum of the
    patients' squared influences. Where all patients at risk had an event, the interval is that before.
    """
    jumps = find_jumps(outcome)
    values = jumps.values
    deviations = np.array([math.sqrt((_find_influence(outcome, jumps, time) ** 2).sum()) for time in jumps.times])
    low, high = _find_limits(values, deviations)
    return Incidence(jumps.times, values, low, high)


def observe_incidence(outcome: Outcome, horizon: float) -> tuple[float, Numbers]:
    """Return the cumulative incidence at a horizon (days), and the influence of each of N patients on it, (N).

    The influence is the derivative of the estimate with respect to the patient's weight (infinitesimal jackknife). The
    sum of the squares is the variance.
    """
    jumps = find_jumps(outcome)
    reached = jumps.times <= horizon
    value = float(jumps.values[reached][-1]) if reached.any() else 0.0
    return value, _find_influence(outcome, jumps, horizon)


def observe_with_limits(outcome: Outcome, horizon: float) -> tuple[float | None, tuple[float, float] | None]:
    """Return event-free probability (1 - cumulative incidence) at a horizon (days) with its 95 % confidence interval.

    Both are None if no patient was followed that long and not all had an event before.
    """
    jumps = find_jumps(outcome)
    free_of_all = float(np.prod(1 - jumps.ended / jumps.at_risk)) if len(jumps.times) else 1.0
    if float(outcome.time.max()) < horizon and free_of_all > 0:
        return None, None
    value, influence = observe_incidence(outcome, horizon)
    if 0 < value < 1:
        low, high = _find_limits(np.array([value]), np.array([math.sqrt((influence**2).sum())]))
        return 1 - value, (1 - float(high[0]), 1 - float(low[0]))
    # Exact, for as many patients as were followed that long, or had the event.
    count = outcome.event if value == 1 else outcome.find_at_risk(np.array([horizon]))[:, 0]
    edge = math.pow(_TAIL, 1 / max(1, int(count.sum())))
    return 1 - value, (edge, 1.0) if value == 0 else (0.0, 1 - edge)


def weigh_at_risk(outcome: Outcome, times: Numbers) -> Numbers:
    """Return the weight of each patient in the risk set of the subdistribution at each time, (N, T).

    Patients at risk weigh 1. Patients with a competing event at s before t stay in the risk set with the weight
    G(t-) / G(s-), the probability that they would not have been censored in between. Source: Fine and Gray 1999 (doi
    10.1080/01621459.1999.10474144).

    Args:
        outcome: Outcomes of N patients; delayed entry is not taken into account in the weights of competing events.
        times: In days, within the follow-up, (T).
    """
    weights = outcome.find_at_risk(times).astype(np.float64)
    if outcome.competing is None or not len(times):
        return weights
    rows = np.flatnonzero(outcome.competing)
    censoring = estimate_censoring(outcome)
    own = censoring.before(outcome.time[rows])
    stays = outcome.time[rows][:, None] < times[None, :]
    weights[rows] += stays * censoring.before(times)[None, :] / own[:, None]
    return weights


def _find_influence(outcome: Outcome, jumps: Jumps, horizon: float) -> Numbers:
    """Return the influence of each patient on the cumulative incidence at a horizon, (N)."""
    count = int(np.searchsorted(jumps.times, horizon, side="right"))
    if count == 0:
        return np.zeros(len(outcome))
    at_risk, had, ended, before = (part[:count] for part in (jumps.at_risk, jumps.had, jumps.ended, jumps.before))
    values = jumps.values[:count]
    left = np.maximum(at_risk - ended, 0.0)
    # How the estimate answers to one more event of each kind at each time.
    own = before / at_risk
    other = np.divide(values[-1] - values, left, out=np.zeros(count), where=left > 0)
    passed = np.concatenate([[0.0], np.cumsum(own * had / at_risk - other * ended / at_risk)])
    steps = np.searchsorted(jumps.times[:count], outcome.time, side="right")
    influence = -passed[steps]
    if outcome.entry is not None:
        influence += passed[np.searchsorted(jumps.times[:count], outcome.entry, side="right")]
    rows = np.flatnonzero(outcome.ended & (outcome.time <= horizon))
    place = steps[rows] - 1
    influence[rows] += outcome.event[rows] * own[place] - other[place]
    result: Numbers = influence
    return result


def _find_limits(values: Numbers, deviations: Numbers) -> tuple[Numbers, Numbers]:
    """Return 95 % limits by the log-log transformation; 0 and 1 have the limits 0 and 0, 1 and 1."""
    inside = (values > 0) & (values < 1)
    logs = np.log(np.where(inside, values, 0.5))
    widths = np.exp(_NORMAL * deviations / (np.where(inside, values, 0.5) * -logs))
    low, high = (np.where(inside, np.exp(logs * factor), values) for factor in (widths, 1 / widths))
    return low, high
