"""One cross-validation of one method: in come folds, out come held-out predictions and sums of scores.

Whatever the method, its training fold is all that it learns from; risk groups are cut by training risks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.evaluation.metrics import (
    Sums,
    brier_score,
    concordance,
    cumulative_dynamic_auc,
    ipcw_weights,
    pool,
)
from duplus_nnunet.survival.models.forecasts import Forecast, Task
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import Fold
from duplus_nnunet.survival.records.out_of_range import count_missing, find_warnings, list_training_values
from duplus_nnunet.survival.records.outcome import Numbers, Outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record

HIGH, LOW = "high", "low"
_GRID, _CURVE = 20, 101
_HALF = 0.5

Method = Callable[[Task], Forecast]


@dataclass(frozen=True)
class Times:
    """When survival is asked for, in days, ascending each.

    Attributes:
        grid: Over which Brier scores are integrated.
        horizons: At which survival is reported.
        curve: From 0 to the end of follow-up, for curves and median times.
    """

    grid: Numbers
    horizons: Numbers
    curve: Numbers

    def join(self) -> Numbers:
        """Put them one after the other."""
        return np.concatenate([self.grid, self.horizons, self.curve])

    def part(self, survival: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Part survival at `join` times, (N, T), again."""
        at_grid, at_horizons, at_curve = np.split(survival, np.cumsum([len(self.grid), len(self.horizons)]), axis=1)
        return at_grid, at_horizons, at_curve


@dataclass(frozen=True)
class CrossValidation:
    """What all methods of a cross-validation share.

    Attributes:
        records: One a patient.
        outcome: Of the same.
        schema: Types of covariates.
        folds: Places of records.
        images: Of each fold, or None.
        seed: Of whatever is drawn.
        times: When survival is asked for.
        settings: Of our own model with images.
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
        """Places of all held-out patients, fold by fold."""
        return [place for fold in self.folds for place in fold.test]


@dataclass(frozen=True)
class HeldOut:
    """What a method predicted of one held-out patient.

    Attributes:
        method: Its name.
        seed: Of the split.
        fold: Number of the fold.
        patient: Who it is.
        risk: Higher is worse; comparable within a fold only.
        survival: Probability to be free of the event at each horizon.
        curve: The same at each time of the curves.
        median: Days by which the probability has fallen to one half; None if it has not by the end of follow-up.
        group: HIGH or LOW, as the risk lies above the training patients' cut or not; empty without a cut.
        missing: Number of covariates that are not known of the patient.
        warnings: In what the patient differs from all that were trained on.
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


@dataclass(frozen=True)
class MethodResult:
    """What one method did in a cross-validation.

    Attributes:
        sums: By score, one a fold.
        held: Predictions, in the order of `CrossValidation.held`.
        notes: What a reader has to know.
    """

    sums: Mapping[str, Sequence[Sums]]
    held: tuple[HeldOut, ...]
    notes: tuple[str, ...]

    def pool(self, folds: Sequence[Fold], counts: Numbers) -> dict[str, Numbers]:
        """Pool folds in each draw, counts (1 + B, N), by score."""
        drawn = [counts[:, list(fold.test)] for fold in folds]
        return {score: pool(parts, drawn) for score, parts in self.sums.items()}

    def choose(self, number: int) -> "MethodResult":
        """Keep the sums of one fold."""
        return replace(self, sums={score: [parts[number]] for score, parts in self.sums.items()})


def choose_times(outcome: Outcome, folds: Sequence[Fold], horizons: Sequence[float]) -> Times:
    """Choose when survival is asked for; Brier scores are integrated from the first seen event to the last horizon.

    Raises:
        DataError: The last horizon lies before the first event, or beyond the follow-up of a fold.
    """
    last = find_last(outcome, folds)
    first = float(outcome.time[outcome.event].min())
    if horizons[-1] <= first:
        raise DataError(
            f"The last horizon, {horizons[-1]:g} days, is not after the first event, {first:g} days, so that there is "
            "nothing to foretell until then. Choose a later one (--horizons); coarse times may need a finer unit."
        )
    if horizons[-1] >= last:
        raise DataError(
            f"The horizon of {horizons[-1]:g} days lies beyond the follow-up of a fold, {last:g} days. Choose an "
            "earlier one (--horizons): nobody was observed there."
        )
    return Times(np.linspace(first, horizons[-1], _GRID), np.array(horizons, float), np.linspace(0, last, _CURVE))


def find_last(outcome: Outcome, folds: Sequence[Fold]) -> float:
    """Find the days up to which the training patients of every fold were followed."""
    return min(float(outcome.time[list(fold.train)].max()) for fold in folds)


def cross_validate(name: str, method: Method, place: CrossValidation) -> MethodResult:
    """Cross-validate one method.

    Args:
        name: Of the method.
        method: Learns and predicts; or gives what was predicted elsewhere.
        place: Folds and all that methods share.

    Raises:
        DataError: A forecast is of other patients or times, or not finite.
    """
    sums: dict[str, list[Sums]] = {}
    held: list[HeldOut] = []
    notes: dict[str, None] = {}
    for number, fold in enumerate(place.folds):
        task = _make_task(place, number)
        found = _check(method(task), task)
        notes |= dict.fromkeys(found.notes)
        held += _list_held_out((name, place.seed, number), place, found)
        for score, one in _sum_up(place, fold, found).items():
            sums.setdefault(score, []).append(one)
    return MethodResult(sums, tuple(held), tuple(notes))


def _make_task(place: CrossValidation, number: int) -> Task:
    fold = place.folds[number]
    train, test = ([place.records[one] for one in places] for places in (fold.train, fold.test))
    return Task(train, test, place.schema, place.times.join(), place.seed, place.images[number], place.settings)


def _check(found: Forecast, task: Task) -> Forecast:
    """Check that a forecast, which another program may have made, is one of the task."""
    shapes, expected = (found.risk.shape, found.survival.shape), ((len(task.test),), (len(task.test), len(task.times)))
    if shapes != expected:
        raise DataError(f"A forecast has risks and survival of shapes {shapes}; expected {expected}.")
    if not (np.isfinite(found.risk).all() and ((found.survival >= 0) & (found.survival <= 1)).all()):
        raise DataError("A forecast holds risks that are not finite, or survival that is not between 0 and 1.")
    return found


def _sum_up(place: CrossValidation, fold: Fold, found: Forecast) -> dict[str, Sums]:
    train, test = place.outcome.take(fold.train), place.outcome.take(fold.test)
    grid, horizons = place.times.grid, place.times.horizons
    weights = ipcw_weights(train, test, float(np.nextafter(horizons[-1], np.inf)))
    parts = [cumulative_dynamic_auc(test, found.risk, weights, horizon) for horizon in horizons]
    return {
        "Harrell's C": concordance(test, found.risk),
        "Uno's C": concordance(test, found.risk, weights**2),
        "pooled AUC": Sums(np.sum([part.top for part in parts], 0), np.sum([part.bottom for part in parts], 0)),
        "integrated Brier": brier_score(train, test, place.times.part(found.survival)[0], grid),
    }


def _list_held_out(key: tuple[str, int, int], place: CrossValidation, found: Forecast) -> list[HeldOut]:
    fold, images = place.folds[key[2]], place.images[key[2]]
    known = list_training_values([place.records[one] for one in fold.train], place.schema)
    _, survival, curves = place.times.part(found.survival)
    listed = []
    for row, one in enumerate(fold.test):
        record, risk = place.records[one], float(found.risk[row])
        listed.append(
            HeldOut(
                *key,
                record.patient,
                risk,
                tuple(map(float, survival[row])),
                tuple(map(float, curves[row])),
                find_median(place.times.curve, curves[row]),
                "" if found.cut is None else HIGH if risk > found.cut else LOW,
                count_missing(record, place.schema),
                find_warnings(record, known, place.schema, images),
            )
        )
    return listed


def find_median(times: Numbers, curve: Numbers) -> float | None:
    """Find when a survival curve has fallen to one half, between times in a straight line; None if it has not."""
    below = np.flatnonzero(curve <= _HALF)
    if not len(below):
        return None
    last = int(below[0])
    if last == 0:
        return float(times[0])
    before, after = curve[last - 1], curve[last]
    return float(times[last - 1] + (times[last] - times[last - 1]) * (before - _HALF) / (before - after))
