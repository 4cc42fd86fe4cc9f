"""Estimates the probability of being uncensored, from which IPCW weights are made.

At a time that several patients share, events come before censorings: a patient censored at t was at risk at t. So a
patient with the event at t is observed if censoring is not before t, with the probability G(t-), just before t; a
patient who is event-free at t is observed if censoring is after t, with the probability G(t). Without ties of events
and censorings, both are the same at the times of events.

Source: Graf et al. 1999 (doi 10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5).
"""

from dataclasses import dataclass

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.outcome import Numbers, Outcome


@dataclass(frozen=True)
class CensoringDistribution:
    """Kaplan-Meier estimate G of the probability of being uncensored, in the training patients.

    Attributes:
        times: Distinct times of censoring in days, ascending, (T).
        values: G before the first of them and from each of them on, (1 + T), descending from 1.
        last: The longest follow-up in days; unless G is 0 from there on, it is not known later.
    """

    times: Numbers
    values: Numbers
    last: float

    def before(self, times: Numbers) -> Numbers:
        """Return G just before each time (days), for patients with the event at that time."""
        self._check(times)
        return self.values[np.searchsorted(self.times, times, side="left")]

    def at(self, times: Numbers) -> Numbers:
        """Return G at each time (days), for patients who are event-free at that time."""
        self._check(times)
        return self.values[np.searchsorted(self.times, times, side="right")]

    def _check(self, times: Numbers) -> None:
        if len(times) and times.max() > self.last and self.values[-1] > 0:
            raise DataError(
                f"The censoring distribution is needed at {times.max():g} days, but the training patients were "
                f"followed for {self.last:g} days only. Choose an earlier horizon."
            )


def estimate_censoring(train: Outcome) -> CensoringDistribution:
    """Estimate the censoring distribution of training patients; delayed entry is not taken into account.

    A competing event is an end that was observed, and does not censor.
    """
    times = np.unique(train.time[~train.ended])
    ordered = np.sort(train.time)
    events, censored = np.sort(train.time[train.ended]), np.sort(train.time[~train.ended])
    followed = len(ordered) - np.searchsorted(ordered, times, side="left")
    had = np.searchsorted(events, times, side="right") - np.searchsorted(events, times, side="left")
    lost = np.searchsorted(censored, times, side="right") - np.searchsorted(censored, times, side="left")
    values = np.concatenate([[1.0], np.cumprod(1 - lost / (followed - had))])
    return CensoringDistribution(times, values, float(ordered[-1]))
