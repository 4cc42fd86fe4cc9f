"""Predicts the cumulative incidence of an event beside competing events by models of each kind of event.

A method is fitted twice, to the hazard of the event and to that of the competing events, each with the other censored
(cause-specific hazards). Together they give the cumulative incidence of the event; `Forecast.survival` is 1 less it.

Source: Prentice et al. 1978 (doi 10.2307/2530374); Putter et al. 2007 (doi 10.1002/sim.2712), section 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.models.baselines import (
    encode_records,
    predict_curve,
    predict_kaplan_meier,
    predict_without_covariates,
)
from duplus_nnunet.survival.models.combined_predictors import Competing
from duplus_nnunet.survival.models.competing_hazard import combine_causes, find_jumps
from duplus_nnunet.survival.models.forecasts import Forecast, Task, choose_cut_off
from duplus_nnunet.survival.models.predictors import Curve
from duplus_nnunet.survival.records.outcome import Numbers, read_outcome
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

# Competing events in training below which their hazard is taken to be the same for all patients.
LEAST_COMPETING = 10
_MOST_TIMES = 400
_MOST_STEPS = 100


def count_competing(records: Sequence[Record]) -> int:
    """Count the patients with a competing event."""
    return sum(record.event not in (SEEN, CENSORED) for record in records)


def forecast_incidence(method: Callable[[Task], Forecast], task: Task) -> Forecast:
    """Predict by a method that knows no competing events, fitted to each kind of event.

    The risk is the mean cumulative incidence until the last time, which is the share of that time that is lost to the
    event. With fewer than 10 competing events, their hazard is taken to be that of all training patients.

    Args:
        method: Fits and predicts.
        task: Training patients of whom some have a competing event, and patients to predict.
    """
    times = _choose_times(task)
    everyone = replace(task, test=(*task.test, *task.train), times=times)
    enough = count_competing(task.train) >= LEAST_COMPETING
    first = method(replace(everyone, train=_isolate(task.train, True)))
    other = method if enough else predict_kaplan_meier
    second = other(replace(everyone, train=_isolate(task.train, False)))
    free = combine_causes(first.survival, second.survival)
    risk = np.trapezoid(1 - free, times, axis=1) / times[-1]
    count = len(task.test)
    notes = tuple(dict.fromkeys((*first.notes, *second.notes, *([] if enough else [_note_few(task)]))))
    cut = choose_cut_off(risk[count:])
    predicted = free[:count, np.searchsorted(times, task.times)]
    parts = first.fitted, second.fitted
    if parts[0] is None or parts[1] is None:
        return Forecast(risk[:count], predicted, notes, cut)
    event, rest = parts[0], parts[1]
    return Forecast(risk[:count], predicted, notes, cut, fitted=lambda: Competing(event(), rest(), times))


def predict_aalen_johansen(task: Task) -> Forecast:
    """Predict the cumulative incidence of the training patients (Aalen-Johansen), and the same risk, for all."""
    jumps = find_jumps(read_outcome(task.train))
    return predict_curve(Curve(jumps.times, np.clip(1 - jumps.values, 0.0, 1.0)), task)


def predict_fine_gray(task: Task) -> Forecast:
    """Predict by Fine and Gray's proportional subdistribution hazards, fitted by the package comprisk.

    The risk is the linear predictor. Covariates are those of Cox; there is no penalty.

    Raises:
        DataError: No training patient has a competing event, or comprisk is not installed.
    """
    regression = _require_comprisk()
    outcome = read_outcome(task.train)
    if outcome.competing is None:
        raise DataError(
            "The Fine-Gray model needs competing events, and no training patient has one. List their codes in "
            "`event: competing` of clinical.yaml, or choose Cox."
        )
    train, test, notes = encode_records(task)
    if train.shape[1] == 0:
        return replace(predict_aalen_johansen(task), notes=predict_without_covariates(task, notes).notes)
    model = regression(max_iter=_MOST_STEPS)
    model.fit(train.astype(np.float64), time=outcome.time, event=outcome.causes)
    if not model.converged_ or not np.isfinite(model.coef_).all():
        notes = (*notes, f"In a fold, the Fine-Gray model did not converge in {_MOST_STEPS} steps.")
    # Far from the training patients, the exponential of the linear predictor may overflow: the incidence is then 1.
    with np.errstate(over="ignore", invalid="ignore"):
        incidence = np.nan_to_num(model.predict_cumulative_incidence(test.astype(np.float64), task.times), nan=0.0)
    cut = choose_cut_off(np.asarray(model.predict(train.astype(np.float64))))
    risk = np.asarray(model.predict(test.astype(np.float64)), np.float64)
    return Forecast(np.nan_to_num(risk), np.clip(1 - incidence, 0.0, 1.0), notes, cut)


def has_comprisk() -> bool:
    """Whether the package comprisk, which fits Fine-Gray models, is installed."""
    from importlib.util import find_spec

    return find_spec("comprisk") is not None


def _require_comprisk() -> Any:
    try:
        from comprisk import FineGrayRegression
    except ImportError as error:
        raise DataError(
            "The Fine-Gray model needs comprisk. Install it: pip install 'duplus-nnunet[competing]'"
        ) from error
    return FineGrayRegression


def _isolate(records: Sequence[Record], event: bool) -> tuple[Record, ...]:
    """Return records in which the event, or the competing events, are the only events; the others are censored."""
    return tuple(
        replace(record, event=SEEN if record.event != CENSORED and (record.event == SEEN) == event else CENSORED)
        for record in records
    )


def _choose_times(task: Task) -> Numbers:
    """Return the times of the task, 0, and the training patients' event times, at most 400 of them, ascending."""
    outcome = read_outcome(task.train)
    events = np.unique(outcome.time[outcome.ended])
    if len(events) > _MOST_TIMES:
        events = np.quantile(events, np.linspace(0, 1, _MOST_TIMES), method="nearest")
    last = float(np.max(task.times, initial=0.0))
    return np.unique(np.concatenate([[0.0], events[events <= last], task.times, [last or 1.0]]))


def _note_few(task: Task) -> str:
    return (
        f"In a fold, {count_competing(task.train)} training patients have a competing event, fewer than "
        f"{LEAST_COMPETING}: its hazard is taken to be the same for all patients."
    )
