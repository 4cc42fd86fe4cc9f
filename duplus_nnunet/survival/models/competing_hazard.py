"""Combines the hazards of an event and of its competing events into the cumulative incidence of the event."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.records.outcome import Numbers, Outcome

_SMALLEST = 1e-300


@dataclass(frozen=True)
class Jumps:
    """What happened at each distinct time of an event of any kind, all (T).

    Attributes:
        times: In days, ascending.
        at_risk: Patients at risk just before.
        had: Patients with the event.
        ended: Patients with the event or a competing event.
        before: Probability of being free of all events just before.
    """

    times: Numbers
    at_risk: Numbers
    had: Numbers
    ended: Numbers
    before: Numbers

    @property
    def values(self) -> Numbers:
        """Cumulative incidence of the event."""
        return np.cumsum(self.before * self.had / self.at_risk)


def combine_causes(event: Numbers, competing: Numbers) -> Numbers:
    """Compute the probability of being free of the event, 1 - cumulative incidence, from cause-specific hazards.

    Within a step of time, the kinds of event share the hazard in constant proportion, so that the incidences of both
    and the probability of being free of both add up to 1.

    Args:
        event: exp(-H) of the cumulative hazard H of the event at ascending times from 0 on, (N, T).
        competing: The same of the competing events.
    """
    before = np.zeros((len(event), 1))
    hazards = [
        np.maximum(np.diff(-np.log(np.maximum(curve, _SMALLEST)), axis=1, prepend=before), 0.0)
        for curve in (event, competing)
    ]
    both = hazards[0] + hazards[1]
    free_before = np.exp(-np.concatenate([before, np.cumsum(both, axis=1)[:, :-1]], axis=1))
    share = np.divide(hazards[0], both, out=np.zeros_like(both), where=both > 0)
    free: Numbers = np.clip(1 - np.cumsum(free_before * -np.expm1(-both) * share, axis=1), 0.0, 1.0)
    return free


def fit_competing_hazard(outcome: Outcome) -> Numbers | None:
    """Fit the hazard of competing events, the same for all patients; None if no patient has one.

    Returns:
        Their times in days, ascending, and the probability of being free of them by Kaplan-Meier, with all other
        patients as censored, (2, T).
    """
    if outcome.competing is None:
        return None
    times, counts = np.unique(outcome.time[outcome.competing], return_counts=True)
    at_risk = outcome.find_at_risk(times).sum(0)
    return np.stack([times, np.cumprod(1 - counts / at_risk)])


def add_competing_hazard(predict: Callable[[Numbers], Numbers], competing: Numbers, times: Numbers) -> Numbers:
    """Return the probability of being free of the event, 1 - cumulative incidence, at each time, (N, T).

    Args:
        predict: Returns exp(-H) of N patients at times in days, where H is the cumulative hazard of the event.
        competing: Hazard of competing events, as from `fit_competing_hazard`.
        times: In days, (T).
    """
    wanted = np.atleast_1d(np.asarray(times, np.float64))
    moments = np.unique(np.concatenate([[0.0], competing[0][competing[0] <= wanted.max(initial=0.0)], wanted]))
    steps = np.concatenate([[1.0], competing[1]])[np.searchsorted(competing[0], moments, side="right")]
    curves = predict(moments)
    free = combine_causes(curves, np.tile(steps, (len(curves), 1)))
    return free[:, np.searchsorted(moments, wanted)]


def find_jumps(outcome: Outcome) -> Jumps:
    """Count what happened at each distinct time of an event of any kind."""
    times, ended = np.unique(outcome.time[outcome.ended], return_counts=True)
    events = np.sort(outcome.time[outcome.event])
    had = np.searchsorted(events, times, side="right") - np.searchsorted(events, times, side="left")
    at_risk = (len(outcome) - np.searchsorted(np.sort(outcome.time), times, side="left")).astype(np.float64)
    if outcome.entry is not None:
        at_risk -= len(outcome) - np.searchsorted(np.sort(outcome.entry), times, side="left")
    free = np.cumprod(1 - ended / at_risk)
    return Jumps(times, at_risk, had.astype(np.float64), ended.astype(np.float64), np.concatenate([[1.0], free[:-1]]))


def estimate_at(outcome: Outcome, times: Numbers) -> Numbers:
    """Return the cumulative incidence by Aalen-Johansen at each time (days), (T)."""
    jumps = find_jumps(outcome)
    return np.concatenate([[0.0], jumps.values])[np.searchsorted(jumps.times, times, side="right")]
