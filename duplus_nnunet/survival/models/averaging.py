"""Averages the predictions of the models of several folds.

Risks of different folds have no common scale and are standardised by each fold's training patients first. Ranks would
not do: they tie all patients whose risk is higher than that of every training patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.models.forecasts import choose_cut_off, merge_notes
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.schema import DAYS
from duplus_nnunet.survival.records.table import Record

_YEARS = (1, 2, 3, 5)
_POINTS = 101


@dataclass(frozen=True)
class Average:
    """Predictions of N patients, averaged over folds.

    Attributes:
        risk: Mean standardised risk, (N), in standard deviations from the mean of training patients; higher is worse.
        survival: Mean survival probability at each time, (N, T).
        cut: Cut-off of the high-risk group; a higher risk is high. None if all folds have equal training risks.
        notes: Notes for the reader.
    """

    risk: Numbers
    survival: Numbers
    cut: float | None
    notes: tuple[str, ...]


def average(
    models: Sequence[SurvivalModel],
    records: Sequence[Record],
    tables: Sequence[FeatureTable | None],
    times: Numbers,
) -> Average:
    """Predict patients by all models, and average the predictions.

    Args:
        models: One model per fold.
        records: Records of N patients; their outcomes are not used.
        tables: Image features of the patients from each fold's network; None: there are no images.
        times: Times at which survival is predicted, in days, (T).
    """
    forecasts = [model.forecast(records, table, times) for model, table in zip(models, tables, strict=True)]
    risks = [standardise(model, forecast.risk) for model, forecast in zip(models, forecasts, strict=True)]
    return Average(
        np.mean(risks, axis=0),
        np.mean([forecast.survival for forecast in forecasts], axis=0),
        average_cut_offs(models),
        merge_notes(note for forecast in forecasts for note in forecast.notes),
    )


def standardise(model: SurvivalModel, risk: Numbers) -> Numbers:
    """Standardise risks (N) by those of a model's training patients; 0 if the latter are all equal."""
    spread = float(np.std(model.risks))
    if not np.ptp(model.risks) > 0:
        return np.zeros_like(risk)
    return np.asarray((risk - np.mean(model.risks)) / spread, np.float64)


def average_cut_offs(models: Sequence[SurvivalModel]) -> float | None:
    """Average the folds' cut-offs of risk groups, standardised; None if all folds have equal training risks."""
    cut_offs = [choose_cut_off(model.risks) for model in models]
    if all(cut_off is None for cut_off in cut_offs):
        return None
    pairs = zip(models, cut_offs, strict=True)
    return float(np.mean([0.0 if value is None else standardise(model, np.array(value)) for model, value in pairs]))


def find_follow_up(models: Sequence[SurvivalModel]) -> float:
    """Return the shortest of the folds' follow-ups, in days; each is the longest time of its training patients."""
    return min(model.follow_up for model in models)


def choose_new_horizons(models: Sequence[SurvivalModel], requested: Sequence[float]) -> tuple[float, ...]:
    """Choose the horizons at which survival of new patients is reported, in days, ascending.

    Args:
        models: One model per fold.
        requested: Requested horizons; if empty, those of the schema, or those that all folds chose from their training
            patients by the same rule as an evaluation. Models of earlier versions have none: 1, 2, 3 and 5 years within
            the follow-up, or else the quarters of the follow-up.

    Raises:
        DataError: A horizon is not above 0, or lies beyond the follow-up of a fold.
    """
    last = find_follow_up(models)
    if not requested:
        stored = _find_common_horizons(models, last)
        if stored:
            return stored
        years = tuple(year * DAYS["years"] for year in _YEARS if year * DAYS["years"] <= last)
        return years or tuple(last * share for share in (0.25, 0.5, 0.75))
    low, high = min(requested), max(requested)
    if not low > 0:
        raise DataError(f"A horizon is {low:g} days; expected more than 0 (--horizons).")
    if high > last:
        raise DataError(
            f"The horizon of {high:g} days lies beyond the follow-up of the training patients, {last:g} days. Choose "
            "earlier horizons (--horizons)."
        )
    return tuple(sorted(set(requested)))


def _find_common_horizons(models: Sequence[SurvivalModel], last: float) -> tuple[float, ...]:
    """Return the horizons of the schema, or those of all folds; if they have none in common, those of the first."""
    schema = models[0].schema.horizons_in_days
    sets = [set(schema)] if schema else [set(model.horizons) for model in models]
    common = set.intersection(*sets) or sets[0]
    return tuple(sorted(horizon for horizon in common if horizon <= last))


def choose_curve(models: Sequence[SurvivalModel]) -> Numbers:
    """Choose the times of survival curves in days, from 0 to the end of follow-up."""
    return np.linspace(0, find_follow_up(models), _POINTS)
