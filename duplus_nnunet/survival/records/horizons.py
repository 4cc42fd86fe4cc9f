"""Chooses the horizons: the one set of times at which survival is evaluated, calibrated and predicted.

They are those of the schema (`horizons:` in clinical.yaml). Without them they are chosen by one rule, from the
outcomes: 1, 2, 3 and 5 years, where events have occurred and enough patients are still followed; otherwise the
quartiles of the event times.
"""

import math

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.outcome import Outcome
from duplus_nnunet.survival.records.schema import DAYS

_YEARS = (1, 2, 3, 5)
# A year is a horizon if so many patients had the event by then, and so many are followed for longer.
_LEAST_EVENTS, _LEAST_FOLLOWED = 5, 10
_QUARTILES = (0.25, 0.5, 0.75)
RULE = (
    f"1, 2, 3 and 5 years, where {_LEAST_EVENTS} patients or more had the event by then and {_LEAST_FOLLOWED} or more "
    "are followed for longer; otherwise the quartiles of the event times"
)


def choose_horizons(outcome: Outcome, followed: float = math.inf) -> tuple[float, ...]:
    """Choose horizons in days, ascending, by the rule of this module.

    Args:
        outcome: Outcomes with one event or more.
        followed: Days to which the training patients of every fold were followed; only horizons before it are chosen.
            If no quartile is after the first event, the quartiles of the events before it are taken.

    Raises:
        DataError: No horizon lies between the first event and the end of follow-up.
    """
    years = [year * DAYS["years"] for year in _YEARS]
    usable = tuple(time for time in years if time < followed and _is_usable(outcome, time))
    if usable:
        return usable
    times = outcome.time[outcome.event]
    first = float(times.min())
    for events in (times, times[times < followed]):
        quartiles = np.unique(np.quantile(events, _QUARTILES)) if len(events) else events
        kept = tuple(float(time) for time in quartiles[quartiles < followed])
        if kept and (kept[-1] > first or followed == math.inf):
            return kept
    raise DataError(
        f"No horizon separates the events: the first is at {first:g} days, and the training patients of every fold "
        f"were followed for {followed:g} days only. Use patients with longer follow-up, other folds, or a finer unit "
        "of time."
    )


def _is_usable(outcome: Outcome, time: float) -> bool:
    events = int((outcome.event & (outcome.time <= time)).sum())
    return events >= _LEAST_EVENTS and int((outcome.time > time).sum()) >= _LEAST_FOLLOWED
