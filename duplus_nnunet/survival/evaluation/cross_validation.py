"""Cross-validates one method: predictions for held-out patients and the sums that scores are made of.

A method is fitted on the training patients of each fold only; the risk cut-off comes from their risks too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.evaluation.intervals import Estimate, estimate_score
from duplus_nnunet.survival.evaluation.metrics import (
    Sums,
    brier_score,
    concordance,
    cumulative_dynamic_auc,
    ipcw_weights,
)
from duplus_nnunet.survival.models.forecasts import Forecast, Task
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import Fold
from duplus_nnunet.survival.records.out_of_range import count_missing, find_warnings, list_training_values
from duplus_nnunet.survival.records.outcome import Numbers, Outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

HIGH, LOW = "high", "low"
AUC, BRIER = "AUC", "Brier"  # at one horizon
_GRID, _CURVE = 20, 101
_HALF = 0.5

Method = Callable[[Task], Forecast]


@dataclass(frozen=True)
class Times:
    """Times at which survival is predicted, in days, each ascending.

    Attributes:
        grid: Times over which Brier scores are integrated.
        horizons: Times at which survival is reported.
        curve: Times of survival curves and median survival, from 0 to the end of follow-up.
    """

    grid: Numbers
    horizons: Numbers
    curve: Numbers

    def join(self) -> Numbers:
        """Concatenate grid, horizons and curve, (T)."""
        return np.concatenate([self.grid, self.horizons, self.curve])

    def part(self, survival: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Split survival at the times of `join`, (N, T), into survival on grid, horizons and curve."""
        at_grid, at_horizons, at_curve = np.split(survival, np.cumsum([len(self.grid), len(self.horizons)]), axis=1)
        return at_grid, at_horizons, at_curve


@dataclass(frozen=True)
class CrossValidation:
    """Data and folds of a cross-validation, shared by all methods.

    Attributes:
        records: One for each patient.
        outcome: Outcomes of the same patients.
        schema: Types of covariates.
        folds: Indices of records.
        images: Image features for each fold; None: no images.
        seed: Random seed.
        times: Times at which survival is predicted.
        settings: Settings of the DuPLUS model.
    """

    records: Sequence[Record]
    outcome: Outcome
    schema: ClinicalSchema
    folds: Sequence[Fold]
    images: Sequence[FeatureTable | None]
    seed: int
    times: Times
    settings: SurvivalSettings

    @property
    def held(self) -> list[int]:
        """Indices of all held-out patients, fold by fold."""
        return [row for fold in self.folds for row in fold.test]

    @property
    def ratio(self) -> float:
        """Mean number of held-out patients of a fold for each of its training patients."""
        return float(np.mean([len(fold.test) / len(fold.train) for fold in self.folds]))


@dataclass(frozen=True)
class HeldOut:
    """Prediction of one method for one held-out patient.

    Attributes:
        method: Name of the method.
        seed: Seed of the folds.
        fold: Number of the fold.
        patient: Patient ID.
        risk: Higher is worse; comparable within a fold only.
        survival: Probability of being event-free at each horizon.
        curve: Probability of being event-free at each time of the curve; empty where it is not kept.
        median: Median survival in days; None if it is not reached by the end of follow-up.
        group: HIGH or LOW: risk above the cut-off from the training patients or not; empty without a cut-off.
        missing: Number of missing covariates.
        warnings: Values outside the range seen in training, and missing inputs.
        time: Observed time to the event or to the end of follow-up, in days.
        event: Whether the event was observed.
        competing: Whether a competing event was observed instead.
    """

    method: str
    seed: int
    fold: int
    patient: str
    risk: float
    survival: tuple[float, ...]
    curve: tuple[float, ...] = ()
    median: float | None = None
    group: str = ""
    missing: int = 0
    warnings: tuple[str, ...] = ()
    time: float = math.nan
    event: bool = False
    competing: bool = False


@dataclass(frozen=True)
class MethodResult:
    """Result of one method in a cross-validation.

    Attributes:
        sums: Sums of each fold, by score.
        held: Predictions, in the order of `CrossValidation.held`.
        notes: Remarks for the reader.
        chosen: Name of the method that was chosen in each fold; empty for a single method.
    """

    sums: Mapping[str, Sequence[Sums]]
    held: tuple[HeldOut, ...]
    notes: tuple[str, ...]
    chosen: tuple[str, ...] = ()

    def estimate(self, folds: Sequence[Fold], patients: int, ratio: float) -> dict[str, Estimate]:
        """Return each score over all folds together; see `estimate_score` for the arguments."""
        rows = [fold.test for fold in folds]
        return {score: estimate_score(parts, rows, patients, ratio) for score, parts in self.sums.items()}

    def drop_curves(self) -> "MethodResult":
        """Return the result without survival curves; median survival is kept."""
        return replace(self, held=tuple(replace(held, curve=()) for held in self.held))

    def choose(self, number: int) -> "MethodResult":
        """Return the result with the sums of one fold only."""
        return replace(self, sums={score: [parts[number]] for score, parts in self.sums.items()})


def choose_times(outcome: Outcome, folds: Sequence[Fold], horizons: Sequence[float]) -> Times:
    """Choose the times at which survival is predicted; Brier scores run from the first event to the last horizon.

    Raises:
        DataError: The last horizon lies before the first event, or beyond the follow-up of a fold.
    """
    last = find_last(outcome, folds)
    first = float(outcome.time[outcome.event].min())
    if horizons[-1] <= first:
        raise DataError(
            f"The last horizon ({horizons[-1]:g} days) is not after the first event ({first:g} days): there is nothing "
            "to predict before it. Choose a later horizon (--horizons), or give times in a finer unit."
        )
    if horizons[-1] >= last:
        raise DataError(
            f"The horizon of {horizons[-1]:g} days lies beyond the follow-up of the training patients of a fold "
            f"({last:g} days). Choose an earlier horizon (`horizons` in clinical.yaml, or --horizons)."
        )
    return Times(np.linspace(first, horizons[-1], _GRID), np.array(horizons, float), np.linspace(0, last, _CURVE))


def find_last(outcome: Outcome, folds: Sequence[Fold]) -> float:
    """Return the shortest, over folds, of the longest follow-up of the training patients, in days."""
    return min(float(outcome.time[list(fold.train)].max()) for fold in folds)


def cross_validate(name: str, method: Method, cv: CrossValidation) -> MethodResult:
    """Cross-validate one method.

    Args:
        name: Name of the method.
        method: Fits and predicts a fold, or returns predictions of a model fitted elsewhere.
        cv: Data and folds.

    Raises:
        DataError: A prediction has the wrong shape or is not finite.
    """
    sums: dict[str, list[Sums]] = {}
    held: list[HeldOut] = []
    notes: dict[str, None] = {}
    chosen: list[str] = []
    for number, fold in enumerate(cv.folds):
        task = make_task(cv, number)
        forecast = _check(method(task), task)
        notes |= dict.fromkeys(forecast.notes)
        chosen += [forecast.chosen] if forecast.chosen else []
        held += _list_held_out((name, cv.seed, number), cv, forecast)
        for score, fold_sums in sum_up(cv, fold, forecast).items():
            sums.setdefault(score, []).append(fold_sums)
    return MethodResult(sums, tuple(held), tuple(notes), tuple(chosen))


def make_task(cv: CrossValidation, number: int) -> Task:
    """Return what a method receives in a fold."""
    fold = cv.folds[number]
    train, test = ([cv.records[row] for row in rows] for rows in (fold.train, fold.test))
    return Task(train, test, cv.schema, cv.times.join(), cv.seed, cv.images[number], cv.settings)


def _check(forecast: Forecast, task: Task) -> Forecast:
    """Check the predictions of a method, which may come from outside the package."""
    shapes, expected = (
        (forecast.risk.shape, forecast.survival.shape),
        ((len(task.test),), (len(task.test), len(task.times))),
    )
    if shapes != expected:
        raise DataError(f"Predicted risks and survival have the shapes {shapes}; expected {expected}.")
    if not (np.isfinite(forecast.risk).all() and ((forecast.survival >= 0) & (forecast.survival <= 1)).all()):
        raise DataError("Predicted risks are not finite, or predicted survival is not between 0 and 1.")
    return forecast


def sum_up(cv: CrossValidation, fold: Fold, forecast: Forecast) -> dict[str, Sums]:
    """Return the sums of each score in a fold."""
    train, test = cv.outcome.take(fold.train), cv.outcome.take(fold.test)
    grid, horizons = cv.times.grid, cv.times.horizons
    weights = ipcw_weights(train, test, float(np.nextafter(horizons[-1], np.inf)))
    aucs = [cumulative_dynamic_auc(test, forecast.risk, weights, horizon) for horizon in horizons]
    on_grid, at_horizons, _ = cv.times.part(forecast.survival)
    by_horizon: dict[str, Sums] = {}
    for index, (horizon, auc) in enumerate(zip(map(float, horizons), aucs, strict=True)):
        brier = brier_score(train, test, at_horizons[:, [index]], horizons[[index]])
        by_horizon |= {name_at(AUC, horizon): auc, name_at(BRIER, horizon): brier}
    return {
        "Harrell's C": concordance(test, forecast.risk),
        "Uno's C": concordance(test, forecast.risk, weights**2),
        "pooled AUC": Sums(
            np.sum([auc.top for auc in aucs], 0), np.sum([auc.bottom for auc in aucs], 0), of_pairs=True
        ),
        "integrated Brier": brier_score(train, test, on_grid, grid),
        **by_horizon,
    }


def name_at(score: str, horizon: float) -> str:
    """Return the name of AUC or Brier score at one horizon (days)."""
    return f"{score} at {horizon!r} days"


def _list_held_out(key: tuple[str, int, int], cv: CrossValidation, forecast: Forecast) -> list[HeldOut]:
    fold, images = cv.folds[key[2]], cv.images[key[2]]
    known = list_training_values([cv.records[index] for index in fold.train], cv.schema)
    _, survival, curves = cv.times.part(forecast.survival)
    listed = []
    for row, index in enumerate(fold.test):
        record, risk = cv.records[index], float(forecast.risk[row])
        listed.append(
            HeldOut(
                *key,
                record.patient,
                risk,
                tuple(map(float, survival[row])),
                tuple(map(float, curves[row])),
                find_median(cv.times.curve, curves[row]),
                "" if forecast.cut is None else HIGH if risk > forecast.cut else LOW,
                count_missing(record, cv.schema),
                find_warnings(record, known, cv.schema, images),
                record.time,
                record.event == SEEN,
                record.event not in (SEEN, CENSORED),
            )
        )
    return listed


def find_median(times: Numbers, curve: Numbers) -> float | None:
    """Return the median survival in days, by linear interpolation of a curve; None if it is not reached."""
    below = np.flatnonzero(curve <= _HALF)
    if not len(below):
        return None
    index = int(below[0])
    if index == 0:
        return float(times[0])
    before, after = curve[index - 1], curve[index]
    return float(times[index - 1] + (times[index] - times[index - 1]) * (before - _HALF) / (before - after))
