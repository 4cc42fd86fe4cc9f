"""Fits a method to several imputations of the training patients, and averages its predictions.

Survival is averaged as log(-log S), on which Cox regression is linear, and the risk as it is: for Cox regression the
linear predictor. With competing events S is 1 - cumulative incidence.

Source: Wood, Royston and White 2015 (doi 10.1002/bimj.201400004); Marshall et al. 2009 (doi 10.1186/1471-2288-9-57).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from duplus_nnunet.survival.models.forecasts import Forecast, Task, merge_notes
from duplus_nnunet.survival.records.imputation import LEAST_KNOWN, has_missing, impute, list_imputed
from duplus_nnunet.survival.records.outcome import Numbers

# Probabilities are clipped to this distance from 0 and 1.
_NEAREST = 1e-12


def needs_imputation(task: Task) -> bool:
    """Whether clinical.yaml asks for imputations, and a covariate is missing in a patient of the task."""
    return task.schema.imputations > 0 and has_missing((*task.train, *task.test), task.schema)


def forecast_imputed(method: Callable[[Task], Forecast], task: Task) -> Forecast:
    """Fit a method to each imputation of the training patients, and average its predictions.

    The patients to predict are imputed without outcomes; see `duplus_nnunet.survival.records.imputation`.

    Args:
        method: Fits and predicts.
        task: Records with missing covariates.
    """
    schema = task.schema.model_copy(update={"imputations": 0})
    forecasts = [
        method(replace(task, train=imputation.train, test=imputation.test, schema=schema))
        for imputation in impute(task.train, task.test, task.schema, task.schema.imputations, task.seed)
    ]
    cuts = [forecast.cut for forecast in forecasts if forecast.cut is not None]
    return Forecast(
        np.mean([forecast.risk for forecast in forecasts], axis=0),
        average_survival([forecast.survival for forecast in forecasts]),
        (*_note_kept(task), *merge_notes(note for forecast in forecasts for note in forecast.notes)),
        float(np.mean(cuts)) if len(cuts) == len(forecasts) else None,
    )


def average_survival(curves: Sequence[Numbers]) -> Numbers:
    """Average probabilities (N, T) of several imputations as log(-log S)."""
    logs = [np.log(-np.log(np.clip(curve, _NEAREST, 1 - _NEAREST))) for curve in curves]
    averaged: Numbers = np.exp(-np.exp(np.mean(logs, axis=0)))
    return averaged


def _note_kept(task: Task) -> tuple[str, ...]:
    """Name the covariates with missing values that are not imputed."""
    imputed = list_imputed(task.train, task.schema)
    kept = [
        name
        for name in task.schema.covariates
        if name not in imputed and any(record.values.get(name) is None for record in (*task.train, *task.test))
    ]
    if not kept:
        return ()
    listed = ", ".join(map(repr, kept))
    return (
        f"Missing values are marked by an indicator instead of imputed, as fewer than {LEAST_KNOWN} training patients "
        f"of a fold have a value, or all have the same: {listed}.",
    )
