"""Chooses a method by cross-validation within the training patients, so that held-out patients have no part in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.metrics import concordance, pool
from duplus_nnunet.survival.models.baselines import count_inner_folds
from duplus_nnunet.survival.models.forecasts import Forecast, Task
from duplus_nnunet.survival.models.methods import forecast
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.outcome import read_outcome

BEST = "best by cross-validation"
# Of methods with equal scores, the first is chosen.
CANDIDATES = ("Cox", "Coxnet", "random survival forest", "logistic hazard")
# From this number of training patients on, one inner fold is enough to tell the methods apart.
MANY_PATIENTS = 2000


@dataclass(frozen=True)
class Choice:
    """A method that was chosen by inner cross-validation.

    Attributes:
        method: Its name.
        scores: Harrell's concordance of each method in inner held-out patients; NaN if it is not defined.
        errors: By method, why it could not be fitted.
    """

    method: str
    scores: Mapping[str, float]
    errors: Mapping[str, str] = field(default_factory=dict)


def choose_method(task: Task, candidates: Sequence[str] = CANDIDATES) -> Choice:
    """Choose the method of the highest Harrell's concordance in inner cross-validation of the training patients.

    All methods see the same inner folds: five, fewer with fewer events, and the first of the five alone with 2,000
    patients or more. A method that cannot be fitted in each of them is not chosen.

    Args:
        task: Training records, schema, seed and settings; its test records are not used.
        candidates: Names of methods; of those with equal scores, the first is chosen.

    Raises:
        DataError: No method can be fitted.
    """
    folds = make_folds(task.train, count_inner_folds(task), task.seed)
    folds = folds[:1] if len(task.train) >= MANY_PATIENTS else folds
    last = np.array([max(record.time for record in task.train)])
    scores: dict[str, float] = {}
    errors: dict[str, str] = {}
    for name in candidates:
        sums = []
        try:
            for fold in folds:
                train, test = ([task.train[row] for row in rows] for rows in (fold.train, fold.test))
                predicted = forecast(name, replace(task, train=train, test=test, times=last))
                sums.append(concordance(read_outcome(test), predicted.risk))
        except DataError as error:
            errors[name] = str(error)
            continue
        scores[name] = pool(sums)
    if not scores:
        raise DataError(f"No method can be fitted within the training patients: {next(iter(errors.values()))}")
    return Choice(max(scores, key=lambda name: np.nan_to_num(scores[name], nan=-np.inf)), scores, errors)


def predict_by_best(task: Task) -> Forecast:
    """Choose a method within the training patients, fit it to all of them, and predict."""
    choice = choose_method(task)
    notes = tuple(
        f"In a fold, {name!r} could not be fitted in the inner cross-validation and was not chosen: {error}"
        for name, error in choice.errors.items()
    )
    predicted = forecast(choice.method, task)
    return replace(predicted, notes=(*notes, *predicted.notes), chosen=choice.method)
