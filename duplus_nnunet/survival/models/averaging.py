"""Several folds' models as one: in come patients and each fold's features of them, out come averages.

Survival curves are averaged as they are. Risks of different folds have no common scale: each is first counted in
standard deviations from the mean of that fold's training patients. Ranks among those would lose how far somebody lies
beyond all of them, and tie such patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.models.forecasts import choose_cut_off, merge_notes
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.table import Record

# Source of the days of a year: see schema.DAYS.
YEAR = 365.25
_YEARS = (1, 2, 3, 5)
_POINTS = 101


@dataclass(frozen=True)
class Average:
    """What several models say of N patients.

    Attributes:
        risk: Higher is worse, (N): standard deviations above the mean of the training patients, mean over folds.
        survival: Probability to be free of the event at each time, (N, T), mean over folds.
        cut: Risk above which a patient is of the high-risk group; None if no fold told its training patients apart.
        notes: What a reader has to know.
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
    """Foretell patients by all models.

    Args:
        models: One a fold.
        records: N patients; their outcomes are not looked at.
        tables: Features of their images as each fold's network sees them; None: there are no images.
        times: In days, (T).
    """
    found = [model.forecast(records, table, times) for model, table in zip(models, tables, strict=True)]
    risks = [standardise(model, one.risk) for model, one in zip(models, found, strict=True)]
    return Average(
        np.mean(risks, axis=0),
        np.mean([one.survival for one in found], axis=0),
        average_cut_offs(models),
        merge_notes(note for one in found for note in one.notes),
    )


def standardise(model: SurvivalModel, risk: Numbers) -> Numbers:
    """Count risks (N) in standard deviations above the mean of a model's training patients; 0 if those are alike."""
    spread = float(np.std(model.risks))
    if not np.ptp(model.risks) > 0:
        return np.zeros_like(risk)
    return np.asarray((risk - np.mean(model.risks)) / spread, np.float64)


def average_cut_offs(models: Sequence[SurvivalModel]) -> float | None:
    """Average the folds' cuts of risk groups, the medians of their training patients, on the risks' common scale."""
    cuts = [choose_cut_off(model.risks) for model in models]
    if all(cut is None for cut in cuts):
        return None
    pairs = zip(models, cuts, strict=True)
    return float(np.mean([0.0 if cut is None else standardise(model, np.array(cut)) for model, cut in pairs]))


def find_follow_up(models: Sequence[SurvivalModel]) -> float:
    """Return the days up to which training patients of every fold were followed."""
    return min(model.follow_up for model in models)


def choose_new_horizons(models: Sequence[SurvivalModel], wanted: Sequence[float]) -> tuple[float, ...]:
    """Choose when survival is told, in days, ascending.

    Args:
        models: One a fold.
        wanted: As asked for; none: 1, 2, 3 and 5 years as far as there was follow-up, or quarters of a shorter one.

    Raises:
        DataError: One is not above 0, or lies beyond the follow-up of a fold: nobody was observed there.
    """
    last = find_follow_up(models)
    if not wanted:
        years = tuple(year * YEAR for year in _YEARS if year * YEAR <= last)
        return years or tuple(last * part for part in (0.25, 0.5, 0.75))
    low, high = min(wanted), max(wanted)
    if not low > 0:
        raise DataError(f"A horizon is {low:g} days; expected more than 0 (--horizons).")
    if high > last:
        raise DataError(
            f"The horizon of {high:g} days lies beyond the follow-up of the training patients, {last:g} days: nobody "
            "was observed there, so that nothing is known. Choose earlier ones (--horizons)."
        )
    return tuple(sorted(set(wanted)))


def choose_curve(models: Sequence[SurvivalModel]) -> Numbers:
    """Choose the days of survival curves, from 0 to the end of follow-up."""
    return np.linspace(0, find_follow_up(models), _POINTS)
